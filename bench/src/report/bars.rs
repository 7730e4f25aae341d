//! What must be reached, and was it?

use super::growth::growth;
use super::{LARGEST_LOADER, LARGEST_PLUGIN, Report, costs};
use crate::names::{FLOOD, HALF, Measure, Path, SLOWEST, STREAMS, SideName};
use Measure::{Add, Del, TcpCrr, TcpRr, TcpStream, UdpPps, XdpDrop};
use SideName::{Bridge, Host, Ptp};

/// What a figure must reach.
#[derive(Clone, Copy, Debug)]
struct Bar {
    measure: Measure,
    paths: &'static [&'static str],
    /// What follows the path's name, for the figures of the path that are judged.
    kinds: &'static [&'static str],
    over: SideName,
    least: f64,
}

const ALL: &[&str] = &[
    Path::ToVnet.name(),
    Path::FromVnet.name(),
    Path::Local.name(),
    Path::Internet.name(),
];
const INSIDE: &[&str] = &[
    Path::ToVnet.name(),
    Path::FromVnet.name(),
    Path::Local.name(),
];
const INTERNET: &[&str] = &[Path::Internet.name()];
const OUT: &[&str] = &[Path::ToVnet.name(), Path::Internet.name()];
const PLAIN: &[&str] = &[""];
const LATENCIES: &[&str] = &["", HALF, SLOWEST];
const CROWD: &str = "250 at once";
/// The middle one of those that come together, and until the last one of them is done.
const PODS: &[&str] = &[
    "serial",
    "32 at once, p50",
    "32 at once",
    "250 at once, p50",
    CROWD,
];

/// In the order of the table in docs/performance.md.
const BARS: [Bar; 11] = [
    Bar {
        kinds: &STREAMS,
        ..bar(TcpStream, ALL, Host, 0.98)
    },
    Bar {
        kinds: LATENCIES,
        ..bar(TcpRr, ALL, Host, 0.95)
    },
    bar(TcpCrr, INSIDE, Host, 0.96),
    bar(TcpCrr, INTERNET, Host, 0.94),
    bar(TcpCrr, ALL, Bridge, 1.25),
    bar(UdpPps, OUT, Host, 0.80),
    bar(UdpPps, OUT, Bridge, 1.2),
    bar(Add, PODS, Bridge, 3.0),
    bar(Del, PODS, Bridge, 3.0),
    // How much better than iptables the guard drops: alone, and behind a bridge that looks first.
    bar(XdpDrop, &[FLOOD], Ptp, 2.0),
    bar(XdpDrop, &[FLOOD], Bridge, 2.0),
];
/// What must be small: how its name begins, its whole name, and the most that it may be.
const SIZES: [(&str, &str, u64); 3] = [
    (
        "binary azure-vnet,",
        "binary azure-vnet, static",
        LARGEST_PLUGIN,
    ),
    (
        "binary azure-vnet-ipam,",
        "binary azure-vnet-ipam, static",
        LARGEST_PLUGIN,
    ),
    (
        "loader, resident,",
        "loader, resident, 250 pods",
        LARGEST_LOADER,
    ),
];

const fn bar(measure: Measure, paths: &'static [&'static str], over: SideName, least: f64) -> Bar {
    Bar {
        measure,
        paths,
        kinds: PLAIN,
        over,
        least,
    }
}

/// Whether a bar was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Met,
    /// As far as it was measured, which is less than the bar is about.
    Partly,
    Missed,
    NotMeasured,
}

impl Verdict {
    /// Of a figure that is about all that the bar is about, or not.
    pub(super) fn of(reached: bool, whole: bool) -> Self {
        match (reached, whole) {
            (true, true) => Self::Met,
            (true, false) => Self::Partly,
            (false, _) => Self::Missed,
        }
    }
}

/// A bar beside what was found.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Judged {
    pub(super) what: String,
    pub(super) bar: String,
    pub(super) found: String,
    pub(super) verdict: Verdict,
}

impl Judged {
    pub(super) fn not_measured(what: String, bar: String) -> Self {
        Self {
            what,
            bar,
            found: "not measured".into(),
            verdict: Verdict::NotMeasured,
        }
    }
}

/// Every bar, for every path that it is about.
pub(super) fn judge(report: &Report) -> Vec<Judged> {
    let ratios = BARS.iter().flat_map(|bar| of_bar(report, bar));
    let growth = Measure::GROWTH
        .into_iter()
        .map(|measure| growth(report, measure));
    let sizes = SIZES.iter().map(|expected| size(report, *expected));
    ratios
        .chain([without_error(report)])
        .chain(growth)
        .chain(sizes)
        .chain(costs::judge(report.machine.costs.as_ref()))
        .collect()
}

#[expect(
    clippy::cast_precision_loss,
    reason = "no size of ours has 52 bits, and one digit is shown"
)]
pub(super) fn bytes_as_mebi(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn of_bar(report: &Report, bar: &Bar) -> Vec<Judged> {
    let named = bar.paths.iter().flat_map(|path| {
        let kinds = bar.kinds.iter();
        kinds.map(move |kind| format!("{path}{kind}"))
    });
    let judged = |path: String| {
        let what = format!("{}, {path}, ours over {}", bar.measure, bar.over);
        let least = format!("≥ {}", bar.least);
        let Some(found) = report.ratio(bar.measure, &path, bar.over) else {
            return Judged::not_measured(what, least);
        };
        Judged {
            what,
            bar: least,
            found: format!("{found:.3}"),
            verdict: Verdict::of(found >= bar.least, true),
        }
    };
    named.map(judged).collect()
}

/// As many pods at once as a node may have: all of them come, and go.
fn without_error(report: &Report) -> Judged {
    let (what, bar) = (format!("add and del, {CROWD}, ours"), "no error".to_owned());
    let mut failures = report.machine.failures.iter();
    let failed = failures.find(|one| one.side == Some(SideName::Ours) && one.what.contains(CROWD));
    let row = report.row(Del, CROWD, SideName::Ours);
    let (found, verdict) = match (failed, row) {
        (Some(failed), _) => (failed.error.replace('\n', "<br>"), Verdict::Missed),
        (None, Some(row)) => (format!("none in {} rounds", row.rounds), Verdict::Met),
        (None, None) => return Judged::not_measured(what, bar),
    };
    Judged {
        what,
        bar,
        found,
        verdict,
    }
}

fn size(report: &Report, (begins, whole, limit): (&str, &str, u64)) -> Judged {
    let mebi = |bytes: u64| format!("{:.1} MiB", bytes_as_mebi(bytes));
    let mut sizes = report.machine.sizes.iter();
    let Some(size) = sizes.find(|size| size.what.starts_with(begins)) else {
        return Judged::not_measured(whole.into(), format!("≤ {}", mebi(limit)));
    };
    Judged {
        what: size.what.clone(),
        bar: format!("≤ {}", mebi(limit)),
        found: mebi(size.bytes),
        verdict: Verdict::of(size.bytes <= limit, size.what == whole),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Failure, Ratio, Size};
    use crate::series::CPU;

    fn ratio(measure: Measure, path: &str, over_host: f64) -> Ratio {
        Ratio {
            measure,
            path: path.into(),
            ours_over_host: Some(over_host),
            ours_over_bridge: None,
            ours_over_ptp: None,
            low: 0.0,
            high: 2.0,
            sure: std::collections::BTreeMap::new(),
        }
    }

    fn line<'a>(judged: &'a [Judged], what: &str) -> &'a Judged {
        judged.iter().find(|judged| judged.what == what).unwrap()
    }

    #[test]
    fn the_way_to_the_internet_has_a_bar_of_its_own() {
        let report = Report {
            ratios: vec![
                ratio(TcpCrr, "pod→VNet", 0.95),
                ratio(TcpCrr, "pod→Internet", 0.95),
            ],
            ..Report::default()
        };
        let judged = judge(&report);
        let vnet = line(&judged, "tcp_crr, pod→VNet, ours over host");
        let internet = line(&judged, "tcp_crr, pod→Internet, ours over host");
        assert_eq!(
            (vnet.verdict, internet.verdict),
            (Verdict::Missed, Verdict::Met)
        );
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
                .all(|one| one.verdict == Verdict::NotMeasured && one.found == "not measured")
        );
        for what in [
            "add, 250 at once, p50, ours over bridge",
            "binary azure-vnet, static",
            "loader, resident, 250 pods",
            "add and del, 250 at once, ours",
            "tcp_stream, VNet→pod, n streams, ours over host",
            "tcp_rr, pod→Internet, p99, ours over host",
        ] {
            line(&judged, what);
        }
    }

    #[test]
    fn a_path_that_ours_could_not_take_has_a_line_beside_those_that_it_could() {
        let report = Report {
            ratios: vec![ratio(TcpRr, "pod→VNet", 0.99)],
            ..Report::default()
        };
        let judged = judge(&report);
        let verdict = |path: &str| {
            let what = format!("tcp_rr, {path}, ours over host");
            line(&judged, &what).verdict
        };
        assert_eq!(verdict("pod→VNet"), Verdict::Met);
        assert_eq!(verdict("pod→Internet"), Verdict::NotMeasured);
    }

    #[test]
    fn the_guard_is_judged_against_iptables_with_and_without_a_bridge() {
        let dropped = Ratio {
            ours_over_bridge: Some(2.1),
            ours_over_ptp: Some(0.94),
            ..ratio(XdpDrop, FLOOD, 0.9)
        };
        let report = Report {
            ratios: vec![dropped],
            ..Report::default()
        };
        let judged = judge(&report);
        let verdict =
            |side: &str| line(&judged, &format!("xdp_drop, {FLOOD}, ours over {side}")).verdict;
        assert_eq!(
            (verdict("bridge"), verdict("ptp")),
            (Verdict::Met, Verdict::Missed)
        );
    }

    #[test]
    fn a_bar_is_for_the_paths_that_it_names() {
        let report = Report {
            ratios: vec![
                ratio(UdpPps, "pod→VNet", 0.9),
                ratio(UdpPps, "pod→VNet, there and back", 0.1),
                ratio(UdpPps, "VNet→pod", 0.1),
                ratio(Add, "serial, peers without ipMasq", 0.1),
                ratio(TcpStream, "pod→VNet, 1 stream, CPU each", 0.1),
            ],
            ..Report::default()
        };
        let judged = judge(&report);
        let about = |what: &str| judged.iter().filter(|one| one.what.contains(what)).count();
        assert_eq!(
            line(&judged, "udp_pps, pod→VNet, ours over host").verdict,
            Verdict::Met
        );
        assert_eq!(about("there and back"), 0);
        assert_eq!(about("udp_pps, VNet→pod"), 0);
        assert_eq!(about("without ipMasq"), 0);
        assert_eq!(about(CPU), 0);
    }

    #[test]
    fn fewer_pods_than_the_bar_is_about_meet_it_in_part_and_too_much_misses_it_anyway() {
        let of = |what: &str, bytes| {
            let mut report = Report::default();
            let size = Size {
                what: what.into(),
                bytes,
                limit: Some(LARGEST_LOADER),
            };
            report.machine.sizes.push(size);
            line(&judge(&report), what).verdict
        };
        assert_eq!(of("loader, resident, 60 pods", 1 << 20), Verdict::Partly);
        assert_eq!(of("loader, resident, 60 pods", 1 << 30), Verdict::Missed);
        assert_eq!(of("loader, resident, 250 pods", 1 << 20), Verdict::Met);
    }

    #[test]
    fn two_hundred_and_fifty_at_once_may_not_fail() {
        let mut report = Report::default();
        report.machine.failures.push(Failure {
            side: Some(SideName::Ours),
            what: "add, 250 at once".into(),
            error: "1 of 250 failed".into(),
        });
        let judged = judge(&report);
        let crowd = line(&judged, "add and del, 250 at once, ours");
        assert_eq!(
            (crowd.verdict, crowd.found.as_str()),
            (Verdict::Missed, "1 of 250 failed")
        );
    }
}
