//! The loader is killed, started again, upgraded and rolled back, again and again under load: nobody loses a packet.
#![cfg(test)]

use std::sync::atomic::AtomicBool;
use std::thread;

use lab::{Lab, Namespace, Node, Stop};

const PORT: u16 = 9000;
/// During an upgrade, new connections get ports of the kernel's, which has 4,535 for each of these, for two minutes each.
const OUTSIDE: [u16; 4] = [9002, 9003, 9004, 9005];
/// What passes, a second.
#[derive(Clone, Copy)]
struct Load {
    /// Datagrams to each of two servers.
    datagrams: u32,
    /// Connections to each of five.
    calls: u32,
    /// How many of a million of these may take longer than their SYN's first repetition.
    slow: u64,
    /// Whether nothing else runs here: then TCP sends nothing again but what we have lost.
    alone: bool,
    /// Whether new connections take the kernel's ports meanwhile.
    kernels_ports: bool,
}

const FULL: Load = Load {
    datagrams: 10_000,
    calls: u32::MAX,
    slow: 0,
    alone: true,
    kernels_ports: false,
};
/// When other tests run beside this one: no more datagrams than a busy CPU takes.
const BESIDE_OTHERS: Load = Load {
    datagrams: 1000,
    alone: false,
    ..FULL
};
/// For upgrades: no more connections than the kernel has ports for.
const FEW_CALLS: u32 = 300;
/// Connections that say nothing meanwhile, to each of two servers.
const IDLE: u32 = 50;
const HELD: u16 = 9001;

fn under_load(rounds: u32, load: Load, round: impl Fn(&Node)) {
    let lab = Lab::new().nodes(2).record(false).build().unwrap();
    for node in lab.nodes() {
        node.start_loader().unwrap();
    }
    let node = lab.node(1);
    let [talker, sender, caller, idler] =
        ["talker", "sender", "caller", "idler"].map(|name| node.add_pod(name).unwrap());
    let far = lab.node(2).add_pod("far").unwrap();
    let ends: [&Namespace; 4] = [&talker, &far, &caller, lab.inet()];
    for end in ends {
        // A probe for a loss at the tail is sent again, too, when a busy receiver takes its time.
        end.sysctl("net.ipv4.tcp_early_retrans", "0").unwrap();
    }
    let _echo = far.serve_echo(80).unwrap();
    let _close = far.serve_connect_close(PORT).unwrap();
    let _close_outside = OUTSIDE.map(|port| lab.inet().serve_connect_close(port).unwrap());
    let _held = far.serve_hold(HELD).unwrap();
    let _held_outside = lab.inet().serve_hold(HELD).unwrap();
    let (vnet, internet) = (far.addr(), lab.inet().addr());

    let mut idle = [vnet, internet].map(|server| idler.hold(server, HELD, IDLE).unwrap());
    let streams =
        [(vnet, 80), (internet, 8080)].map(|(server, port)| talker.stream(server, port).unwrap());
    let over = &AtomicBool::new(false);
    thread::scope(|scope| {
        // Whatever goes wrong here, the load ends.
        let stop = Stop(over);
        let datagrams = [(vnet, 80), (internet, 7)].map(|(server, port)| {
            let sender = &sender;
            scope.spawn(move || {
                sender
                    .udp_until(server, port, load.datagrams, over)
                    .unwrap()
            })
        });
        let outside = OUTSIDE.map(|port| (internet, port, "Internet"));
        let callees = [&[(vnet, PORT, "VNet")], &outside[..]].concat();
        let call = |(server, port, way)| {
            let caller = &caller;
            let call = move || {
                caller
                    .connect_close_paced(server, port, load.calls, over)
                    .unwrap()
            };
            (scope.spawn(call), way)
        };
        let calls: Vec<_> = callees.into_iter().map(call).collect();
        for _ in 0..rounds {
            round(node);
        }
        drop(stop);
        for (paced, way) in datagrams.into_iter().zip(["VNet", "Internet"]) {
            let paced = paced.join().unwrap();
            let rate = paced.rate();
            println!(
                "UDP, {way:<10} {} of {} lost, {rate:.0}/s",
                paced.sent - paced.received,
                paced.sent
            );
            // It catches up when it was late; a machine that is too slow for the load proves nothing.
            assert!(
                rate >= 0.95 * f64::from(load.datagrams),
                "UDP, {way}: {rate:.0}/s"
            );
            assert_eq!(paced.received, paced.sent, "UDP, {way}");
        }
        for (calls, way) in calls {
            let calls = calls.join().unwrap();
            println!(
                "calls, {way:<8} {} failed, {} slow, {} done",
                calls.failed, calls.slow, calls.done
            );
            assert_ne!(calls.done, 0, "connect/close, {way}");
            assert_eq!(calls.failed, 0, "connect/close, {way}: {calls:?}");
            let slow = u64::from(calls.slow) * 1_000_000;
            assert!(
                slow <= load.slow * u64::from(calls.done),
                "connect/close, {way}: {calls:?}"
            );
        }
    });
    for (end, calls) in ends.into_iter().zip([false, false, true, true]) {
        nothing_is_sent_again(end, load.alone && !(calls && load.kernels_ports));
    }
    for (stream, way) in streams.into_iter().zip(["VNet", "Internet"]) {
        let report = stream.finish().unwrap();
        println!(
            "TCP, {way:<10} {} resets, {} kB, longest pause {:?}",
            report.resets,
            report.bytes / 1024,
            report.longest_gap
        );
        assert_ne!(report.bytes, 0, "TCP stream, {way}");
        assert_eq!(report.resets, 0, "TCP stream, {way}: {report:?}");
    }
    for held in &mut idle {
        assert_eq!(held.failed, 0, "{:?}", held.first_failure);
        let (broken, wrong) = held.exchange(1).unwrap();
        println!("idle, {IDLE}: {broken} broken, {wrong} with a wrong peer");
        assert_eq!((broken, wrong), (0, 0));
    }
}

/// What a call sends again while tables move met a port of the kernel's that the server remembers (ADR 0015): told, not judged.
fn nothing_is_sent_again(end: &Namespace, is_judged: bool) {
    let again = end.tcp_counter("RetransSegs").unwrap();
    println!("{}: {again} segments sent again", end.name());
    assert!(again == 0 || !is_judged, "TCP of {}", end.name());
}

fn restart(node: &Node) {
    node.loader().kill9().unwrap();
    node.start_loader().unwrap();
}

/// To a build with other programs and three maps of another layout, and back.
fn upgrade_and_roll_back(node: &Node) {
    node.loader().kill9().unwrap();
    node.loader().start_next().unwrap();
    node.loader().kill9().unwrap();
    node.start_loader().unwrap();
}

#[test]
fn five_restarts_under_load_lose_nothing() {
    under_load(5, BESIDE_OTHERS, restart);
}

#[test]
fn three_upgrades_and_rollbacks_under_load_lose_nothing() {
    let load = Load {
        calls: FEW_CALLS,
        kernels_ports: true,
        ..BESIDE_OTHERS
    };
    under_load(3, load, upgrade_and_roll_back);
}

#[test]
#[ignore = "slow: 50 restarts; cargo xtask test load"]
fn fifty_restarts_under_load_lose_nothing() {
    under_load(50, FULL, restart);
}

#[test]
#[ignore = "slow: 50 upgrades and rollbacks; cargo xtask test load"]
fn fifty_upgrades_and_rollbacks_under_load_lose_nothing() {
    let load = Load {
        calls: FEW_CALLS,
        kernels_ports: true,
        ..FULL
    };
    under_load(50, load, upgrade_and_roll_back);
}

/// So that the kernel runs out of ports, as docs/adr/0015 says: a call may come a second late then, and none fails.
#[test]
#[ignore = "slow: 50 upgrades and rollbacks; cargo xtask test load"]
fn fifty_upgrades_with_more_calls_than_the_kernel_has_ports_break_nothing() {
    let load = Load {
        slow: 100,
        kernels_ports: true,
        ..FULL
    };
    under_load(50, load, upgrade_and_roll_back);
}
