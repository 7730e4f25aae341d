//! The loader is killed and started again and again under load: nobody loses a packet.
#![cfg(test)]

use std::sync::atomic::AtomicBool;
use std::thread;

use lab::{Lab, Stop};

const PORT: u16 = 9000;
/// Datagrams per second; when other tests run beside this one, so many that a busy CPU does not lose any.
const FULL_RATE: u32 = 10_000;
const BESIDE_OTHERS: u32 = 1000;

fn restarts_under_load(restarts: u32, rate: u32) {
    let lab = Lab::new().nodes(2).record(false).build().unwrap();
    for node in lab.nodes() {
        node.start_loader().unwrap();
    }
    let node = lab.node(1);
    let [talker, sender, caller] =
        ["talker", "sender", "caller"].map(|name| node.add_pod(name).unwrap());
    let far = lab.node(2).add_pod("far").unwrap();
    let _echo = far.serve_echo(80).unwrap();
    let _close = far.serve_connect_close(PORT).unwrap();
    let _close_outside = lab.inet().serve_connect_close(PORT).unwrap();
    let (vnet, internet) = (far.addr(), lab.inet().addr());

    let streams =
        [(vnet, 80), (internet, 8080)].map(|(server, port)| talker.stream(server, port).unwrap());
    let over = &AtomicBool::new(false);
    thread::scope(|scope| {
        // Whatever goes wrong here, the load ends.
        let stop = Stop(over);
        let datagrams = [(vnet, 80), (internet, 7)].map(|(server, port)| {
            let sender = &sender;
            scope.spawn(move || sender.udp_until(server, port, rate, over).unwrap())
        });
        let calls = [vnet, internet].map(|server| {
            let caller = &caller;
            scope.spawn(move || caller.connect_close_until(server, PORT, over).unwrap())
        });
        for _ in 0..restarts {
            node.loader().kill9().unwrap();
            node.start_loader().unwrap();
        }
        drop(stop);
        for (paced, way) in datagrams.into_iter().zip(["VNet", "Internet"]) {
            let paced = paced.join().unwrap();
            println!(
                "UDP, {way:<10} {} of {} lost",
                paced.sent - paced.received,
                paced.sent
            );
            assert_ne!(paced.sent, 0, "UDP, {way}");
            assert_eq!(paced.received, paced.sent, "UDP, {way}");
        }
        for (calls, way) in calls.into_iter().zip(["VNet", "Internet"]) {
            let calls = calls.join().unwrap();
            println!(
                "calls, {way:<8} {} failed, {} slow, {} done",
                calls.failed, calls.slow, calls.done
            );
            assert_ne!(calls.done, 0, "connect/close, {way}");
            let lost = (calls.failed, calls.slow);
            assert_eq!(lost, (0, 0), "connect/close, {way}: {calls:?}");
        }
    });
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
}

#[test]
fn five_restarts_under_load_lose_nothing() {
    restarts_under_load(5, BESIDE_OTHERS);
}

#[test]
#[ignore = "slow: 50 restarts; cargo xtask test load"]
fn fifty_restarts_under_load_lose_nothing() {
    restarts_under_load(50, FULL_RATE);
}
