//! What must be reached, and was it?

use super::Report;
use crate::names::{Measure, Path, SideName};
use crate::series::CPU;

/// What a figure must reach.
#[derive(Clone, Copy, Debug)]
struct Bar {
    measure: Measure,
    /// `None`: all of them.
    path: Option<&'static str>,
    over: SideName,
    least: f64,
}

const INTERNET: &str = Path::Internet.name();

/// In the order of the table in docs/performance.md. The first bar that fits path and side counts.
const BARS: [Bar; 9] = [
    bar(Measure::TcpStream, None, SideName::Host, 0.98),
    bar(Measure::TcpRr, None, SideName::Host, 0.95),
    bar(Measure::TcpCrr, Some(INTERNET), SideName::Host, 0.94),
    bar(Measure::TcpCrr, None, SideName::Host, 0.96),
    bar(Measure::TcpCrr, None, SideName::Bridge, 1.25),
    bar(Measure::UdpPps, None, SideName::Host, 0.80),
    bar(Measure::UdpPps, None, SideName::Bridge, 1.2),
    bar(Measure::Add, Some("serial"), SideName::Bridge, 3.0),
    bar(Measure::Del, Some("serial"), SideName::Bridge, 3.0),
];
/// How much better than iptables the guard drops.
const GUARD: Bar = bar(Measure::XdpDrop, None, SideName::Bridge, 2.0);
/// How much worse the largest number of something may be than the smallest, for ours.
const GROWTH: f64 = 1.1;
const GROWTH_OF_ADD: f64 = 1.2;

const fn bar(measure: Measure, path: Option<&'static str>, over: SideName, least: f64) -> Bar {
    Bar {
        measure,
        path,
        over,
        least,
    }
}

/// A bar beside what was found.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Judged {
    pub(super) what: String,
    pub(super) bar: String,
    pub(super) found: String,
    /// `None`: not measured.
    pub(super) met: Option<bool>,
}

/// Every bar, for every path that was measured; one line for what was not measured at all.
pub(super) fn judge(report: &Report) -> Vec<Judged> {
    let ratios = BARS.iter().chain([&GUARD]).enumerate();
    let ratios = ratios.flat_map(|(place, bar)| of_bar(report, place, bar));
    let growth = Measure::GROWTH
        .into_iter()
        .map(|measure| growth(report, measure));
    let sizes = report.machine.sizes.iter().filter_map(|size| {
        let limit = size.limit?;
        let mebi = |bytes: u64| format!("{:.1} MiB", bytes_as_mebi(bytes));
        Some(Judged {
            what: size.what.clone(),
            bar: format!("≤ {}", mebi(limit)),
            found: mebi(size.bytes),
            met: Some(size.bytes <= limit),
        })
    });
    ratios.chain(growth).chain(sizes).collect()
}

#[expect(
    clippy::cast_precision_loss,
    reason = "no size of ours has 52 bits, and one digit is shown"
)]
pub(super) fn bytes_as_mebi(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn of_bar(report: &Report, place: usize, bar: &Bar) -> Vec<Judged> {
    let stricter_first = |path: &str| {
        let earlier = BARS.iter().take(place);
        !earlier.into_iter().any(|other| {
            (other.measure, other.over) == (bar.measure, bar.over)
                && other.path.is_some_and(|own| path.starts_with(own))
        })
    };
    let ratios = report.ratios.iter().filter(|ratio| {
        ratio.measure == bar.measure
            && bar.path.is_none_or(|own| ratio.path.starts_with(own))
            && stricter_first(&ratio.path)
    });
    let judged = |(path, found): (&str, Option<f64>)| Judged {
        what: format!("{}, {path}, ours over {}", bar.measure, bar.over),
        bar: format!("≥ {}", bar.least),
        found: found.map_or_else(|| "not measured".into(), |found| format!("{found:.3}")),
        met: found.map(|found| found >= bar.least),
    };
    let found: Vec<_> = ratios
        .map(|ratio| {
            let of_side = ratio
                .named()
                .into_iter()
                .find(|(side, _)| *side == bar.over);
            judged((&ratio.path, of_side.and_then(|(_, found)| found)))
        })
        .collect();
    if found.is_empty() {
        vec![judged((bar.path.unwrap_or("every path"), None))]
    } else {
        found
    }
}

/// The last point against the first one.
fn growth(report: &Report, measure: Measure) -> Judged {
    let most = if measure == Measure::GrowthAdd {
        GROWTH_OF_ADD
    } else {
        GROWTH
    };
    let points: Vec<_> = report
        .paths(measure)
        .into_iter()
        .filter(|path| !path.ends_with(CPU))
        .filter_map(|path| {
            let row = report.row(measure, path, SideName::Ours)?;
            let cost = if row.unit.is_time() {
                row.median
            } else {
                1.0 / row.median
            };
            Some((path, cost))
        })
        .collect();
    let factor = match (points.first(), points.last()) {
        (Some((from, first)), Some((to, last))) if from != to => Some((from, to, last / first)),
        _ => None,
    };
    Judged {
        what: format!("{measure}, ours"),
        bar: format!("≤ {most} ×"),
        found: factor.map_or_else(
            || "not measured".into(),
            |(from, to, factor)| format!("{factor:.2} × from {from} to {to}"),
        ),
        met: factor.map(|(.., factor)| factor <= most),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::Unit;
    use crate::report::{Ratio, Row};

    fn ratio(measure: Measure, path: &str, over_host: f64) -> Ratio {
        Ratio {
            measure,
            path: path.into(),
            ours_over_host: Some(over_host),
            ours_over_bridge: None,
            ours_over_ptp: None,
            low: 0.0,
            high: 2.0,
        }
    }

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

    fn line<'a>(judged: &'a [Judged], what: &str) -> &'a Judged {
        judged.iter().find(|judged| judged.what == what).unwrap()
    }

    #[test]
    fn the_way_to_the_internet_has_a_bar_of_its_own() {
        let report = Report {
            ratios: vec![
                ratio(Measure::TcpCrr, "pod→VNet", 0.95),
                ratio(Measure::TcpCrr, "pod→Internet", 0.95),
            ],
            ..Report::default()
        };
        let judged = judge(&report);
        let vnet = line(&judged, "tcp_crr, pod→VNet, ours over host");
        let internet = line(&judged, "tcp_crr, pod→Internet, ours over host");
        assert_eq!((vnet.met, internet.met), (Some(false), Some(true)));
        assert_eq!(internet.bar, "≥ 0.94");
        let twice = judged.iter().filter(|one| one.what == internet.what);
        assert_eq!(twice.count(), 1);
    }

    #[test]
    fn what_was_not_measured_is_neither_met_nor_missed() {
        let judged = judge(&Report::default());
        assert!(
            judged
                .iter()
                .all(|one| one.met.is_none() && one.found == "not measured")
        );
    }

    #[test]
    fn growth_is_the_last_point_against_the_first() {
        let report = Report {
            rows: vec![
                row("10", 1000.0),
                row("10, CPU each", 90.0),
                row("100", 1.0),
                row("250", 800.0),
                row("250, CPU each", 96.0),
            ],
            ..Report::default()
        };
        let judged = judge(&report);
        let pods = line(&judged, "growth_pods, ours");
        assert_eq!(pods.found, "1.25 × from 10 to 250");
        assert_eq!(pods.met, Some(false));
    }
}
