//! Has ours become slower beside more of something?

use super::Report;
use super::bars::{Judged, Verdict};
use crate::names::{Measure, SideName, grown};

/// How much worse the largest number of something may be than the smallest, for ours.
const MOST: f64 = 1.1;
const MOST_OF_ADD: f64 = 1.2;

/// The last point that was measured: how much more it costs than the one that it is compared with, and that took turns with it, the
/// median of the rounds' own ratios.
pub(super) fn growth(report: &Report, measure: Measure) -> Judged {
    let most = if measure == Measure::GrowthAdd {
        MOST_OF_ADD
    } else {
        MOST
    };
    let (what, bar) = (format!("{measure}, ours"), format!("≤ {most} ×"));
    let (base, points) = (measure.base(), measure.points().iter());
    let taken = |point: &u32| {
        let row = report.row(measure, &grown(*point), SideName::Ours)?;
        Some((*point, row))
    };
    let later = points.filter(|point| **point > base);
    let Some((last, row)) = later.rev().find_map(taken) else {
        return Judged::not_measured(what, bar);
    };
    Judged {
        what,
        bar,
        found: format!(
            "{:.2} × ({:.2}–{:.2}) from {base} to {last}",
            row.median, row.min, row.max
        ),
        verdict: Verdict::of(row.median <= most, measure.points().last() == Some(&last)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::{Unit, again};
    use crate::report::Row;

    fn row(path: &str, unit: Unit, median: f64) -> Row {
        Row {
            measure: Measure::GrowthPods,
            path: path.into(),
            side: SideName::Ours,
            unit,
            median,
            p50_us: None,
            p99_us: None,
            min: median,
            max: median,
            rounds: 7,
        }
    }

    fn rate(path: &str, median: f64) -> Row {
        row(path, Unit::PerSecond, median)
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
    fn growth_is_the_median_of_the_rounds_own_ratios_at_the_last_point() {
        let rows = vec![
            rate("10", 500.0),
            row(&grown(50), Unit::Times, 3.0),
            // The medians of both would say 1.0.
            rate("250", 1000.0),
            rate(&again(250), 1000.0),
            row(&grown(250), Unit::Times, 1.25),
        ];
        let missed = (
            "1.25 × (1.25–1.25) from 10 to 250".to_owned(),
            Verdict::Missed,
        );
        assert_eq!(judged(rows), missed);
    }

    #[test]
    fn a_nearer_last_point_meets_the_bar_in_part_only() {
        let rows = |times| vec![rate("10", 1000.0), row(&grown(50), Unit::Times, times)];
        assert_eq!(judged(rows(1.0)).1, Verdict::Partly);
        assert_eq!(judged(rows(2.0)).1, Verdict::Missed);
    }

    #[test]
    fn add_beside_no_pods_is_measured_and_compared_with_nothing() {
        let of = |path: &str, unit, median| Row {
            measure: Measure::GrowthAdd,
            ..row(path, unit, median)
        };
        let mut report = Report {
            rows: vec![
                of("0", Unit::Milliseconds, 1.0),
                of("10", Unit::Milliseconds, 10.0),
                of(&grown(10), Unit::Times, 9.0),
                of("250", Unit::Milliseconds, 11.0),
            ],
            ..Report::default()
        };
        assert!(Measure::GrowthAdd.points().starts_with(&[0, 10]));
        let of_report = |report: &Report| growth(report, Measure::GrowthAdd);
        assert_eq!(of_report(&report).verdict, Verdict::NotMeasured);
        report.rows.push(of(&grown(250), Unit::Times, 1.1));
        let judged = of_report(&report);
        assert_eq!(judged.found, "1.10 × (1.10–1.10) from 10 to 250");
        assert_eq!(
            (judged.bar.as_str(), judged.verdict),
            ("≤ 1.2 ×", Verdict::Met)
        );
    }

    #[test]
    fn points_that_did_not_take_turns_are_not_compared() {
        let rows = vec![rate("10", 1000.0), rate("250", 1000.0)];
        assert_eq!(judged(rows).1, Verdict::NotMeasured);
        // Nor is the first point with itself.
        let rows = vec![rate("10", 10.0), row(&grown(10), Unit::Times, 1.0)];
        assert_eq!(judged(rows).1, Verdict::NotMeasured);
    }
}
