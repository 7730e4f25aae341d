//! Has anything become worse since another run?

use anyhow::{Result, ensure};

use super::bars::bytes_as_mebi;
use super::changed::{Changed, Comparison, SLACK};
use super::{Ratio, Report, Row, Size};
use crate::names::{DROP, SLOWEST, SideName, Unit};
use crate::series::CPU;

/// What may be lost before it is told where nobody took turns with us, so that the machine is in the figure.
const ALONE: f64 = 0.67;
/// Rounds that say something of how much they differ.
const FEW: usize = 5;

/// Whether rounds of a quick run are too short for what stands on the path, so that two runs of one commit differ by more than a tenth
/// and nothing can be said of it: the slowest hundredth of 40 ms is a few requests; CPU time comes in ticks; and the drop alone is a
/// difference of two times, with the noise of both. Whatever is slower in the programs is in the figures that these come from.
fn is_too_short_for(path: &str) -> bool {
    path == DROP || path.ends_with(SLOWEST) || path.ends_with(CPU)
}

/// Every ratio that fell by more than a tenth and by more than its rounds differ among themselves. Where there is no ratio,
/// because no peer could be measured then or now, our own figure counts, if it is from a machine like this one. What only one of
/// the reports has is not compared, nor, of two quick runs, what their rounds are too short for.
pub(crate) fn compare(before: &Report, now: &Report) -> Result<Comparison> {
    ensure!(
        before.machine.quick == now.machine.quick,
        "one of the reports is of a quick run, the other one of a full run: their rounds do not compare"
    );
    let mut found = Comparison::default();
    let is_judged = |path: &str| !(now.machine.quick && is_too_short_for(path));
    let pairs = |ratio: &Ratio| {
        ratio
            .named()
            .into_iter()
            .filter(|(_, value)| value.is_some())
    };
    for old in before.ratios.iter().filter(|old| is_judged(&old.path)) {
        let same = |new: &&Ratio| new.measure == old.measure && new.path == old.path;
        let new = now.ratios.iter().find(same);
        for (side, _) in pairs(old) {
            let Some((figure, sure)) = new.and_then(|new| over(side, old, new)) else {
                let (measure, path) = (old.measure, &old.path);
                found
                    .gone
                    .push(format!("{measure}, {path}, ours over {side}"));
                continue;
            };
            found.look_at(figure, sure, SLACK);
        }
    }
    found.gone.extend(growth_gone(before, now));
    let has_ratio = |row: &Row| {
        let mut ratios = before.ratios.iter().chain(&now.ratios);
        ratios.any(|ratio| ratio.measure == row.measure && ratio.path == row.path)
    };
    let ours = now.rows.iter().filter(|row| row.side == SideName::Ours);
    let ours = ours.filter(|row| !row.is_detail() && is_judged(&row.path));
    for row in ours.filter(|row| !has_ratio(row)) {
        // What we cost more beside more took turns with ourselves: the machine is not in it.
        let is_growth = row.unit == Unit::Times;
        if !is_growth && !now.machine.is_like(&before.machine) {
            continue;
        }
        if let Some((figure, sure)) = own(before, row) {
            found.look_at(figure, sure, if is_growth { SLACK } else { ALONE });
        }
    }
    found.lacking = lacking(before, now);
    for size in &now.machine.sizes {
        if let Some(figure) = larger(before, size) {
            found.look_at(figure, true, SLACK);
        }
    }
    Ok(found)
}

/// What we cost more beside more, before and not now: nobody else has such a figure, so that no ratio is missed.
fn growth_gone(before: &Report, now: &Report) -> Vec<String> {
    let old = before.rows.iter().filter(|row| row.unit == Unit::Times);
    let gone = old.filter(|old| now.row(old.measure, &old.path, old.side).is_none());
    gone.map(|old| format!("{}, {}, {}", old.measure, old.path, old.side))
        .collect()
}

/// What both say that they could not measure, each once: it is in no list of what is gone.
fn lacking(before: &Report, now: &Report) -> Vec<String> {
    let lacks = |report: &Report, what: &str| {
        let mut failures = report.machine.failures.iter();
        failures.any(|failure| failure.what == what)
    };
    let both = now.machine.failures.iter().map(|failure| &failure.what);
    let mut both: Vec<_> = both.filter(|what| lacks(before, what)).cloned().collect();
    both.sort();
    both.dedup();
    both
}

/// A ratio that both have, and whether its rounds, then and now, have nothing in common. Nothing of too few rounds.
fn over(side: SideName, before: &Ratio, now: &Ratio) -> Option<(Changed, bool)> {
    let of = |ratio: &Ratio| {
        let (_, found) = ratio.named().into_iter().find(|(one, _)| *one == side)?;
        Some((found?, *ratio.sure.get(&side)?))
    };
    let ((before, [lowest, _]), (found, [_, highest])) = (of(before)?, of(now)?);
    let figure = Changed {
        measure: now.measure.to_string(),
        path: now.path.clone(),
        of: format!("ours over {side}"),
        before,
        now: found,
        left: found / before,
    };
    Some((figure, highest < lowest))
}

/// Our own figure, without anybody to compare with, and whether all rounds are worse than all were.
fn own(before: &Report, row: &Row) -> Option<(Changed, bool)> {
    let old = before.row(row.measure, &row.path, SideName::Ours)?;
    if old.unit != row.unit || old.rounds.min(row.rounds) < FEW {
        return None;
    }
    let (left, sure) = if row.unit.less_is_better() {
        (old.median / row.median, row.min > old.max)
    } else {
        (row.median / old.median, row.max < old.min)
    };
    let figure = Changed {
        measure: row.measure.to_string(),
        path: row.path.clone(),
        of: format!("ours, {}", row.unit.name()),
        before: old.median,
        now: row.median,
        left,
    };
    Some((figure, sure))
}

fn larger(before: &Report, size: &Size) -> Option<Changed> {
    let mut sizes = before.machine.sizes.iter();
    let old = sizes.find(|old| old.what == size.what)?;
    let (before, now) = (bytes_as_mebi(old.bytes), bytes_as_mebi(size.bytes));
    Some(Changed {
        measure: "size".into(),
        path: size.what.clone(),
        of: "MiB".into(),
        before,
        now,
        left: before / now,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::{Measure, grown};
    use crate::report::Failure;

    fn ratio(over_host: Option<f64>, over_bridge: Option<f64>) -> Ratio {
        Ratio {
            measure: Measure::TcpCrr,
            path: "pod→VNet".into(),
            ours_over_host: over_host,
            ours_over_bridge: over_bridge,
            ours_over_ptp: None,
            low: 0.0,
            high: 9.0,
            sure: [(SideName::Host, over_host), (SideName::Bridge, over_bridge)]
                .into_iter()
                .filter_map(|(side, found)| Some((side, [found? * 0.97, found? * 1.03])))
                .collect(),
        }
    }

    fn worse(before: &Report, now: &Report) -> Vec<Changed> {
        compare(before, now).unwrap().worse
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
            min: median * 0.8,
            max: median * 1.2,
            rounds: 7,
        });
        report
    }

    #[test]
    fn what_lost_more_than_a_tenth_is_told_by_name() {
        let worse = worse(
            &report(vec![ratio(Some(0.98), Some(1.3))]),
            &report(vec![ratio(Some(0.97), Some(1.1))]),
        );
        let told: Vec<_> = worse.iter().map(ToString::to_string).collect();
        let line = "tcp_crr, pod→VNet, ours over bridge: 1.300 before, 1.100 now, 85 % of it left";
        assert_eq!(told, [line]);
    }

    #[test]
    fn a_tenth_is_noise_and_better_is_no_news() {
        let before = report(vec![ratio(Some(1.0), Some(1.3))]);
        let now = report(vec![ratio(Some(0.91), Some(2.0))]);
        assert_eq!(worse(&before, &now), []);
    }

    #[test]
    fn alike_is_what_differs_by_a_tenth_at_most_and_what_differs_more_without_being_worse_is_apart()
    {
        let before = report(vec![ratio(Some(1.0), None)]);
        let counts = |now: f64| {
            let found = compare(&before, &report(vec![ratio(Some(now), None)])).unwrap();
            (found.alike, found.worse.len(), found.apart.len())
        };
        assert_eq!(counts(0.91), (1, 0, 0));
        assert_eq!(counts(1.1), (1, 0, 0));
        assert_eq!(counts(0.89), (0, 1, 0));
        assert_eq!(counts(1.15), (0, 0, 1));
    }

    #[test]
    fn what_is_gone_is_said_and_what_is_compared_is_counted() {
        let before = report(vec![ratio(Some(1.0), Some(1.3))]);
        let found = compare(&before, &report(vec![ratio(None, Some(1.2))])).unwrap();
        assert_eq!((found.compared, found.alike), (1, 1));
        assert_eq!(found.gone, ["tcp_crr, pod→VNet, ours over host"]);
        let nothing = compare(&report(Vec::new()), &before).unwrap();
        assert_eq!(nothing, Comparison::default());
    }

    #[test]
    fn what_neither_of_them_has_is_said() {
        let of = |what: &[&str]| {
            let mut report = report(Vec::new());
            report
                .machine
                .failures
                .extend(what.iter().map(|what| Failure {
                    side: None,
                    what: (*what).into(),
                    error: "left out".into(),
                }));
            report
        };
        let (before, now) = (of(&["a flood", "pods"]), of(&["pods", "pods", "serial"]));
        assert_eq!(compare(&before, &now).unwrap().lacking, ["pods"]);
    }

    #[test]
    fn what_its_own_rounds_differ_by_is_noise() {
        let before = report(vec![ratio(Some(1.0), None)]);
        let mut now = report(vec![ratio(Some(0.7), None)]);
        assert_eq!(worse(&before, &now).len(), 1);
        now.ratios[0].sure.insert(SideName::Host, [0.4, 0.98]);
        assert_eq!(worse(&before, &now), []);
        now.ratios[0].sure.clear();
        let found = compare(&before, &now).unwrap();
        assert_eq!(found.compared, 0, "too few rounds to know");
    }

    #[test]
    fn what_grows_more_than_it_did_is_told_on_any_machine() {
        let of = |times| {
            let mut report = alone(times, Unit::Times);
            report.rows[0].measure = Measure::GrowthPods;
            (report.rows[0].min, report.rows[0].max) = (times * 0.98, times * 1.02);
            report
        };
        let mut elsewhere = of(1.4);
        elsewhere.machine.cpu = "another".into();
        let told = worse(&of(1.0), &elsewhere);
        assert_eq!(told.len(), 1);
        assert_eq!(worse(&of(1.0), &of(1.05)), []);
        assert_eq!(worse(&of(1.4), &of(1.0)), []);
    }

    #[test]
    fn growth_that_was_measured_before_and_is_not_now_is_gone() {
        let mut before = alone(1.0, Unit::Times);
        before.rows[0].measure = Measure::GrowthPods;
        before.rows[0].path = grown(250);
        before.rows.extend(alone(10.0, Unit::Milliseconds).rows);
        let told = compare(&before, &Report::default()).unwrap();
        assert_eq!(told.gone, ["growth_pods, 250, × the first point, ours"]);
        assert_eq!(compare(&before, &before).unwrap().gone, [""; 0]);
    }

    #[test]
    fn a_quick_run_is_not_compared_with_a_full_one() {
        let mut now = report(Vec::new());
        now.machine.quick = true;
        compare(&report(Vec::new()), &now).unwrap_err();
    }

    #[test]
    fn of_two_quick_runs_what_their_rounds_are_too_short_for_is_not_judged() {
        let too_short = [
            (Measure::TcpRr, "pod→VNet, p99"),
            (Measure::TcpStream, "pod→VNet, 1 stream, CPU each"),
            (Measure::XdpDrop, DROP),
        ];
        let of = |(measure, path): (Measure, &str), times: f64, quick| {
            let mut report = alone(10.0 / times, Unit::PerSecond);
            report.rows[0].measure = measure;
            report.rows[0].path = path.into();
            report.rows.extend(alone(10.0, Unit::PerSecond).rows);
            report.ratios = vec![Ratio {
                measure,
                path: path.into(),
                ..ratio(Some(1.0 / times), None)
            }];
            report.machine.quick = quick;
            report
        };
        for what in too_short {
            let told = |quick| compare(&of(what, 1.0, quick), &of(what, 4.0, quick)).unwrap();
            assert_eq!(told(false).worse.len(), 1, "{what:?}");
            let quick = told(true);
            assert_eq!((quick.worse, quick.apart), (vec![], vec![]), "{what:?}");
            let mut without = of(what, 4.0, true);
            without.ratios.clear();
            let gone = compare(&of(what, 1.0, true), &without).unwrap();
            assert_eq!((gone.worse, gone.gone), (vec![], vec![]), "{what:?}");
        }
        let rate = (Measure::TcpRr, "pod→VNet, p50");
        let quick = compare(&of(rate, 1.0, true), &of(rate, 4.0, true)).unwrap();
        assert_eq!(quick.worse.len(), 1);
    }

    #[test]
    fn a_size_that_grew_is_told() {
        let of = |bytes| {
            let mut report = Report::default();
            report.machine.sizes.push(Size {
                what: "binary azure-vnet, static".into(),
                bytes,
                limit: None,
            });
            report
        };
        assert_eq!(worse(&of(4 << 20), &of(5 << 20)).len(), 1);
        assert_eq!(worse(&of(5 << 20), &of(4 << 20)), []);
    }

    #[test]
    fn rounds_that_overlap_or_are_too_few_say_nothing_of_us_alone() {
        let (before, mut now) = (
            alone(10.0, Unit::Milliseconds),
            alone(30.0, Unit::Milliseconds),
        );
        assert_eq!(worse(&before, &now).len(), 1);
        now.rows[0].rounds = 1;
        assert_eq!(worse(&before, &now), []);
        now.rows[0].rounds = 7;
        now.rows[0].min = 11.0;
        assert_eq!(worse(&before, &now), []);
    }

    #[test]
    fn without_peers_our_own_figure_counts_on_the_same_machine_only() {
        let (before, now) = (
            alone(10.0, Unit::Milliseconds),
            alone(60.0, Unit::Milliseconds),
        );
        assert_eq!(worse(&before, &now).len(), 1);
        assert_eq!(worse(&now, &before), [], "less time is better");
        let mut elsewhere = now;
        elsewhere.machine.cpu = "another".into();
        assert_eq!(worse(&before, &elsewhere), []);
        let (before, now) = (alone(60.0, Unit::PerSecond), alone(10.0, Unit::PerSecond));
        assert_eq!(worse(&before, &now).len(), 1);
    }
}
