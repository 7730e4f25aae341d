//! The agreement test: the BPF programs in the kernel (`BPF_PROG_TEST_RUN`) and the same decisions on the host give the
//! same verdicts, bytes, marks, priorities, counters and table entries, on random and on shaped frames.
//!
//! It also prints what every program and verdict costs. Needs root; runs in a network namespace of its own.
#![cfg(test)]

mod budget;
mod costs;
mod empty;
mod frames;
mod guard;
mod kernel;
mod packets;
mod tables;
mod world;

use std::collections::BTreeMap;
use std::sync::RwLock;

use abi::pins::program;
use abi::{DropReason, Port, proto};
use datapath::{Verdict, flow_key};
use hooks::Abi;
use hooks::model::action;
use nix::time::{ClockId, clock_gettime};

use crate::costs::cases;
use crate::frames::Shaper;
use crate::kernel::Kernel;
use crate::packets::{ACK, tcp};
use crate::tables::assert_same;
use crate::world::{POD, VNET, World, enter_new_namespace};

/// Frames per program and world, unless `AGREE_FRAMES` says otherwise: `cargo xtask test agree --frames 1000000`.
const FRAMES: usize = 10_000;
/// Tables are compared after this many frames.
const BATCH: usize = 500;

/// The budget is measured while nothing else of this test runs.
static QUIET: RwLock<()> = RwLock::new(());

fn frames() -> usize {
    std::env::var("AGREE_FRAMES").map_or(FRAMES, |frames| {
        frames.parse().expect("AGREE_FRAMES is a number")
    })
}

/// Runs both sides on the same frames. Each of the `expected` verdicts must have been reached, or the agreement proves
/// nothing about it.
fn agree(name: &'static str, world: World, expected: &[&str]) {
    agree_on(name, Kernel::load, world, expected);
}

fn agree_on(
    name: &'static str,
    load: impl FnOnce() -> Kernel,
    mut world: World,
    expected: &[&str],
) {
    let _busy = QUIET.read();
    enter_new_namespace();
    let mut kernel = load();
    kernel.fill(&world);
    let mut shaper = Shaper::new(0x5eed);
    let mut verdicts = BTreeMap::new();
    let frames = frames();
    for done in 1..=frames {
        let frame = shaper.frame(name);
        let ours = world.decide(name, &frame);
        let theirs = kernel.run(name, &frame, World::ifindex(name));
        assert_eq!(
            theirs.code,
            action(ours.verdict),
            "frame {done}: {:?}\n{frame:02x?}",
            ours.verdict
        );
        assert_eq!(
            (theirs.frame.mark, theirs.frame.priority),
            (ours.frame.mark, ours.frame.priority),
            "mark and priority of frame {done}: {:?}\n{frame:02x?}",
            ours.verdict
        );
        assert_eq!(
            theirs.frame.bytes, ours.frame.bytes,
            "frame {done}: {:?}\n{frame:02x?}",
            ours.verdict
        );
        assert_same_target(&world, ours.verdict, &theirs.frame.bytes);
        *verdicts.entry(ours.name(&frame)).or_insert(0) += 1;
        if done % BATCH == 0 {
            assert_same(&kernel.maps, &world.memory);
            world.change();
            kernel.fill(&world);
        }
    }
    println!("{name:<10} {frames} frames: {verdicts:?}");
    for verdict in expected {
        assert!(
            verdicts.get(*verdict).is_some_and(|count| *count >= 20),
            "too few of {verdict}: {verdicts:?}"
        );
    }
}

/// A test run does not tell where a frame is redirected to. But the programs take interface and Ethernet address of a pod
/// from one table entry, and no two pods share one. All else goes to the NIC or back; the system tests see it arrive.
fn assert_same_target(world: &World, verdict: Verdict, theirs: &[u8]) {
    let Verdict::Peer(ifindex) = verdict else {
        return;
    };
    let pods = world.memory.pods.values();
    let targets: Vec<_> = pods
        .filter(|pod| theirs.starts_with(&pod.mac.octets()))
        .map(|pod| pod.ifindex)
        .collect();
    assert_eq!(targets, [ifindex]);
}

const FROM_POD: [&str; 12] = [
    "arp_sender",
    "denied",
    "ethertype",
    "peer",
    "reply",
    "source_address",
    "source_mac",
    "stack",
    "wire",
    "wire, fragment",
    "wire, snat",
    "wire, tunnel",
];

const FROM_WIRE: [&str; 6] = [
    "stack",
    "peer",
    "peer, answer",
    "peer, fragment",
    "peer, quoted answer",
    "icmp_redirect",
];

#[test]
fn from_pod_agrees() {
    agree(
        program::FROM_POD,
        World::roomy(),
        &[FROM_POD.as_slice(), &["wireserver"]].concat(),
    );
}

#[test]
fn from_pod_and_from_wire_agree_while_somebody_listens() {
    let load = || {
        let mut kernel = Kernel::load();
        kernel.listen();
        kernel
    };
    agree_on(program::FROM_POD, load, World::roomy(), &FROM_POD);
    agree_on(
        program::FROM_WIRE,
        load,
        World::roomy(),
        &["peer", "peer, answer"],
    );
}

#[test]
fn from_pod_agrees_when_ports_run_out() {
    agree(program::FROM_POD, World::cramped(), &FROM_POD);
}

#[test]
fn from_pod_agrees_when_flows_are_full() {
    agree(
        program::FROM_POD,
        World::full(),
        &["stack", "reply", "wireserver"],
    );
}

#[test]
fn to_pod_agrees() {
    agree(program::TO_POD, World::roomy(), &["stack"]);
}

#[test]
fn from_wire_agrees() {
    agree(program::FROM_WIRE, World::roomy(), &FROM_WIRE);
}

#[test]
fn from_wire_agrees_when_flows_are_full() {
    agree(
        program::FROM_WIRE,
        World::full(),
        &["stack", "peer, answer", "icmp_redirect"],
    );
}

#[test]
fn to_wire_agrees() {
    agree(program::TO_WIRE, World::roomy(), &["stack"]);
}

#[test]
fn xdp_guard_agrees() {
    let _busy = QUIET.read();
    guard::agree(frames());
}

#[test]
#[ignore = "a measurement; cargo xtask check budget"]
fn every_verdict_is_within_its_budget() {
    let _quiet = QUIET.write();
    budget::check();
}

#[test]
fn every_verdict_and_drop_reason_has_a_cost_in_the_budget() {
    let _busy = QUIET.read();
    enter_new_namespace();
    let cases = cases(&mut Kernel::load(), &mut World::roomy());
    let reached = |program: &str, verdict: &str| {
        let mut cases = cases.iter();
        cases.any(|case| (case.program, case.verdict) == (program, verdict))
    };
    for (program, verdicts) in [
        (
            program::FROM_POD,
            [FROM_POD.as_slice(), &["wireserver"]].concat(),
        ),
        (program::FROM_WIRE, FROM_WIRE.to_vec()),
        (program::TO_POD, vec!["stack"]),
        (program::TO_WIRE, vec!["stack"]),
        (program::XDP_GUARD, guard::VERDICTS.to_vec()),
    ] {
        for verdict in verdicts {
            assert!(reached(program, verdict), "{program}, {verdict}: no case");
        }
    }
    for reason in DropReason::ALL.map(DropReason::name) {
        assert!(
            cases.iter().any(|case| case.verdict == reason),
            "{reason}: no case"
        );
    }
    let unbounded = budget::unbounded(&cases);
    assert!(
        unbounded.is_empty(),
        "not in bench/budget.json: {unbounded:?}"
    );
}

/// The other tests stop the programs' clock.
#[test]
fn the_programs_seconds_are_those_of_the_kernels_clock() {
    let _busy = QUIET.read();
    enter_new_namespace();
    let mut world = World::roomy();
    let mut kernel = Kernel::load();
    kernel.fill(&world);
    let (pod_end, remote) = ((POD, Port::from_u16(50_001)), (VNET, Port::from_u16(80)));
    let frame = tcp(remote.0, 80, pod_end.0, 50_001, ACK);
    let learn = |kernel: &Kernel| {
        kernel.run(program::TO_POD, &frame, World::ifindex(program::TO_POD));
    };
    // What is kept of a flow at one time says nothing of it at another.
    learn(&kernel);
    world.memory.config.as_mut().unwrap().ticks = hooks::ticks().unwrap();
    kernel.fill(&world);
    learn(&kernel);
    let key = flow_key(pod_end, remote, proto::TCP);
    let seen = kernel.maps.flows.get(&Abi(key), 0).unwrap().0.last_seen;
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap().tv_sec();
    // The kernel may have lost a second of ticks while it booted, and another second may just have begun.
    assert!((now - 2..=now).contains(&i64::from(seen)), "{seen}, {now}");
}

/// Half of what the kernel allows.
const MAX_INSTRUCTIONS: u32 = 500_000;

#[test]
fn no_program_is_too_much_for_the_verifier() {
    enter_new_namespace();
    for (name, instructions) in Kernel::load().verified_instructions() {
        println!("{name:<10} {instructions} instructions verified, {MAX_INSTRUCTIONS} at most");
        assert!(instructions <= MAX_INSTRUCTIONS, "{name}");
    }
}
