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
    use crate::names::{DROP, FLOOD, MAKING, Path, Unit};
    use crate::report::bars::judge;
    use crate::report::{Costs, Ratio, Row};
    use serde_json::Value;

    fn missed() -> Judged {
        Judged {
            what: "tcp_crr, pod→VNet, ours over host".into(),
            bar: "≥ 0.96".into(),
            found: "0.940".into(),
            verdict: Verdict::Missed,
        }
    }

    fn shown_by(shown_by: &Value) -> Explained {
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

    /// What a list says of bars that nobody judges, and of figures that no run has.
    fn nonsense(text: &str) -> Vec<String> {
        let list: Vec<Explained> = serde_json::from_str(text).unwrap();
        let bars = judge(&Report::default());
        let budget: Value = serde_json::from_str(include_str!("../../budget.json")).unwrap();
        let mut found = Vec::new();
        for explained in &list {
            if !bars.iter().any(|bar| bar.what == explained.what) {
                found.push(format!("no bar: {}", explained.what));
            }
            let shown_by = &explained.shown_by;
            let known = match shown_by {
                Shown::Row { measure, path, .. } | Shown::Ratio { measure, path, .. } => {
                    is_path(*measure, path)
                }
                Shown::Cost { program, verdict } => budget["ratios"][program][verdict].is_number(),
            };
            if !known {
                found.push(format!("no figure: {}", shown_by.name()));
            }
        }
        found
    }

    /// Whether a measure may have such a path: one of those that are known, alone or before what is measured there.
    fn is_path(measure: Measure, path: &str) -> bool {
        let words = |words: &[&str]| words.iter().map(ToString::to_string).collect();
        let known: Vec<String> = if measure.grows() {
            measure.points().iter().map(u32::to_string).collect()
        } else if measure == Measure::XdpDrop {
            words(&[FLOOD, MAKING, DROP])
        } else if [Measure::Add, Measure::Del].contains(&measure) {
            words(&["serial", "32 at once", "250 at once"])
        } else {
            words(&Path::ALL.map(Path::name))
        };
        let mut rest = known.iter().filter_map(|known| path.strip_prefix(known));
        rest.any(|rest| rest.is_empty() || rest.starts_with(", "))
    }

    #[test]
    fn the_file_explains_bars_that_there_are_by_figures_that_there_are() {
        assert_eq!(
            nonsense(include_str!("../../explained.json")),
            Vec::<String>::new()
        );
    }

    #[test]
    fn a_bar_that_nobody_judges_and_a_figure_that_no_run_has_are_told() {
        let of = |what: &str, shown_by: &Value| {
            let explained =
                serde_json::json!([{"what": what, "because": "x", "shown_by": shown_by}]);
            nonsense(&explained.to_string())
        };
        let row = |measure: &str, path: &str| serde_json::json!({"row": {"measure": measure, "path": path, "side": "host"}});
        let cost = |verdict: &str| serde_json::json!({"cost": {"program": "from_pod", "verdict": verdict}});
        let fine = row("tcp_crr", "pod↔pod");
        for bar in [
            "tcp_crr, pod→VNet, ours over host",
            "growth_add, ours",
            "binary azure-vnet, static",
            "time of from_pod, local",
        ] {
            assert_eq!(of(bar, &fine), Vec::<String>::new());
        }
        let wrong = "tcp_crr, pod→VNet, ours over hosts";
        assert_eq!(of(wrong, &fine), [format!("no bar: {wrong}")]);
        let bar = "tcp_crr, pod→VNet, ours over host";
        for shown_by in [
            cost("local"),
            row("growth_pods", "250"),
            row("tcp_rr", "pod→VNet, p99"),
            row("add", "serial, step IPAM"),
            row("xdp_drop", MAKING),
        ] {
            assert_eq!(of(bar, &shown_by), Vec::<String>::new(), "{shown_by}");
        }
        for shown_by in [
            cost("nowhere"),
            row("growth_pods", "251"),
            row("tcp_rr", "pod→Net"),
            row("add", "33 at once"),
            row("xdp_drop", "pod→VNet"),
        ] {
            let told = of(bar, &shown_by);
            assert!(told[0].starts_with("no figure: "), "{told:?} {shown_by}");
        }
    }

    #[test]
    #[should_panic(expected = "unknown variant `tcp_cr`")]
    fn a_measure_that_there_is_not_cannot_be_read() {
        let shown_by = r#"{"row": {"measure": "tcp_cr", "path": "pod↔pod", "side": "host"}}"#;
        nonsense(&format!(
            r#"[{{"what": "x", "because": "x", "shown_by": {shown_by}}}]"#
        ));
    }
}
