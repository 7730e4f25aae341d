//! What every verdict costs in the kernel, by `BPF_PROG_TEST_RUN`, against `bench/budget.json`: a million runs of each.
//!
//! A frame that was rewritten once would be judged differently the next time (its TTL falls, its source changes), so
//! every run gets a fresh frame. A run is timed by the kernel from clock to clock; what the clock itself costs is in
//! the figures: the program that does nothing shows it. All verdicts take turns, round after round; the median of each round is
//! taken, and the quietest round counts, because what else the machine does is not the program's cost. The budget is in multiples
//! of the program that does nothing, so that it holds for machines of any speed.

use std::path::Path;
use std::time::Duration;

use abi::pins::program;
use abi::{Ip4, proto};
use datapath::model::Frame;
use serde_json::Value;

use crate::empty::Empty;
use crate::frames::ip_header;
use crate::kernel::Kernel;
use crate::world::{
    HOST_MAC, INTERNET, OTHER_POD, POD, POD_MAC, PRIMARY, SERVICE, VNET, WIRESERVER, World,
    enter_new_namespace,
};

/// Rounds, and runs of each verdict in a round: a million in all.
const ROUNDS: usize = 25;
const REPEATS: usize = 40_000;
/// Program, verdict, frame.
type Case = (&'static str, &'static str, Frame);

const SYN: u8 = 2;
pub(crate) const ACK: u8 = 16;

pub(crate) fn check() {
    enter_new_namespace();
    let mut kernel = Kernel::load();
    let mut world = World::roomy();
    kernel.fill(&world);
    let budget = budget();
    let mut over = too_many_instructions(&budget, &kernel);
    over.extend(too_slow(&budget, &kernel, &cases(&kernel, &mut world)));
    assert!(
        over.is_empty(),
        "over budget: {over:?}; what is meant to cost more is changed in bench/budget.json"
    );
}

/// What a program and a verdict may cost.
fn budget() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../bench/budget.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Another kernel's verifier takes other ways through a program, so that only the one of the budget can be compared with.
fn too_many_instructions(budget: &Value, kernel: &Kernel) -> Vec<String> {
    let running = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let same = running.starts_with(&format!("{}.", budget["kernel"].as_str().unwrap()));
    let mut over = Vec::new();
    println!("{:<10} {:>12} {:>8}", "PROGRAM", "VERIFIED", "BUDGET");
    for (name, count) in kernel.verified_instructions() {
        let bar = budget["instructions"][name].as_u64();
        let bar = bar.unwrap_or_else(|| panic!("bench/budget.json does not know {name}"));
        println!("{name:<10} {count:>12} {bar:>8}");
        if same && u64::from(count) > bar {
            over.push(format!("{name}, instructions"));
        }
    }
    over
}

fn too_slow(budget: &Value, kernel: &Kernel, cases: &[Case]) -> Vec<String> {
    let empty = Empty::load();
    let mut nothing = Vec::new();
    let mut medians = vec![Vec::new(); cases.len()];
    for _ in 0..ROUNDS {
        nothing.push(median(|| empty.run(&cases[0].2.bytes)));
        for ((name, _, frame), medians) in cases.iter().zip(&mut medians) {
            let ifindex = World::ifindex(name);
            medians.push(median(|| kernel.run(name, frame, ifindex).time));
        }
    }
    let best = |times: &[Duration]| times.iter().min().unwrap().as_secs_f64() * 1e9;
    let nothing = best(&nothing);
    println!(
        "{:<10} {:<40} {:>8} {:>8} {:>8}",
        "PROGRAM", "VERDICT", "BEST ns", "RATIO", "BUDGET"
    );
    println!("{:<10} {:<40} {nothing:>8.0} {:>8.2}", "-", "nothing", 1.0);
    let mut over = Vec::new();
    for ((name, what, _), medians) in cases.iter().zip(&medians) {
        let (best, ratio) = (best(medians), best(medians) / nothing);
        let bar = budget["ratios"][name][what].as_f64();
        let bar = bar.unwrap_or_else(|| panic!("bench/budget.json does not know {name}, {what}"));
        println!("{name:<10} {what:<40} {best:>8.0} {ratio:>8.2} {bar:>8.2}");
        if ratio > bar {
            over.push(format!("{name}, {what}"));
        }
    }
    over
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

    vec![
        (
            program::FROM_POD,
            "local",
            tcp(POD, 50_000, OTHER_POD, 80, ACK),
        ),
        (program::FROM_POD, "VNet", tcp(POD, 50_000, VNET, 80, ACK)),
        (
            program::FROM_POD,
            "SNAT, established",
            tcp(POD, 50_000, INTERNET, 443, ACK),
        ),
        (
            program::FROM_POD,
            "stack (Service)",
            tcp(POD, 50_000, SERVICE, 443, ACK),
        ),
        (
            program::FROM_POD,
            "drop (wireserver)",
            tcp(POD, 50_000, WIRESERVER, 80, SYN),
        ),
        (
            program::FROM_WIRE,
            "VNet to pod",
            tcp(VNET, 80, POD, 50_000, ACK),
        ),
        (
            program::FROM_WIRE,
            "SNAT, answer",
            tcp(INTERNET, 443, PRIMARY, nat_port, ACK),
        ),
        (
            program::FROM_WIRE,
            "stack (the node's own)",
            tcp(VNET, 80, PRIMARY, 50_000, ACK),
        ),
        (program::TO_POD, "learn", tcp(VNET, 80, POD, 50_001, ACK)),
        (program::TO_WIRE, "learn", tcp(POD, 50_001, VNET, 80, ACK)),
    ]
}

fn median(mut run: impl FnMut() -> Duration) -> Duration {
    let mut times: Vec<Duration> = (0..REPEATS).map(|_| run()).collect();
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
