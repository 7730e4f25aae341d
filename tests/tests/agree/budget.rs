//! What every verdict costs in the kernel, by `BPF_PROG_TEST_RUN`: a million runs of each.
//!
//! A frame that was rewritten once would be judged differently the next time (its TTL falls, its source changes), so
//! every run gets a fresh frame. A run is timed by the kernel from clock to clock; what the clock itself costs is in
//! the figures: the first line shows it. All verdicts take turns, round after round; the median of each round is
//! taken, and the quietest round counts against the budget, because what else the machine does is not the program's
//! cost. A machine that is slower throughout, as the first line shows, gets a budget that is larger by the same factor.

use std::time::Duration;

use abi::pins::program;
use abi::{Ip4, proto};
use datapath::model::Frame;

use crate::frames::ip_header;
use crate::kernel::Kernel;
use crate::world::{
    HOST_MAC, INTERNET, OTHER_POD, POD, POD_MAC, PRIMARY, SERVICE, VNET, WIRESERVER, World,
    enter_new_namespace,
};

/// Rounds, and runs of each verdict in a round: a million in all.
const ROUNDS: usize = 25;
const REPEATS: usize = 40_000;
/// Program, verdict, frame, budget in nanoseconds.
type Case = (&'static str, &'static str, Frame, Option<u128>);

/// What the first line shows on the machine for which the budgets were set, nanoseconds.
const CLOCK: u128 = 35;
const SYN: u8 = 2;
pub(crate) const ACK: u8 = 16;

pub(crate) fn check() {
    enter_new_namespace();
    let mut kernel = Kernel::load();
    let mut world = World::roomy();
    kernel.fill(&world);

    let cases = cases(&kernel, &mut world);
    let mut medians = vec![Vec::new(); cases.len()];
    for _ in 0..ROUNDS {
        for ((name, _, frame, _), medians) in cases.iter().zip(&mut medians) {
            medians.push(median(&kernel, name, frame));
        }
    }
    for medians in &mut medians {
        medians.sort_unstable();
    }
    let clock = medians[0][0].as_nanos().max(CLOCK);

    let mut over = Vec::new();
    println!(
        "{:<10} {:<40} {:>8} {:>8} {:>8}",
        "PROGRAM", "VERDICT", "BEST ns", "MIDDLE", "BUDGET"
    );
    for ((name, what, _, budget), medians) in cases.iter().zip(&medians) {
        let (best, middle) = (medians[0].as_nanos(), medians[ROUNDS / 2].as_nanos());
        let bar = budget.map_or_else(|| "-".into(), |bar| bar.to_string());
        println!("{name:<10} {what:<40} {best:>8} {middle:>8} {bar:>8}");
        if budget.is_some_and(|bar| best > bar * clock / CLOCK) {
            over.push(what);
        }
    }
    assert!(over.is_empty(), "over budget: {over:?}");
}

/// Every verdict that packets get every day.
fn cases(kernel: &Kernel, world: &mut World) -> Vec<Case> {
    // Open the connection, so that the established one is measured.
    let syn = tcp(POD, 50_000, INTERNET, 443, SYN);
    let opened = kernel.run(program::FROM_POD, &syn, World::ifindex(program::FROM_POD));
    assert_eq!(
        opened.frame.bytes,
        world.decide(program::FROM_POD, &syn).frame.bytes
    );
    let nat_port = u16::from_be_bytes([opened.frame.bytes[34], opened.frame.bytes[35]]);

    let marked = Frame {
        mark: 0x1000,
        ..tcp(PRIMARY, 50_000, INTERNET, 443, ACK)
    };
    vec![
        (
            program::TO_WIRE,
            "marked (the run's own cost, nearly)",
            marked,
            None,
        ),
        (
            program::FROM_POD,
            "local",
            tcp(POD, 50_000, OTHER_POD, 80, ACK),
            Some(100),
        ),
        (
            program::FROM_POD,
            "VNet",
            tcp(POD, 50_000, VNET, 80, ACK),
            Some(150),
        ),
        (
            program::FROM_POD,
            "SNAT, established",
            tcp(POD, 50_000, INTERNET, 443, ACK),
            Some(220),
        ),
        (
            program::FROM_POD,
            "stack (Service)",
            tcp(POD, 50_000, SERVICE, 443, ACK),
            None,
        ),
        (
            program::FROM_POD,
            "drop (wireserver)",
            tcp(POD, 50_000, WIRESERVER, 80, SYN),
            None,
        ),
        (
            program::FROM_WIRE,
            "VNet to pod",
            tcp(VNET, 80, POD, 50_000, ACK),
            None,
        ),
        (
            program::FROM_WIRE,
            "SNAT, answer",
            tcp(INTERNET, 443, PRIMARY, nat_port, ACK),
            None,
        ),
        (
            program::FROM_WIRE,
            "stack (the node's own)",
            tcp(VNET, 80, PRIMARY, 50_000, ACK),
            None,
        ),
        (
            program::TO_POD,
            "learn",
            tcp(VNET, 80, POD, 50_001, ACK),
            None,
        ),
        (
            program::TO_WIRE,
            "learn",
            tcp(POD, 50_001, VNET, 80, ACK),
            None,
        ),
    ]
}

fn median(kernel: &Kernel, name: &str, frame: &Frame) -> Duration {
    let ifindex = World::ifindex(name);
    let mut times: Vec<Duration> = (0..REPEATS)
        .map(|_| kernel.run(name, frame, ifindex).time)
        .collect();
    times.sort_unstable();
    times[REPEATS / 2]
}

pub(crate) fn tcp(src: Ip4, src_port: u16, dst: Ip4, dst_port: u16, flags: u8) -> Frame {
    let mut bytes = [HOST_MAC.octets(), POD_MAC.octets()].concat();
    bytes.extend([8, 0]);
    bytes.extend(ip_header(0x45, 40, 0x4000, 64, proto::TCP, src, dst));
    bytes.extend([src_port.to_be_bytes(), dst_port.to_be_bytes()].concat());
    bytes.extend([
        0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 0xff, 0xff, 0x12, 0x34, 0, 0,
    ]);
    Frame::new(bytes)
}
