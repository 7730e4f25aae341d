//! How fast is a flood dropped? By the guard, by nftables as early as it can and by iptables, each with one source that is refused.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use lab::frame::udp;
use lab::{Node, Sender, VIRTUAL_MAC};
use serde_json::Value;
use std::net::Ipv4Addr;

use super::traffic::turns;
use super::{Book, Go};
use crate::load::Times;
use crate::load::cpu::{Clock, Cpu};
use crate::names::{DROP, FLOOD, MAKING, Measure, SideName, Unit};
use crate::scene::{Kind, Side};
use crate::series::{Sample, Series};

/// Whose packets are not wanted.
const REFUSED: &str = "192.0.2.0/24";
const SOURCE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 66);
pub(crate) const GUARD: &str = "xdp: guard\ndenyCidrs: [192.0.2.0/24]\n";
/// Frames between two looks at the clock.
const BATCH: u32 = 64;

pub(super) fn run(book: &mut Book) {
    let guard = |node: &Node| node.write("/etc/azure-vnet/loader.yaml", GUARD);
    let sides = book.scene("a flood", Kind::Traffic, &SideName::ALL, guard);
    let times = Times::of(book.plan.time);
    let turns = turns(book, &sides, "xdp_drop", |side| {
        refuse(side)?;
        side.lab().fabric().ip(NOWHERE)?;
        Ok(Box::new(move || {
            let making = made(side, times)?;
            let dropped = flood(side, times)?;
            let mut found = vec![Sample::of(alone(dropped.value, making)), Sample::of(making)];
            found.insert(0, dropped);
            // It has nothing to do with the sides: a ratio would only tell of noise.
            found.truncate(if side.name == SideName::Host { 3 } else { 2 });
            Ok(found)
        }) as Go<'_>)
    });
    let series = [
        (FLOOD, Unit::PerSecond),
        (DROP, Unit::Microseconds),
        (MAKING, Unit::PerSecond),
    ];
    let series = series.map(|(path, unit)| Series::new(Measure::XdpDrop, path, unit));
    book.alternate(series.to_vec(), book.plan.rounds, turns);
}

/// A cable whose far end is down: its near end has no carrier, so that the kernel throws a frame away where it would go onto the
/// wire.
const NOWHERE: &str = "link add alone type veth peer name nowhere\nlink set alone up";
/// Less than this cannot be told from nothing, microseconds.
const LEAST: f64 = 0.01;

/// What is left of a frame's time without that of making it, microseconds.
fn alone(dropped: f64, made: f64) -> f64 {
    (1e6 / dropped - 1e6 / made).max(LEAST)
}

/// How many frames a second the same sender makes, when they end before they are on a wire.
fn made(side: &Side, times: Times) -> Result<f64> {
    let sender = side.lab().fabric().sender("alone")?;
    let frame = frame(side);
    send_for(&sender, &frame, times.warm)?;
    let (sent, took, _) = send_for(&sender, &frame, times.counted)?;
    Ok(f64::from(sent) / took.as_secs_f64())
}

fn frame(side: &Side) -> Vec<u8> {
    let node = side.node();
    let to = (node.mac(), node.addr(), 4000);
    udp(to, (VIRTUAL_MAC, SOURCE, 4000), b"flood")
}

/// As many frames as one CPU sends in a time: how many, how long it took and the CPU time.
fn send_for(sender: &Sender, frame: &[u8], time: Duration) -> Result<(u32, Duration, Duration)> {
    let send = || -> Result<_> {
        Cpu::Client.pin()?;
        let (cpu, start) = (Clock::start()?, Instant::now());
        let mut sent = 0_u32;
        while start.elapsed() < time {
            for _ in 0..BATCH {
                sender.send(frame)?;
            }
            sent += BATCH;
        }
        Ok((sent, start.elapsed(), cpu.elapsed()?))
    };
    std::thread::scope(|scope| {
        let sending = scope.spawn(send).join();
        sending.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Makes the node drop the flood; the loader has done it for ours.
fn refuse(side: &Side) -> Result<()> {
    let node = side.node();
    match side.name {
        SideName::Host => {
            // Where tc's programs run; tc's own actions are a module that not every kernel has.
            node.nft(&format!(
                "table netdev flood {{ chain ingress {{\ntype filter hook ingress device eth0 priority 0\n\
                 ip saddr {REFUSED} counter drop\n}}\n}}\n"
            ))?;
        }
        SideName::Bridge | SideName::Ptp => {
            let rule = "iptables -w -t raw -I PREROUTING -j DROP -s";
            let mut line: Vec<&str> = rule.split(' ').collect();
            line.push(REFUSED);
            node.exec(&line)?;
        }
        SideName::Ours => {
            let guard = node.status()?;
            let mode = guard.pointer("/guard/mode").and_then(Value::as_str);
            ensure!(mode == Some("native"), "the guard is {mode:?}, not native");
        }
    }
    Ok(())
}

/// As many frames as one CPU puts onto the node's wire and the node drops there. Dropped a second, by the node's own count.
fn flood(side: &Side, times: Times) -> Result<Sample> {
    let frame = frame(side);
    let sender = side.lab().fabric().sender(side.node().name())?;
    send_for(&sender, &frame, times.warm)?;
    let before = dropped(side)?;
    let (sent, took, cpu) = send_for(&sender, &frame, times.counted)?;
    let count = dropped(side)?.saturating_sub(before);
    let count = f64::from(u32::try_from(count)?);
    ensure!(
        count >= 0.95 * f64::from(sent),
        "of {sent} frames only {count} were counted as dropped"
    );
    Ok(Sample {
        cpu: Some((cpu, count)),
        ..Sample::of(count / took.as_secs_f64())
    })
}

fn dropped(side: &Side) -> Result<u64> {
    let node = side.node();
    match side.name {
        SideName::Host => {
            let shown = node.exec(&["nft", "list", "table", "netdev", "flood"])?;
            counted(&shown, "packets ").with_context(|| format!("no counter in {shown}"))
        }
        SideName::Bridge | SideName::Ptp => {
            let shown = node.exec(&["iptables", "-w", "-t", "raw", "-nvxL", "PREROUTING"])?;
            let mut lines = shown.lines().filter(|line| line.contains(REFUSED));
            let first = lines.next().and_then(|line| line.split_whitespace().next());
            let first = first.with_context(|| format!("no counter in {shown}"))?;
            Ok(first.parse()?)
        }
        SideName::Ours => node.drops("deny_list"),
    }
}

/// The number behind a word.
fn counted(text: &str, word: &str) -> Option<u64> {
    let (_, behind) = text.split_once(word)?;
    behind
        .split(|c: char| !c.is_ascii_digit())
        .next()?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_drop_alone_is_what_is_left_of_a_frames_time_and_never_less_than_nothing() {
        assert!((alone(500_000.0, 1_000_000.0) - 1.0).abs() < 1e-9);
        assert!((alone(1_000_000.0, 990_000.0) - LEAST).abs() < 1e-9);
    }

    #[test]
    fn the_drops_of_nft_are_read() {
        let shown = "ip saddr 192.0.2.0/24 counter packets 567 bytes 34020 drop";
        assert_eq!(counted(shown, "packets "), Some(567));
        assert_eq!(counted("nothing", "packets "), None);
    }
}
