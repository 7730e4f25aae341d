//! The experiments' table.

use std::fmt::{Display, Formatter};

use crate::names::Unit;
use crate::report::{Machine, number};
use crate::series::Spread;

/// One figure of every alternative, the first of which is what the product does.
pub(super) struct Line {
    experiment: String,
    figure: String,
    unit: Unit,
    found: Vec<(&'static str, Vec<f64>)>,
}

impl Line {
    pub(super) fn new(
        experiment: &str,
        figure: String,
        unit: Unit,
        labels: Vec<&'static str>,
    ) -> Self {
        Self {
            experiment: experiment.to_owned(),
            figure,
            unit,
            found: labels
                .into_iter()
                .map(|label| (label, Vec::new()))
                .collect(),
        }
    }

    pub(super) fn push(&mut self, alternative: usize, value: f64) {
        if let Some((_, values)) = self.found.get_mut(alternative) {
            values.push(value);
        }
    }

    /// Whether every alternative has a figure.
    pub(super) fn is_whole(&self) -> bool {
        self.found.iter().all(|(_, values)| !values.is_empty())
    }

    /// An alternative against the first, round by round; more is better.
    fn ratio(&self, values: &[f64]) -> Option<Spread> {
        let (_, first) = self.found.first()?;
        let rounds = first.iter().zip(values).map(|(first, other)| {
            if self.unit.less_is_better() {
                first / other
            } else {
                other / first
            }
        });
        Spread::of(rounds.filter(|ratio| ratio.is_finite()).collect())
    }
}

/// `| figure | first | other | ratio |`, a row for each other alternative.
impl Display for Line {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let shown = |(label, values): &(&str, Vec<f64>)| {
            let found = Spread::of(values.clone());
            found.map_or_else(
                String::new,
                |Spread {
                     low, median, high, ..
                 }| {
                    format!(
                        "{label}: **{}** ({}–{})",
                        number(median),
                        number(low),
                        number(high)
                    )
                },
            )
        };
        let Some((first, others)) = self.found.split_first() else {
            return Ok(());
        };
        for (place, other) in others.iter().enumerate() {
            let ratio = self.ratio(&other.1).map_or_else(
                String::new,
                |Spread {
                     low, median, high, ..
                 }| { format!("**{median:.3}** ({low:.3}–{high:.3})") },
            );
            let new = if place == 0 { "" } else { "\n" };
            let (name, figure, unit) = (&self.experiment, &self.figure, self.unit.name());
            let rounds = other.1.len();
            write!(
                f,
                "{new}| {name} | {figure} | {unit} | {} | {} | {ratio} | {rounds} |",
                shown(first),
                shown(other)
            )?;
        }
        Ok(())
    }
}

/// Of what went wrong: the verifier says more than anybody wants in a table.
const MOST_TEXT: usize = 1000;

/// All that was found.
pub(super) struct Table {
    machine: String,
    lines: Vec<Line>,
    failures: Vec<String>,
    /// What this machine has not.
    left_out: Vec<String>,
}

impl Table {
    pub(super) fn new(machine: &Machine) -> Self {
        Self {
            machine: format!(
                "{} × {}, {}, kernel {}, {:.2} CPUs busy before, commit {}",
                machine.cpus,
                machine.cpu,
                machine.virtualization,
                machine.kernel,
                machine.busy_before,
                machine.commit
            ),
            lines: Vec::new(),
            failures: Vec::new(),
            left_out: Vec::new(),
        }
    }

    pub(super) fn push(&mut self, line: Line) {
        self.lines.push(line);
    }

    pub(super) fn fail(&mut self, name: &str, error: &anyhow::Error) {
        let text: String = format!("{error:#}").chars().take(MOST_TEXT).collect();
        self.failures.push(format!("{name}: {text}"));
    }

    /// Says that something cannot be tried here, which is nobody's failure.
    pub(super) fn leave_out(&mut self, name: &str, why: &str) {
        let text: String = why.chars().take(MOST_TEXT).collect();
        self.left_out
            .push(format!("{name}: {}", text.replace('\n', " ")));
    }

    pub(super) fn has_failed(&self) -> bool {
        !self.failures.is_empty()
    }
}

impl Display for Table {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}\n", self.machine)?;
        writeln!(
            f,
            "| Experiment | Figure | Unit | As it is (rounds) | Otherwise (rounds) | Otherwise against as it is, more is better | Rounds |\n\
             |---|---|---|---|---|---|---|"
        )?;
        for line in &self.lines {
            writeln!(f, "{line}")?;
        }
        for why in &self.left_out {
            writeln!(f, "\nNot here: {why}")?;
        }
        for failure in &self.failures {
            writeln!(f, "\nNot measured: {failure}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(unit: Unit) -> Line {
        let mut line = Line::new(
            "mac",
            "tcp_crr".into(),
            unit,
            vec!["as it is", "direct-mac"],
        );
        for (first, other) in [(10.0, 11.0), (20.0, 21.0), (10.0, 12.0)] {
            line.push(0, first);
            line.push(1, other);
        }
        line
    }

    #[test]
    fn an_alternative_is_compared_round_by_round() {
        let shown = line(Unit::PerSecond).to_string();
        let wanted = "| mac | tcp_crr | 1/s | as it is: **10.0** (10.0–20.0) | direct-mac: **12.0** (11.0–21.0) | \
                      **1.100** (1.050–1.200) | 3 |";
        assert_eq!(shown, wanted);
    }

    #[test]
    fn of_times_less_is_better() {
        let ratio = line(Unit::Milliseconds).to_string();
        assert!(ratio.contains("**0.909** (0.833–0.952)"), "{ratio}");
    }

    #[test]
    fn what_failed_is_said_below_the_table() {
        let mut table = Table::new(&Machine::default());
        assert!(!table.has_failed());
        table.leave_out("netkit", "this kernel has none");
        assert!(!table.has_failed());
        assert!(
            table
                .to_string()
                .ends_with("Not here: netkit: this kernel has none\n")
        );
        table.fail("gro", &anyhow::anyhow!("start ethtool: not found"));
        assert!(table.has_failed());
        assert!(
            table
                .to_string()
                .ends_with("Not measured: gro: start ethtool: not found\n")
        );
    }
}
