//! Why a bar is missed: words that stay when a report is published anew (bench/explained.json), each with the figure of the same
//! run that shows it.

use serde::Deserialize;

use super::Report;
use super::bars::{Judged, Verdict};
use super::markdown::number;
use crate::names::{Measure, SideName};

/// One shortfall.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Explained {
    /// The bar, as the report names it.
    what: String,
    because: String,
    shown_by: Shown,
}

/// The figure that shows it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Shown {
    Row {
        measure: Measure,
        path: String,
        side: SideName,
    },
    Ratio {
        measure: Measure,
        path: String,
        over: SideName,
    },
    /// Of a program alone.
    Cost { program: String, verdict: String },
}

impl Shown {
    fn name(&self) -> String {
        match self {
            Self::Row {
                measure,
                path,
                side,
            } => format!("{measure}, {path}, {side}"),
            Self::Ratio {
                measure,
                path,
                over,
            } => format!("{measure}, {path}, ours over {over}"),
            Self::Cost { program, verdict } => format!("time of {program}, {verdict}"),
        }
    }

    /// As this run has found it.
    fn figure(&self, report: &Report) -> Option<String> {
        match self {
            Self::Row {
                measure,
                path,
                side,
            } => {
                let row = report.row(*measure, path, *side)?;
                Some(format!("{} {}", number(row.median), row.unit.name()))
            }
            Self::Ratio {
                measure,
                path,
                over,
            } => {
                let found = report.ratio(*measure, path, *over)?;
                Some(format!("{found:.3}"))
            }
            Self::Cost { program, verdict } => {
                let own = report.machine.costs.as_ref()?.own(program, verdict)?;
                Some(format!("{own:.0} ns"))
            }
        }
    }
}

/// All that are known. A file that cannot be read fails a test.
pub(super) fn known() -> Vec<Explained> {
    serde_json::from_str(include_str!("../../explained.json")).unwrap_or_default()
}

/// What stands behind a bar that was missed.
pub(super) fn of(report: &Report, judged: &Judged, known: &[Explained]) -> String {
    if judged.verdict != Verdict::Missed {
        return String::new();
    }
    let Some(explained) = known.iter().find(|one| one.what == judged.what) else {
        return "no measurement explains it yet".into();
    };
    let (because, name) = (&explained.because, explained.shown_by.name());
    match explained.shown_by.figure(report) {
        Some(figure) => format!("{because} ({name}: {figure})"),
        None => format!("{because}? This run did not measure {name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::{DROP, MAKING, Unit};
    use crate::report::{Costs, Ratio, Row};

    fn missed() -> Judged {
        Judged {
            what: "tcp_crr, pod→VNet, ours over host".into(),
            bar: "≥ 0.96".into(),
            found: "0.940".into(),
            verdict: Verdict::Missed,
        }
    }

    fn shown_by(shown_by: &serde_json::Value) -> Explained {
        let explained = serde_json::json!({
            "what": missed().what, "because": "the cable alone costs it", "shown_by": shown_by
        });
        serde_json::from_value(explained).unwrap()
    }

    fn row(measure: &str, path: &str) -> Explained {
        shown_by(&serde_json::json!({"row": {"measure": measure, "path": path, "side": "host"}}))
    }

    fn report(measure: Measure, path: &str) -> Report {
        let row = Row {
            measure,
            path: path.into(),
            side: SideName::Host,
            unit: Unit::PerSecond,
            median: 9000.0,
            p50_us: None,
            p99_us: None,
            min: 0.0,
            max: 0.0,
            rounds: 7,
        };
        Report {
            rows: vec![row],
            ..Report::default()
        }
    }

    #[test]
    fn a_shortfall_is_explained_by_a_row_of_the_same_run() {
        let veth = row("tcp_crr", "pod↔pod");
        let without = of(&Report::default(), &missed(), std::slice::from_ref(&veth));
        assert!(without.ends_with("did not measure tcp_crr, pod↔pod, host"));
        assert_eq!(
            of(&report(Measure::TcpCrr, "pod↔pod"), &missed(), &[veth]),
            "the cable alone costs it (tcp_crr, pod↔pod, host: 9000 1/s)"
        );
        let making = of(
            &report(Measure::XdpDrop, MAKING),
            &missed(),
            &[row("xdp_drop", MAKING)],
        );
        assert!(
            making.contains("dropped nowhere, host: 9000 1/s)"),
            "{making}"
        );
    }

    #[test]
    fn a_shortfall_is_explained_by_a_ratio_or_by_what_a_program_costs_alone() {
        let mut report = Report::default();
        report.ratios.push(Ratio {
            measure: Measure::XdpDrop,
            path: DROP.into(),
            ours_over_host: None,
            ours_over_bridge: None,
            ours_over_ptp: Some(1.25),
            low: 1.0,
            high: 2.0,
            sure: std::collections::BTreeMap::new(),
        });
        let alone = shown_by(
            &serde_json::json!({"ratio": {"measure": "xdp_drop", "path": DROP, "over": "ptp"}}),
        );
        let said = of(&report, &missed(), &[alone]);
        assert!(
            said.ends_with(&format!("(xdp_drop, {DROP}, ours over ptp: 1.250)")),
            "{said}"
        );
        let cost =
            shown_by(&serde_json::json!({"cost": {"program": "from_pod", "verdict": "local"}}));
        let without = of(&report, &missed(), std::slice::from_ref(&cost));
        assert!(
            without.ends_with("did not measure time of from_pod, local"),
            "{without}"
        );
        let costs = serde_json::json!({
            "nothing_ns": 80.0, "instructions": {}, "ratios": {"from_pod": {"local": 2.0}}
        });
        report.machine.costs = serde_json::from_value::<Costs>(costs).ok();
        let said = of(&report, &missed(), &[cost]);
        assert!(said.ends_with("(time of from_pod, local: 80 ns)"), "{said}");
    }

    #[test]
    fn what_is_met_needs_no_words_and_what_nobody_has_explained_says_so() {
        let met = Judged {
            verdict: Verdict::Met,
            ..missed()
        };
        let veth = row("tcp_crr", "pod↔pod");
        assert_eq!(of(&Report::default(), &met, &[veth]), "");
        let alone = of(&Report::default(), &missed(), &[]);
        assert_eq!(alone, "no measurement explains it yet");
    }

    #[test]
    fn the_file_can_be_read() {
        let text = include_str!("../../explained.json");
        serde_json::from_str::<Vec<Explained>>(text).unwrap();
    }
}
