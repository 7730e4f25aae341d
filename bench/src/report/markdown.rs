//! `report.md`: the tables for people.

use std::fmt::Write as _;

use super::bars::{Verdict, bytes_as_mebi, judge};
use super::plot::Plot;
use super::{Report, Row, explained};
use crate::names::{Measure, SideName};

use clap::ValueEnum as _;

/// The whole report.
pub(super) fn report(report: &Report, plots: &[Plot]) -> String {
    format!(
        "# What a pod's network costs\n\nWritten by `cargo xtask bench`; how it is measured and what it cannot show: \
         docs/performance.md. Every side ran in this one run, in turns; figures are medians of the rounds, with the least and \
         the greatest. Nothing is carried over from elsewhere.\n\n{}",
        body(report, plots)
    )
}

/// All tables.
pub(super) fn body(report: &Report, plots: &[Plot]) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    write(&mut text, report, plots).unwrap_or_default();
    text
}

fn write(text: &mut String, report: &Report, plots: &[Plot]) -> std::fmt::Result {
    machine(text, report)?;
    failures(text, report)?;
    bars(text, report)?;
    if let Some(costs) = &report.machine.costs {
        costs.write(text)?;
    }
    for measure in Measure::value_variants() {
        let paths = report.paths(*measure);
        if paths.is_empty() {
            continue;
        }
        writeln!(text, "## {} (`{measure}`)\n", measure.title())?;
        for plot in plots.iter().filter(|plot| plot.measure == *measure) {
            writeln!(text, "![{}]({})\n", measure.title(), plot.file)?;
        }
        table(text, report, *measure, &paths)?;
        ratios(text, report, *measure)?;
    }
    Ok(())
}

fn machine(text: &mut String, report: &Report) -> std::fmt::Result {
    let machine = &report.machine;
    writeln!(text, "## The machine\n\n| | |\n|---|---|")?;
    let lines = [
        ("CPU", format!("{} × {}", machine.cpus, machine.cpu)),
        ("memory", format!("{} MiB", machine.memory_mib)),
        ("kernel", machine.kernel.clone()),
        ("virtualization", machine.virtualization.clone()),
        (
            "CPUs that others had before",
            format!("{:.2}", machine.busy_before),
        ),
        ("commit", machine.commit.clone()),
        (
            "run",
            format!(
                "a {} one of {:.0} s, at {} s since 1970",
                machine.kind(),
                machine.seconds,
                machine.time
            ),
        ),
    ];
    for (name, value) in lines {
        writeln!(text, "| {name} | {value} |")?;
    }
    for size in &report.machine.sizes {
        writeln!(
            text,
            "| {} | {:.1} MiB |",
            size.what,
            bytes_as_mebi(size.bytes)
        )?;
    }
    writeln!(text)
}

fn failures(text: &mut String, report: &Report) -> std::fmt::Result {
    if report.machine.failures.is_empty() {
        return Ok(());
    }
    writeln!(
        text,
        "## What could not be measured\n\n| What | Side | Why |\n|---|---|---|"
    )?;
    for failure in &report.machine.failures {
        let side = failure.side.map_or("all", SideName::name);
        let why = failure.error.replace('|', "\\|").replace('\n', "<br>");
        writeln!(text, "| {} | {side} | {why} |", failure.what)?;
    }
    writeln!(text)
}

fn bars(text: &mut String, report: &Report) -> std::fmt::Result {
    writeln!(
        text,
        "## Bars\n\n| What | Bar | Found | | Explained by |\n|---|---|---|---|---|"
    )?;
    let known = explained::known();
    for judged in judge(report) {
        let verdict = match judged.verdict {
            Verdict::Met => "met",
            Verdict::Partly => "partly measured",
            Verdict::Missed => "**missed**",
            Verdict::NotMeasured => "",
        };
        let why = explained::of(report, &judged, &known);
        let (what, bar, found) = (judged.what, judged.bar, judged.found);
        writeln!(text, "| {what} | {bar} | {found} | {verdict} | {why} |")?;
    }
    writeln!(text)
}

/// A line for each path, a column for each side.
fn table(text: &mut String, report: &Report, measure: Measure, paths: &[&str]) -> std::fmt::Result {
    let sides: Vec<SideName> = SideName::ALL
        .into_iter()
        .filter(|side| {
            report
                .rows
                .iter()
                .any(|row| (row.measure, row.side) == (measure, *side))
        })
        .collect();
    write!(text, "| Path | Unit |")?;
    for side in &sides {
        write!(text, " {side} |")?;
    }
    writeln!(text, "\n|---|---|{}", "---|".repeat(sides.len()))?;
    for path in paths {
        let rows = sides.iter().map(|side| report.row(measure, path, *side));
        let rows: Vec<_> = rows.collect();
        let unit = rows
            .iter()
            .flatten()
            .next()
            .map_or("", |row| row.unit.name());
        write!(text, "| {path} | {unit} |")?;
        for row in rows {
            write!(text, " {} |", row.map_or_else(|| "–".into(), figure))?;
        }
        writeln!(text)?;
    }
    writeln!(text)
}

/// Fewer rounds than a report should have.
const ENOUGH_ROUNDS: usize = 7;

/// The median with its spread, and the latency of single requests if there is one; of how many rounds, where they are few.
fn figure(row: &Row) -> String {
    let mut text = format!(
        "**{}** ({}–{})",
        number(row.median),
        number(row.min),
        number(row.max)
    );
    if let (Some(p50), Some(p99)) = (row.p50_us, row.p99_us) {
        // Writing to a String cannot fail.
        write!(text, "; p50 {} p99 {} µs", number(p50), number(p99)).unwrap_or_default();
    }
    if row.rounds < ENOUGH_ROUNDS {
        write!(text, "; of {} rounds", row.rounds).unwrap_or_default();
    }
    text
}

/// Three digits that mean something.
pub(crate) fn number(value: f64) -> String {
    match value {
        0.0 => "0".to_owned(),
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

fn ratios(text: &mut String, report: &Report, measure: Measure) -> std::fmt::Result {
    let mut ratios = report
        .ratios
        .iter()
        .filter(|ratio| ratio.measure == measure)
        .peekable();
    if ratios.peek().is_none() {
        return Ok(());
    }
    writeln!(
        text,
        "Ours against each; more is better. In brackets where the median of very many rounds would be, 99 times of 100.\n\n\
         | Path | over host | over bridge | over ptp | least and greatest of the rounds |\n|---|---|---|---|---|"
    )?;
    for ratio in ratios {
        write!(text, "| {} |", ratio.path)?;
        for (side, found) in ratio.named() {
            match (found, ratio.sure.get(&side)) {
                (Some(found), Some([low, high])) => {
                    write!(text, " {found:.3} ({low:.3}–{high:.3}) |")?;
                }
                (Some(found), None) => write!(text, " {found:.3} |")?,
                (None, _) => write!(text, " – |")?,
            }
        }
        let mut named = ratio.named().into_iter();
        let first = named.find(|(_, found)| found.is_some());
        let over = first.map_or("nobody", |(side, _)| side.name());
        writeln!(text, " over {over}: {:.3}–{:.3} |", ratio.low, ratio.high)?;
    }
    writeln!(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Failure, Ratio};

    #[test]
    fn what_failed_is_said_with_its_command_and_no_figure_stands_for_it() {
        let mut found = Report::default();
        found.machine.failures.push(Failure {
            side: Some(SideName::Bridge),
            what: "set-up".into(),
            error: "iptables -t nat in node1: exit status: 1\nno | such chain".into(),
        });
        let text = report(&found, &[]);
        assert!(text.contains(
            "| set-up | bridge | iptables -t nat in node1: exit status: 1<br>no \\| such chain |"
        ));
        assert!(!text.contains("## TCP"), "{text}");
    }

    #[test]
    fn every_ratio_has_its_own_spread_and_the_rounds_extremes_say_whose_they_are() {
        let ratio = Ratio {
            measure: Measure::Add,
            path: "serial".into(),
            ours_over_host: None,
            ours_over_bridge: Some(5.0),
            ours_over_ptp: Some(4.0),
            low: 3.0,
            high: 7.0,
            sure: [(SideName::Bridge, [4.5, 5.5]), (SideName::Ptp, [3.9, 4.1])].into(),
        };
        let found = Report {
            ratios: vec![ratio],
            ..Report::default()
        };
        let mut text = String::new();
        ratios(&mut text, &found, Measure::Add).unwrap();
        let line =
            "| serial | – | 5.000 (4.500–5.500) | 4.000 (3.900–4.100) | over bridge: 3.000–7.000 |";
        assert!(text.contains(line), "{text}");
    }

    #[test]
    fn a_figure_of_few_rounds_says_so() {
        let of = |rounds| {
            figure(&Row {
                measure: Measure::Add,
                path: "serial".into(),
                side: SideName::Ours,
                unit: crate::names::Unit::Milliseconds,
                median: 5.0,
                p50_us: None,
                p99_us: None,
                min: 4.0,
                max: 6.0,
                rounds,
            })
        };
        assert_eq!(of(3), "**5.00** (4.00–6.00); of 3 rounds");
        assert_eq!(of(7), "**5.00** (4.00–6.00)");
    }

    #[test]
    fn figures_have_three_digits() {
        assert_eq!(
            [0.973, 9.87, 12.345, 1234.5].map(number),
            ["0.97", "9.87", "12.3", "1234"]
        );
    }
}
