//! What every verdict costs in the kernel, by `BPF_PROG_TEST_RUN`.
//!
//! A frame that was rewritten once would be judged differently the next time (its TTL falls, its source changes), so
//! every run gets a fresh frame. A run is timed by the kernel from clock to clock; what the clock itself costs is in
//! the figures: the first line shows it. Ten rounds, the median of each; the quietest round counts against the budget,
//! because what else the machine does is not the program's cost.

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

/// Rounds, and runs in each of them.
const ROUNDS: usize = 10;
const REPEATS: usize = 100_000;
const SYN: u8 = 2;
const ACK: u8 = 16;

pub(crate) fn check() {
    enter_new_namespace();
    let mut kernel = Kernel::load();
    let mut world = World::roomy();
    kernel.fill(&world);

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
    let cases = [
        (
            program::TO_WIRE,
            "marked (the clock's own cost, nearly)",
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
    ];
    let mut over = Vec::new();
    println!(
        "{:<10} {:<40} {:>8} {:>8} {:>8}",
        "PROGRAM", "VERDICT", "BEST ns", "WORST", "BUDGET"
    );
    for (name, what, frame, budget) in cases {
        let medians = measure(&kernel, name, &frame);
        let (best, worst) = (medians[0].as_nanos(), medians[ROUNDS - 1].as_nanos());
        let bar = budget.map_or_else(|| "-".into(), |bar: u128| bar.to_string());
        println!("{name:<10} {what:<40} {best:>8} {worst:>8} {bar:>8}");
        if budget.is_some_and(|bar| best > bar) {
            over.push(what);
        }
    }
    assert!(over.is_empty(), "over budget: {over:?}");
}

/// The rounds' medians, ascending.
fn measure(kernel: &Kernel, name: &str, frame: &Frame) -> Vec<Duration> {
    let ifindex = World::ifindex(name);
    let median = |_round| {
        let mut times: Vec<Duration> = (0..REPEATS)
            .map(|_| kernel.run(name, frame, ifindex).time)
            .collect();
        times.sort_unstable();
        times[REPEATS / 2]
    };
    let mut medians: Vec<Duration> = (0..ROUNDS).map(median).collect();
    medians.sort_unstable();
    medians
}

fn tcp(src: Ip4, src_port: u16, dst: Ip4, dst_port: u16, flags: u8) -> Frame {
    let mut bytes = [HOST_MAC.octets(), POD_MAC.octets()].concat();
    bytes.extend([8, 0]);
    bytes.extend(ip_header(0x45, 40, 0x4000, 64, proto::TCP, src, dst));
    bytes.extend([src_port.to_be_bytes(), dst_port.to_be_bytes()].concat());
    bytes.extend([
        0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 0xff, 0xff, 0x12, 0x34, 0, 0,
    ]);
    Frame::new(bytes)
}
