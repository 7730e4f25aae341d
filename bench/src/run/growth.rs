//! What becomes of new connections, and of ADD, when there is more of everything?

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::ptr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use hooks::{Maps, Pins};
use lab::libcni::Verb;
use lab::{Proxy, Service, eventually};

use super::memory::{locked, resident};
use super::pods::{SIDES, call, masquerading, median, rest};
use super::traffic::{requests_of, turns};
use super::{Book, Go};
use crate::load::{Times, tcp};
use crate::names::{Measure, Path, SideName, Unit, again};
use crate::report::LARGEST_LOADER;
use crate::scene::{Kind, Side};
use crate::series::Series;

/// Until the loader has taken over a new configuration.
const SOON: Duration = Duration::from_secs(20);

pub(super) fn run(book: &mut Book, wanted: &[Measure]) {
    let pods = wanted.contains(&Measure::GrowthPods);
    let add = wanted.contains(&Measure::GrowthAdd);
    if pods || add {
        beside_pods(book, pods, add);
    }
    if wanted.contains(&Measure::GrowthBindings) {
        bindings(book);
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
fn first_point(book: &mut Book, kind: Kind, pods: usize) -> Option<Side> {
    let mut first = book.scene("the first point", kind, &[SideName::Ours], |_| Ok(()));
    change(book, &mut first, "the first point", |side| {
        side.add_pods(pods)
    });
    first.pop()
}

/// One point of one measure, with what was there first.
#[derive(Clone, Copy)]
struct At<'a> {
    measure: Measure,
    point: u32,
    first: Option<&'a Side>,
}

impl At<'_> {
    /// A figure of every side, and one of the first point from ours.
    fn series(self, unit: Unit) -> Vec<Series> {
        let paths = [self.point.to_string(), again(self.point)];
        paths
            .map(|path| Series::new(self.measure, path, unit))
            .to_vec()
    }
}

/// Every side's turns, ours with one of the first point behind it.
fn take_turns<'a>(
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
            }
            Ok(found)
        }) as Go<'_>)
    });
    book.alternate(at.series(unit), book.plan.rounds_of_programs, turns);
}

/// Connections to the Internet.
fn connections<'a>(book: &mut Book, sides: &'a [Side], at: At<'a>) {
    let times = Times::of(book.plan.time);
    take_turns(book, sides, at, Unit::PerSecond, |side| {
        requests_of(&side.ends(Path::Internet)?, times, tcp::connect_close)
    });
}

/// Keeps the sides that can be changed.
fn change(
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
    let mut sides = book.scene("pods", Kind::Pods, &SIDES, |_| Ok(()));
    let points = book.plan.points(Measure::GrowthPods);
    let few = points.first().copied().unwrap_or_default();
    let first = first_point(book, Kind::Pods, usize::try_from(few).unwrap_or(usize::MAX));
    for point in points.iter().copied() {
        let count = usize::try_from(point).unwrap_or(usize::MAX);
        let at = |measure| At {
            measure,
            point,
            first: first.as_ref(),
        };
        change(book, &mut sides, &format!("{point} pods"), |side| {
            side.add_pods(count)
        });
        if pods {
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

/// Pods that share the bindings: each may have half of the ports only.
const TALKERS: u32 = 16;
/// Where their datagrams go: addresses of the Internet at which nobody is.
const NOBODY: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 20);
const PORTS: u32 = 20_000;

/// Datagrams that nobody answers, each to a port of its own: a binding for us and a connection for netfilter. They live for half
/// a minute, so that every round begins with sending all of them again.
fn bindings(book: &mut Book) {
    let mut sides = book.scene("bindings", Kind::Traffic, &SIDES, |_| Ok(()));
    let talkers = usize::try_from(TALKERS).unwrap_or(usize::MAX);
    change(book, &mut sides, "pods that talk", |side| {
        side.add_pods(talkers)
    });
    let first = first_point(book, Kind::Traffic, talkers);
    let times = Times::of(book.plan.time);
    for point in book.plan.points(Measure::GrowthBindings).iter().copied() {
        let at = At {
            measure: Measure::GrowthBindings,
            point,
            first: first.as_ref(),
        };
        take_turns(book, &sides, at, Unit::PerSecond, |side| {
            let mut connect = requests_of(&side.ends(Path::Internet)?, times, tcp::connect_close)?;
            let is_first = first.as_ref().is_some_and(|first| ptr::eq(first, side));
            let count = if is_first { 0 } else { point };
            Ok(Box::new(move || {
                talk(side, count)?;
                let found = connect()?;
                holds(side, count)?;
                Ok(found)
            }))
        });
    }
}

fn talk(side: &Side, count: u32) -> Result<()> {
    let each = count / TALKERS;
    for pod in side.pods.iter().take(usize::try_from(TALKERS)?) {
        pod.run(|| {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 5000))?;
            for number in 0..each {
                let to = Ipv4Addr::from_bits(NOBODY.to_bits() + number / PORTS);
                let port = u16::try_from(10_000 + number % PORTS)?;
                socket.send_to(b"x", SocketAddrV4::new(to, port))?;
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// The bindings are there still, or nothing was measured beside them.
fn holds(side: &Side, count: u32) -> Result<()> {
    let found = if side.name == SideName::Ours {
        // The loader's own count is that of its last sweep.
        let count = || Ok(Maps::from_pins(&Pins::default())?.snat.keys().count());
        u64::try_from(side.node().run(count)?)?
    } else {
        let printed = side.node().exec(&["conntrack", "-C"])?;
        printed
            .trim()
            .parse()
            .with_context(|| format!("conntrack -C: {printed}"))?
    };
    ensure!(
        found >= u64::from(count) * 95 / 100,
        "only {found} bindings of {count}"
    );
    Ok(())
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
