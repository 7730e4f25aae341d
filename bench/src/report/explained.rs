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
    /// The row that shows it.
    measure: Measure,
    path: String,
    side: SideName,
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
    let Explained {
        because,
        measure,
        path,
        side,
        ..
    } = explained;
    match report.row(*measure, path, *side) {
        Some(row) => {
            let (value, unit) = (number(row.median), row.unit.name());
            format!("{because} ({measure}, {path}, {side}: {value} {unit})")
        }
        None => format!("{because}? This run did not measure {measure}, {path}, {side}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::Unit;
    use crate::report::Row;

    fn missed() -> Judged {
        Judged {
            what: "tcp_crr, pod→VNet, ours over host".into(),
            bar: "≥ 0.96".into(),
            found: "0.940".into(),
            verdict: Verdict::Missed,
        }
    }

    fn veth() -> Explained {
        Explained {
            what: missed().what,
            because: "the cable alone costs it".into(),
            measure: Measure::TcpCrr,
            path: "pod↔pod".into(),
            side: SideName::Host,
        }
    }

    #[test]
    fn a_shortfall_is_explained_by_a_row_of_the_same_run() {
        let mut report = Report::default();
        let without = of(&report, &missed(), &[veth()]);
        assert!(without.ends_with("did not measure tcp_crr, pod↔pod, host"));
        report.rows.push(Row {
            measure: Measure::TcpCrr,
            path: "pod↔pod".into(),
            side: SideName::Host,
            unit: Unit::PerSecond,
            median: 9000.0,
            p50_us: None,
            p99_us: None,
            min: 0.0,
            max: 0.0,
            rounds: 7,
        });
        assert_eq!(
            of(&report, &missed(), &[veth()]),
            "the cable alone costs it (tcp_crr, pod↔pod, host: 9000 1/s)"
        );
    }

    #[test]
    fn what_is_met_needs_no_words_and_what_nobody_has_explained_says_so() {
        let met = Judged {
            verdict: Verdict::Met,
            ..missed()
        };
        assert_eq!(of(&Report::default(), &met, &[veth()]), "");
        let alone = of(&Report::default(), &missed(), &[]);
        assert_eq!(alone, "no measurement explains it yet");
    }

    #[test]
    fn the_file_can_be_read() {
        let text = include_str!("../../explained.json");
        serde_json::from_str::<Vec<Explained>>(text).unwrap();
    }
}
