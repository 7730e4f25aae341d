//! What becomes of new connections, and of ADD, when there is more of everything?

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use lab::libcni::Verb;
use lab::{Proxy, Service, eventually};

use super::memory::{locked, resident};
use super::pods::{SIDES, call, masquerading, median, rest};
use super::traffic::{requests_of, turns};
use super::{Book, Go, bindings};
use crate::load::{Times, tcp};
use crate::names::{Measure, Path, SideName, Unit, again, grown};
use crate::report::LARGEST_LOADER;
use crate::scene::{Kind, Side};
use crate::series::{Sample, Series};

/// Until the loader has taken over a new configuration.
const SOON: Duration = Duration::from_secs(20);

pub(super) fn run(book: &mut Book, wanted: &[Measure]) {
    let pods = wanted.contains(&Measure::GrowthPods);
    let add = wanted.contains(&Measure::GrowthAdd);
    if pods || add {
        beside_pods(book, pods, add);
    }
    if wanted.contains(&Measure::GrowthBindings) {
        bindings::run(book);
    }
    if wanted.contains(&Measure::GrowthExclusions) {
        exclusions(book);
    }
    for (measure, proxy) in [
        (Measure::GrowthServicesIptables, Proxy::Iptables),
        (Measure::GrowthServicesNft, Proxy::Nftables),
    ] {
        if wanted.contains(&measure) {
            services(book, measure, proxy);
        }
    }
}

/// A node of ours that stays as it is at the first point: with every later point it takes turns, so that what the machine does
/// meanwhile is not growth.
pub(super) fn first_point(book: &mut Book, kind: Kind, pods: usize) -> Option<Side> {
    let mut first = book.scene("the first point", kind, &[SideName::Ours], |_| Ok(()));
    change(book, &mut first, "the first point", |side| {
        side.add_pods(pods)
    });
    first.pop()
}

/// One point of one measure, with what was there first.
#[derive(Clone, Copy)]
pub(super) struct At<'a> {
    pub(super) measure: Measure,
    pub(super) point: u32,
    pub(super) first: Option<&'a Side>,
}

impl At<'_> {
    /// A figure of every side, and from ours one of the first point and how much more the later one costs.
    fn series(self, unit: Unit) -> Vec<Series> {
        let paths = [
            (self.point.to_string(), unit),
            (again(self.point), unit),
            (grown(self.point), Unit::Times),
        ];
        paths
            .map(|(path, unit)| Series::new(self.measure, path, unit))
            .to_vec()
    }
}

/// Every side's turns, ours with one of the first point behind it.
pub(super) fn take_turns<'a>(
    book: &mut Book,
    sides: &'a [Side],
    at: At<'a>,
    unit: Unit,
    make: impl Fn(&'a Side) -> Result<Go<'a>>,
) {
    let what = format!("{}, {}", at.measure, at.point);
    let turns = turns(book, sides, &what, |side| {
        let mut go = make(side)?;
        let first = at.first.filter(|_| side.name == SideName::Ours);
        let mut first = first.map(&make).transpose()?;
        Ok(Box::new(move || {
            let mut found = go()?;
            if let Some(first) = &mut first {
                found.extend(first()?);
                found.extend(growth(&found, unit));
            }
            Ok(found)
        }) as Go<'_>)
    });
    book.alternate(at.series(unit), book.plan.rounds_of_programs, turns);
}

/// How much more a point costs than the first one behind it.
fn growth(found: &[Sample], unit: Unit) -> Option<Sample> {
    let [now, first] = [found.first()?.value, found.get(1)?.value];
    let times = if unit.less_is_better() {
        now / first
    } else {
        first / now
    };
    Some(Sample::of(times))
}

/// Connections to the Internet.
fn connections<'a>(book: &mut Book, sides: &'a [Side], at: At<'a>) {
    let times = Times::of(book.plan.time);
    take_turns(book, sides, at, Unit::PerSecond, |side| {
        requests_of(&side.ends(Path::Internet)?, times, tcp::connect_close)
    });
}

/// Keeps the sides that can be changed.
pub(super) fn change(
    book: &mut Book,
    sides: &mut Vec<Side>,
    what: &str,
    change: impl Fn(&mut Side) -> Result<()>,
) {
    sides.retain_mut(|side| match change(side) {
        Ok(()) => true,
        Err(error) => {
            book.fail(Some(side.name), what, &error);
            false
        }
    });
}

fn beside_pods(book: &mut Book, pods: bool, add: bool) {
    let mut sides = book.scene("pods", Kind::NoPods, &SIDES, |_| Ok(()));
    // The points of ADD are those of connections, and 0 before: without pods nobody connects.
    let longer = if add {
        Measure::GrowthAdd
    } else {
        Measure::GrowthPods
    };
    let few = usize::try_from(longer.base()).unwrap_or(usize::MAX);
    let first = first_point(book, Kind::Pods, few);
    for point in book.plan.points(longer).iter().copied() {
        let count = usize::try_from(point).unwrap_or(usize::MAX);
        let at = |measure: Measure| At {
            measure,
            point,
            first: first.as_ref().filter(|_| point >= measure.base()),
        };
        change(book, &mut sides, &format!("{point} pods"), |side| {
            side.add_pods(count)
        });
        if pods && Measure::GrowthPods.points().contains(&point) {
            connections(book, &sides, at(Measure::GrowthPods));
        }
        if add {
            one_more(book, &sides, at(Measure::GrowthAdd));
        }
    }
    if let Some(ours) = sides.iter().find(|side| side.name == SideName::Ours) {
        let count = ours.pods.len();
        let parts = [
            (
                "loader, resident",
                resident(ours.node()),
                Some(LARGEST_LOADER),
            ),
            ("maps", locked(ours.node()), None),
        ];
        for (part, bytes, limit) in parts {
            let what = format!("{part}, {count} pods");
            match bytes {
                Ok(bytes) => book.note_size(what, bytes, limit),
                Err(error) => book.fail(Some(SideName::Ours), what, &error),
            }
        }
    }
}

/// A pod that comes and goes beside the others.
fn one_more<'a>(book: &mut Book, sides: &'a [Side], at: At<'a>) {
    take_turns(book, sides, at, Unit::Milliseconds, |side| {
        let network = masquerading(side)?;
        Ok(Box::new(move || {
            let mut times = Vec::new();
            for _ in 0..5 {
                let pod = side.node().new_netns("more")?;
                times.push(call(&pod, &network, Verb::Add)?);
                call(&pod, &network, Verb::Del)?;
                pod.remove_netns()?;
            }
            rest(side)?;
            Ok(vec![median(&times)?])
        }))
    });
}

/// Prefixes of the Internet that are not masqueraded, and that nobody here talks with.
fn exclusion(number: u32) -> String {
    format!("60.{}.{}.0/24", number / 250, number % 250)
}

/// What ip-masq-agent is told: files for us, a chain that returns for iptables.
fn exclusions(book: &mut Book) {
    let first = first_point(book, Kind::Traffic, 2);
    for point in book.plan.points(Measure::GrowthExclusions).iter().copied() {
        let mut sides = book.scene("exclusions", Kind::Traffic, &SIDES, |_| Ok(()));
        let what = format!("{point} exclusions");
        change(book, &mut sides, &what, |side| exclude(side, point));
        let at = At {
            measure: Measure::GrowthExclusions,
            point,
            first: first.as_ref(),
        };
        connections(book, &sides, at);
    }
}

/// The agent takes 64 prefixes from a file.
const PER_FILE: u32 = 64;

fn exclude(side: &Side, count: u32) -> Result<()> {
    let node = side.node();
    let Some(last) = count.checked_sub(1) else {
        return Ok(());
    };
    if side.name != SideName::Ours {
        // Before the rule that masquerades.
        let rules: Vec<String> = (0..count)
            .map(|number| format!("-I POSTROUTING -d {} -j RETURN", exclusion(number)))
            .collect();
        let restored = node.feed(
            &["iptables-restore", "-w", "--noflush"],
            format!("*nat\n{}\nCOMMIT\n", rules.join("\n")).as_bytes(),
        )?;
        return restored.success().context("iptables-restore").map(drop);
    }
    for (file, first) in (0..count).step_by(usize::try_from(PER_FILE)?).enumerate() {
        let some: Vec<String> = (first..count.min(first + PER_FILE))
            .map(exclusion)
            .collect();
        let text = format!("nonMasqueradeCIDRs: [{}]\n", some.join(", "));
        node.write(&format!("/etc/azure-vnet/masq/ip-masq-{file}"), &text)?;
    }
    let address = exclusion(last).replace("0/24", "1");
    let class = || {
        node.exec(&["vnetctl", "classes", &address])
            .unwrap_or_default()
    };
    let taken = eventually(SOON, || (!class().contains(" snat ")).then_some(()));
    taken.with_context(|| {
        format!(
            "the loader does not take over {count} prefixes: {}",
            class()
        )
    })
}

/// kube-proxy's rules for Services with two endpoints each, which nobody here talks with.
fn services(book: &mut Book, measure: Measure, proxy: Proxy) {
    let first = first_point(book, Kind::Traffic, 2);
    for point in book.plan.points(measure).iter().copied() {
        let mut sides = book.scene("Services", Kind::Traffic, &SIDES, |_| Ok(()));
        let list: Vec<Service> = (0..point).map(service).collect();
        change(book, &mut sides, &format!("{measure}, {point}"), |side| {
            shown_short(side.node().proxy(proxy, &list))
        });
        let at = At {
            measure,
            point,
            first: first.as_ref(),
        };
        connections(book, &sides, at);
    }
}

fn service(number: u32) -> Service {
    let [_, _, high, low] = number.to_be_bytes();
    let name: String = number
        .to_string()
        .bytes()
        .map(|digit| char::from(digit + 17))
        .collect();
    let backend = |third| Ipv4Addr::new(10, 240, third, 10);
    Service::new(&name, Ipv4Addr::new(10, 0, high, low), 80)
        .backend(backend(1), 8080)
        .backend(backend(2), 8080)
}

/// An error that has all the rules in it, without them.
fn shown_short(result: Result<()>) -> Result<()> {
    result.map_err(|error| {
        let text: String = format!("{error:#}")
            .lines()
            .next()
            .unwrap_or_default()
            .to_owned();
        let cause = error.root_cause().to_string();
        anyhow::anyhow!("{text} … {}", cause.chars().take(500).collect::<String>())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_a_lower_rate_or_a_longer_time() {
        let growth = |now, first, unit| growth(&[Sample::of(now), Sample::of(first)], unit);
        let of = |now, first, unit| growth(now, first, unit).unwrap().value;
        assert!((of(800.0, 1000.0, Unit::PerSecond) - 1.25).abs() < 1e-9);
        assert!((of(10.0, 8.0, Unit::Milliseconds) - 1.25).abs() < 1e-9);
    }

    #[test]
    fn exclusions_and_services_are_all_different() {
        let mut all: Vec<String> = (0..1000).map(exclusion).collect();
        all.dedup();
        assert_eq!(all.len(), 1000);
        assert_eq!(all[999], "60.3.249.0/24");
        let service = service(4321);
        assert_eq!(
            (service.name.as_str(), service.cluster_ip),
            ("EDCB", Ipv4Addr::new(10, 0, 16, 225))
        );
    }
}
