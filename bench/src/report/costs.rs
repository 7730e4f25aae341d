//! What each verdict of the programs costs alone. The agreement test measures it (bench/budget.json), and hands it over as a file.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::bars::{Judged, Verdict};

/// The bars: program, verdict, nanoseconds beyond the program that does nothing.
const MOST: [(&str, &str, f64); 5] = [
    ("from_pod", "local", 100.0),
    ("from_pod", "VNet", 150.0),
    ("from_pod", "SNAT, established", 220.0),
    // The same, the other way.
    ("from_wire", "VNet to pod", 150.0),
    ("from_wire", "SNAT, answer", 220.0),
];

/// By `BPF_PROG_TEST_RUN`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Costs {
    /// What a program that does nothing takes: the clock's own time.
    nothing_ns: f64,
    /// That the verifier walks through, by program.
    instructions: BTreeMap<String, u32>,
    /// Multiples of the program that does nothing, by program and verdict.
    ratios: BTreeMap<String, BTreeMap<String, f64>>,
}

impl Costs {
    pub(crate) fn read(file: &Path) -> Result<Self> {
        let text = std::fs::read(file).with_context(|| format!("read {}", file.display()))?;
        serde_json::from_slice(&text)
            .with_context(|| format!("{} has no costs in it", file.display()))
    }

    pub(super) fn own(&self, program: &str, verdict: &str) -> Option<f64> {
        let ratio = self.ratios.get(program)?.get(verdict)?;
        Some((ratio - 1.0) * self.nothing_ns)
    }

    /// The table.
    pub(super) fn write(&self, text: &mut String) -> std::fmt::Result {
        writeln!(
            text,
            "## What a verdict costs alone\n\nBy `BPF_PROG_TEST_RUN`, beyond a program that does nothing ({:.0} ns); \
             instructions are those that the verifier walks through.\n\n| Program | Instructions | Verdict | ns |\n|---|---|---|---|",
            self.nothing_ns
        )?;
        for (program, verdicts) in &self.ratios {
            let count = self.instructions.get(program);
            let mut count = count.map_or_else(String::new, u32::to_string);
            for verdict in verdicts.keys() {
                let own = self.own(program, verdict).unwrap_or_default();
                writeln!(text, "| {program} | {count} | {verdict} | {own:.0} |")?;
                count.clear();
            }
        }
        writeln!(text)
    }
}

/// The bars of docs/performance.md.
pub(super) fn judge(costs: Option<&Costs>) -> Vec<Judged> {
    let judged = |(program, verdict, most): (&str, &str, f64)| {
        let what = format!("time of {program}, {verdict}");
        let bar = format!("≤ {most} ns");
        let Some(own) = costs.and_then(|costs| costs.own(program, verdict)) else {
            return Judged::not_measured(what, bar);
        };
        Judged {
            what,
            bar,
            found: format!("{own:.0} ns"),
            verdict: Verdict::of(own <= most, true),
        }
    };
    MOST.map(judged).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_is_judged_by_what_it_needs_beyond_nothing() {
        let of = |verdict: &str, ratio| (verdict.to_owned(), ratio);
        let verdicts = BTreeMap::from([of("local", 2.0), of("VNet", 4.0)]);
        let costs = Costs {
            nothing_ns: 80.0,
            instructions: BTreeMap::from([("from_pod".into(), 1234)]),
            ratios: BTreeMap::from([("from_pod".into(), verdicts)]),
        };
        let found = judge(Some(&costs));
        let found: Vec<_> = found
            .iter()
            .map(|one| (one.found.as_str(), one.verdict))
            .collect();
        assert_eq!(
            found,
            [
                ("80 ns", Verdict::Met),
                ("240 ns", Verdict::Missed),
                ("not measured", Verdict::NotMeasured),
                ("not measured", Verdict::NotMeasured),
                ("not measured", Verdict::NotMeasured)
            ]
        );
        let mut text = String::new();
        costs.write(&mut text).unwrap();
        assert!(
            text.contains("| from_pod | 1234 | VNet | 240 |\n| from_pod |  | local | 80 |\n"),
            "{text}"
        );
    }

    #[test]
    fn the_budget_itself_has_the_form() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("budget.json");
        let budget = Costs::read(&file).unwrap();
        assert!(
            judge(Some(&budget))
                .iter()
                .all(|one| one.verdict != Verdict::NotMeasured)
        );
    }
}
