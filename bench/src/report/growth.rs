//! Has ours become slower beside more of something?

use super::bars::{Judged, Verdict};
use super::{Report, Row};
use crate::names::{Measure, SideName, again};

/// How much worse the largest number of something may be than the smallest, for ours.
const MOST: f64 = 1.1;
const MOST_OF_ADD: f64 = 1.2;

/// The last point that was measured, against the first one that took turns with it.
pub(super) fn growth(report: &Report, measure: Measure) -> Judged {
    let most = if measure == Measure::GrowthAdd {
        MOST_OF_ADD
    } else {
        MOST
    };
    let (what, bar) = (format!("{measure}, ours"), format!("≤ {most} ×"));
    let points = measure.points().iter();
    let both = |point: &u32| {
        let last = report.row(measure, &point.to_string(), SideName::Ours)?;
        let first = report.row(measure, &again(*point), SideName::Ours)?;
        Some((*point, cost(last) / cost(first)))
    };
    let found = points.clone().skip(1).rev().find_map(both);
    let (Some((last, factor)), Some(first)) = (found, points.clone().next()) else {
        return Judged::not_measured(what, bar);
    };
    Judged {
        what,
        bar,
        found: format!("{factor:.2} × from {first} to {last}"),
        verdict: Verdict::of(factor <= most, measure.points().last() == Some(&last)),
    }
}

/// Less is better.
fn cost(row: &Row) -> f64 {
    if row.unit.is_time() {
        row.median
    } else {
        1.0 / row.median
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::Unit;

    fn row(path: &str, median: f64) -> Row {
        Row {
            measure: Measure::GrowthPods,
            path: path.into(),
            side: SideName::Ours,
            unit: Unit::PerSecond,
            median,
            p50_us: None,
            p99_us: None,
            min: 0.0,
            max: 0.0,
            rounds: 7,
        }
    }

    fn judged(rows: Vec<Row>) -> (String, Verdict) {
        let report = Report {
            rows,
            ..Report::default()
        };
        let judged = growth(&report, Measure::GrowthPods);
        (judged.found, judged.verdict)
    }

    #[test]
    fn growth_is_the_last_point_against_the_first_one_that_took_turns_with_it() {
        let rows = vec![
            // The machine was slower then.
            row("10", 500.0),
            row("10, CPU each", 90.0),
            row("100", 1.0),
            row("250", 800.0),
            row("250, CPU each", 96.0),
            row("250, first point again", 1000.0),
            row("250, first point again, CPU each", 90.0),
        ];
        let missed = ("1.25 × from 10 to 250".to_owned(), Verdict::Missed);
        assert_eq!(judged(rows), missed);
    }

    #[test]
    fn a_nearer_last_point_meets_the_bar_in_part_only() {
        let rows = |rate| {
            vec![
                row("10", 1000.0),
                row("50", rate),
                row("50, first point again", 1000.0),
            ]
        };
        let partly = ("1.00 × from 10 to 50".to_owned(), Verdict::Partly);
        assert_eq!(judged(rows(1000.0)), partly);
        assert_eq!(judged(rows(500.0)).1, Verdict::Missed);
    }

    #[test]
    fn points_that_did_not_take_turns_are_not_compared() {
        let rows = vec![row("10", 1000.0), row("250", 1000.0)];
        assert_eq!(judged(rows).1, Verdict::NotMeasured);
        // Nor is the first point with itself.
        let rows = vec![row("10", 10.0), row("10, first point again", 1000.0)];
        assert_eq!(judged(rows).1, Verdict::NotMeasured);
    }
}
