//! Has anything become worse since another run?

use std::fmt::{Display, Formatter};

use super::{Ratio, Report, Row};
use crate::names::{Measure, SideName};

/// What may be lost before it is told: two runs of the same differ by less.
const SLACK: f64 = 0.9;

/// A figure that is worse than it was.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Worse {
    pub(crate) measure: Measure,
    pub(crate) path: String,
    /// What the figure is of.
    pub(crate) of: String,
    pub(crate) before: f64,
    pub(crate) now: f64,
    /// What is left of it: better is higher.
    pub(crate) left: f64,
}

impl Display for Worse {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let Self {
            measure,
            path,
            of,
            before,
            now,
            left,
        } = self;
        write!(
            f,
            "WORSE  {measure}, {path}, {of}: {before:.3} before, {now:.3} now, {:.0} % of it left",
            left * 100.0
        )
    }
}

/// Every ratio that fell by more than a tenth. Where there is no ratio, because no peer could be measured then or now, our own
/// figure counts, if it is from a machine like this one. What only one of the reports has is not compared.
pub(crate) fn compare(before: &Report, now: &Report) -> Vec<Worse> {
    let mut worse = Vec::new();
    let mut compared = Vec::new();
    for ratio in &now.ratios {
        let same = |old: &&Ratio| old.measure == ratio.measure && old.path == ratio.path;
        let Some(old) = before.ratios.iter().find(same) else {
            continue;
        };
        for ((side, now), (_, before)) in ratio.named().into_iter().zip(old.named()) {
            let (Some(now), Some(before)) = (now, before) else {
                continue;
            };
            compared.push((ratio.measure, ratio.path.as_str()));
            worse.push(Worse {
                measure: ratio.measure,
                path: ratio.path.clone(),
                of: format!("ours over {side}"),
                before,
                now,
                left: now / before,
            });
        }
    }
    if now.machine.is_like(&before.machine) {
        let alone = now.rows.iter().filter(|row| {
            row.side == SideName::Ours
                && !row.is_detail()
                && !compared.contains(&(row.measure, row.path.as_str()))
        });
        worse.extend(alone.filter_map(|row| own(before, row)));
    }
    worse.retain(|figure| figure.left < SLACK);
    worse
}

/// Our own figure, without anybody to compare with.
fn own(before: &Report, row: &Row) -> Option<Worse> {
    let old = before.row(row.measure, &row.path, SideName::Ours)?;
    let gained = row.median / old.median;
    let left = if row.unit.is_time() {
        1.0 / gained
    } else {
        gained
    };
    (old.unit == row.unit).then(|| Worse {
        measure: row.measure,
        path: row.path.clone(),
        of: format!("ours, {}", row.unit.name()),
        before: old.median,
        now: row.median,
        left,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::Unit;

    fn ratio(over_host: Option<f64>, over_bridge: Option<f64>) -> Ratio {
        Ratio {
            measure: Measure::TcpCrr,
            path: "pod→VNet".into(),
            ours_over_host: over_host,
            ours_over_bridge: over_bridge,
            ours_over_ptp: None,
            low: 0.0,
            high: 9.0,
        }
    }

    fn report(ratios: Vec<Ratio>) -> Report {
        Report {
            ratios,
            ..Report::default()
        }
    }

    fn alone(median: f64, unit: Unit) -> Report {
        let mut report = Report::default();
        report.rows.push(Row {
            measure: Measure::Add,
            path: "serial".into(),
            side: SideName::Ours,
            unit,
            median,
            p50_us: None,
            p99_us: None,
            min: 0.0,
            max: 0.0,
            rounds: 7,
        });
        report
    }

    #[test]
    fn what_lost_more_than_a_tenth_is_told_by_name() {
        let worse = compare(
            &report(vec![ratio(Some(0.98), Some(1.3))]),
            &report(vec![ratio(Some(0.97), Some(1.1))]),
        );
        let told: Vec<_> = worse.iter().map(ToString::to_string).collect();
        let line =
            "WORSE  tcp_crr, pod→VNet, ours over bridge: 1.300 before, 1.100 now, 85 % of it left";
        assert_eq!(told, [line]);
    }

    #[test]
    fn a_tenth_is_noise_and_better_is_no_news() {
        let before = report(vec![ratio(Some(1.0), Some(1.3))]);
        let now = report(vec![ratio(Some(0.91), Some(2.0))]);
        assert_eq!(compare(&before, &now), []);
    }

    #[test]
    fn what_was_measured_once_only_is_not_compared() {
        let before = report(vec![ratio(Some(1.0), Some(1.3))]);
        let now = report(vec![ratio(None, Some(1.3))]);
        assert_eq!(compare(&before, &now), []);
        assert_eq!(compare(&report(Vec::new()), &now), []);
    }

    #[test]
    fn without_peers_our_own_figure_counts_on_the_same_machine_only() {
        let (before, now) = (
            alone(10.0, Unit::Milliseconds),
            alone(60.0, Unit::Milliseconds),
        );
        assert_eq!(compare(&before, &now).len(), 1);
        assert_eq!(compare(&now, &before), [], "less time is better");
        let mut elsewhere = now;
        elsewhere.machine.cpu = "another".into();
        assert_eq!(compare(&before, &elsewhere), []);
        let (before, now) = (alone(60.0, Unit::PerSecond), alone(10.0, Unit::PerSecond));
        assert_eq!(compare(&before, &now).len(), 1);
    }
}
