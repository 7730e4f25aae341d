//! ADD and DEL, again and again: how long they take, and what they leave after thousands.
#![cfg(test)]

use std::fs;
use std::time::{Duration, Instant};

use lab::libcni::{CNI_PATH, Network, Verb, exec, outcome};
use lab::{Lab, Node, Pod, at_once, eventually, percentiles};

const PLUGIN: &str = "azure-vnet";
/// Pairs between two looks at the descriptors; their addresses fit into the NIC's while all of them rest.
const BATCH: usize = 500;
/// How many come and go beside each other.
const WORKERS: usize = 2;

fn lab() -> Lab {
    let lab = Lab::new()
        .nodes(1)
        .secondaries(1000)
        .record(false)
        .build()
        .unwrap();
    lab.node(1).start_loader().unwrap();
    lab
}

fn timed(pod: &Pod, network: &Network, verb: Verb) -> Duration {
    let done = pod.call(network, verb).unwrap();
    outcome(PLUGIN, &done).unwrap();
    done.elapsed
}

fn version_times(node: &Node, plugin: &str, count: usize) -> Vec<Duration> {
    let environment = [("CNI_COMMAND", "VERSION".to_owned())];
    (0..count)
        .map(|_| {
            let done = exec(node, plugin, &environment, b"").unwrap();
            assert!(done.status.success());
            done.elapsed
        })
        .collect()
}

/// `pairs` of ADD and DEL in the same namespaces, each for a container of its own.
fn pairs_leave_nothing(pairs: usize) {
    let lab = lab();
    let node = lab.node(1);
    let network = node.network().unwrap();
    let pods: Vec<Pod> = (0..WORKERS)
        .map(|worker| node.new_netns(&format!("worker{worker}")).unwrap())
        .collect();
    let come_and_go = |pod: &Pod, count: usize, batch: usize| {
        let mut attachment = pod.attachment().clone();
        for round in 0..count {
            attachment.container_id = format!("{}-{batch}-{round}", pod.container_id());
            for verb in [Verb::Add, Verb::Del] {
                let done = network.first(node, verb, &attachment).unwrap();
                outcome(PLUGIN, &done).unwrap_or_else(|error| panic!("round {round}: {error:#}"));
            }
        }
    };
    // What the first pod makes the loader open stays open.
    come_and_go(&pods[0], 1, 0);
    let before = node.snapshot().unwrap();
    let descriptors = node.loader().descriptors().unwrap();
    let started = Instant::now();
    let mut done = 0;
    while done < pairs {
        let each = BATCH.min(pairs - done).div_ceil(WORKERS);
        at_once(&pods, |pod| come_and_go(pod, each, done + 1));
        done += each * WORKERS;
        node.end_rest().unwrap();
        // The thread that waits for the kernel to remove the last link ends after its DEL.
        let open = || Some(node.loader().descriptors().unwrap()).filter(|now| *now <= descriptors);
        eventually(Duration::from_secs(10), open).unwrap_or_else(|| {
            let now = node.loader().descriptors().unwrap();
            panic!("the loader has {now} descriptors open after {done} pairs, not {descriptors}")
        });
        assert_eq!(before.left(&node.snapshot().unwrap()), Vec::<String>::new());
    }
    println!(
        "{done} pairs of ADD and DEL in {:.0?}: nothing left, {descriptors} descriptors of the loader as before",
        started.elapsed()
    );
}

#[test]
fn two_hundred_pairs_leave_nothing() {
    pairs_leave_nothing(200);
}

/// `LAB_PAIRS` asks for another number.
#[test]
#[ignore = "slow: minutes; cargo xtask test load"]
fn twenty_thousand_pairs_leave_nothing() {
    let pairs = std::env::var("LAB_PAIRS").map_or(20_000, |count| count.parse().unwrap());
    pairs_leave_nothing(pairs);
}

/// Row 4 and the limits, which are `slack` times longer beside other tests.
fn they_are_small_and_quick(pairs: usize, slack: u32) {
    let lab = lab();
    let node = lab.node(1);
    let network = node.network().unwrap();
    let (mut adds, mut dels) = (Vec::new(), Vec::new());
    for number in 0..pairs {
        let pod = node.new_netns(&format!("pod{number}")).unwrap();
        adds.push(timed(&pod, &network, Verb::Add));
        dels.push(timed(&pod, &network, Verb::Del));
        pod.remove_netns().unwrap();
    }
    let plugins = [PLUGIN, "azure-vnet-ipam"];
    let [main, ipam] = plugins.map(|plugin| version_times(node, plugin, pairs));
    let mut late = Vec::new();
    for (what, times, most) in [
        ("ADD", adds, [10, 25]),
        ("DEL", dels, [10, 25]),
        ("VERSION of azure-vnet", main, [2, 10]),
        ("VERSION of azure-vnet-ipam", ipam, [2, 10]),
    ] {
        let found = percentiles(times, [50, 99]);
        println!("{what:<26} p50 {:>7.2?}  p99 {:>7.2?}", found[0], found[1]);
        let most = most.map(|ms| Duration::from_millis(ms) * slack);
        if found[0] > most[0] || found[1] > most[1] {
            late.push(format!("{what}: {found:?}, at most {most:?}"));
        }
    }
    for plugin in plugins {
        let path = format!("{CNI_PATH}/{plugin}");
        let bytes = node.run(|| Ok(fs::metadata(&path)?.len())).unwrap();
        println!("{plugin:<26} {bytes} bytes");
        assert!(bytes <= 5_000_000, "{plugin}: {bytes}");
    }
    assert_eq!(late, Vec::<String>::new());
}

#[test]
fn the_plugins_are_small_and_quick() {
    they_are_small_and_quick(30, 20);
}

#[test]
#[ignore = "measures; cargo xtask test load"]
fn add_and_del_take_ten_milliseconds_and_version_two() {
    they_are_small_and_quick(500, 1);
}
