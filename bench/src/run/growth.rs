//! What becomes of new connections, and of ADD, when there is more of everything?

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use hooks::{Maps, Pins};
use lab::libcni::Verb;
use lab::{Node, Proxy, Service, eventually};

use super::pods::{SIDES, call, median};
use super::traffic::{requests_of, turns};
use super::{Book, Go};
use crate::load::{Times, tcp};
use crate::names::{Measure, Path, SideName, Unit};
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

/// Connections to the Internet, each preceded by `before`.
fn connections<'a>(
    book: &mut Book,
    sides: &'a [Side],
    (measure, point): (Measure, u32),
    before: impl Fn(&'a Side) -> Result<()> + Copy + 'a,
) {
    let times = Times::of(book.plan.time);
    let turns = turns(book, sides, &format!("{measure}, {point}"), |side| {
        let mut go = requests_of(&side.ends(Path::Internet)?, times, tcp::connect_close)?;
        Ok(Box::new(move || {
            before(side)?;
            go()
        }) as Go<'_>)
    });
    let series = vec![Series::new(measure, point.to_string(), Unit::PerSecond)];
    book.alternate(series, book.plan.rounds_of_programs, turns);
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
    for point in book.plan.points(&[10, 50, 100, 175, 250], [10, 60]) {
        let count = usize::try_from(point).unwrap_or(usize::MAX);
        change(book, &mut sides, &format!("{point} pods"), |side| {
            side.add_pods(count)
        });
        if pods {
            connections(book, &sides, (Measure::GrowthPods, point), |_| Ok(()));
        }
        if add {
            one_more(book, &sides, point);
        }
    }
    let ours = sides.iter().find(|side| side.name == SideName::Ours);
    if let Some(memory) = ours.map(|side| resident(side.node())) {
        let count = ours.map_or(0, |side| side.pods.len());
        match memory {
            Ok(bytes) => {
                let what = format!("loader, resident, {count} pods");
                book.note_size(what, bytes, Some(LARGEST_LOADER));
            }
            Err(error) => book.fail(Some(SideName::Ours), "memory of the loader", &error),
        }
    }
}

/// A pod that comes and goes beside the others.
fn one_more(book: &mut Book, sides: &[Side], point: u32) {
    let turns = turns(book, sides, &format!("growth_add, {point}"), |side| {
        let network = side.network()?;
        Ok(Box::new(move || {
            let mut times = Vec::new();
            for _ in 0..5 {
                let pod = side.node().new_netns("more")?;
                times.push(call(&pod, network, Verb::Add)?);
                call(&pod, network, Verb::Del)?;
                pod.remove_netns()?;
            }
            if side.name == SideName::Ours {
                side.node().end_rest()?;
            }
            Ok(vec![median(&times)?])
        }) as Go<'_>)
    });
    let series = vec![Series::new(
        Measure::GrowthAdd,
        point.to_string(),
        Unit::Milliseconds,
    )];
    book.alternate(series, book.plan.rounds_of_programs, turns);
}

/// Bytes of memory that the loader has now.
fn resident(node: &Node) -> Result<u64> {
    let path = format!("/proc/{}/status", node.loader().pid()?);
    let status = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next());
    let kib: u64 = kib
        .with_context(|| format!("no VmRSS in {path}"))?
        .parse()?;
    Ok(kib * 1024)
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
    for point in book
        .plan
        .points(&[0, 50_000, 100_000, 200_000], [0, 50_000])
    {
        let what = format!("{point} bindings");
        change(book, &mut sides, &what, |side| {
            talk(side, point)?;
            holds(side, point)
        });
        connections(
            book,
            &sides,
            (Measure::GrowthBindings, point),
            move |side| talk(side, point),
        );
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

/// Entries of the table: one for each direction.
const PER_BINDING: u64 = 1;

/// The bindings are there, or there is nothing to be measured beside them.
fn holds(side: &Side, count: u32) -> Result<()> {
    let found = if side.name == SideName::Ours {
        // The loader's own count is that of its last sweep.
        let count = || Ok(Maps::from_pins(&Pins::default())?.snat.keys().count());
        u64::try_from(side.node().run(count)?)? / PER_BINDING
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
    for point in book.plan.points(&[0, 250, 500, 1000], [0, 500]) {
        let mut sides = book.scene("exclusions", Kind::Traffic, &SIDES, |_| Ok(()));
        let what = format!("{point} exclusions");
        change(book, &mut sides, &what, |side| exclude(side, point));
        connections(book, &sides, (Measure::GrowthExclusions, point), |_| Ok(()));
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
    for point in book.plan.points(&[0, 1000, 2500, 5000], [0, 1000]) {
        let mut sides = book.scene("Services", Kind::Traffic, &SIDES, |_| Ok(()));
        let list: Vec<Service> = (0..point).map(service).collect();
        change(book, &mut sides, &format!("{measure}, {point}"), |side| {
            shown_short(side.node().proxy(proxy, &list))
        });
        connections(book, &sides, (measure, point), |_| Ok(()));
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
