//! What becomes of new connections beside bindings of datagrams that nobody answers?

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::ptr;

use abi::proto;
use anyhow::{Context as _, Result, ensure};
use hooks::{Maps, Pins};

use super::Book;
use super::growth::{At, change, first_point, take_turns};
use super::pods::SIDES;
use super::traffic::requests_of;
use crate::load::{Times, tcp};
use crate::names::{Measure, Path, SideName, Unit};
use crate::scene::{Kind, Side};

/// Pods that share the bindings: each may have half of the ports only.
const TALKERS: u32 = 16;
/// Where their datagrams go: addresses of the Internet at which nobody is.
const NOBODY: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 20);
const PORTS: u32 = 20_000;

/// Datagrams that nobody answers, each to a port of its own: a binding for us and a connection for netfilter. They live for half
/// a minute, so that every round begins with sending all of them again.
pub(super) fn run(book: &mut Book) {
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

/// The bindings are there still, or nothing was measured beside them. Only datagrams: the connections of the load itself, which netfilter
/// keeps for two minutes, would pass for them.
fn holds(side: &Side, count: u32) -> Result<()> {
    let found = if side.name == SideName::Ours {
        // The loader's own count is that of its last sweep.
        let count = || {
            let maps = Maps::from_pins(&Pins::default())?;
            let keys = maps.snat.keys().flatten();
            Ok(keys.filter(|key| key.0.proto == proto::UDP).count())
        };
        u64::try_from(side.node().run(count)?)?
    } else {
        let list = "conntrack -L -p udp 2>/dev/null | wc -l";
        let printed = side.node().exec(&["sh", "-c", list])?;
        let count = printed.trim().parse();
        count.with_context(|| format!("{list}: {printed}"))?
    };
    ensure!(
        found >= u64::from(count) * 95 / 100,
        "only {found} bindings of {count}"
    );
    Ok(())
}
