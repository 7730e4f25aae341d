//! A node that restarts all its pods: 250 ADDs at the same moment, a loader that starts again, then 250 DELs.
#![cfg(test)]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use lab::libcni::{Network, Verb, outcome};
use lab::{Lab, Node, Pod, at_once};
use serde_json::Value;

/// As many as Azure allows on a node.
const PODS: u16 = 250;
/// On two cores that do nothing else.
const LIMIT: Duration = Duration::from_secs(5);
/// From the start of the loader until it says that it is ready, with [`PODS`].
const START: Duration = Duration::from_secs(1);
/// So many times longer it may take beside other tests.
const BESIDE_OTHERS: u32 = 6;

/// `verb` for all pods, so many at the same moment: what each printed, and the longest time until the last one had ended.
fn all(
    pods: &[Pod],
    at_a_time: usize,
    network: &Network,
    verb: Verb,
) -> (Vec<Option<Value>>, Duration) {
    let mut printed = Vec::new();
    let mut failed = Vec::new();
    let mut longest = Duration::ZERO;
    for some in pods.chunks(at_a_time) {
        let (done, took) = at_once(some, |pod| {
            let done = pod.call(network, verb)?;
            outcome("azure-vnet", &done)
        });
        longest = longest.max(took);
        for done in done {
            match done {
                Ok(done) => printed.push(done),
                Err(error) => failed.push(format!("{error:#}")),
            }
        }
    }
    println!(
        "{} {}s, {at_a_time} at once: {} errors, {longest:.2?}",
        pods.len(),
        verb.name(),
        failed.len()
    );
    assert_eq!(failed, Vec::<String>::new());
    (printed, longest)
}

/// How long the loader takes to start again, once killed.
fn start_again(node: &Node) -> Duration {
    node.loader().kill9().unwrap();
    let begun = Instant::now();
    node.start_loader().unwrap();
    let took = begun.elapsed();
    println!("the loader starts again: {took:.2?}");
    took
}

fn pods_come_and_go(count: u16, at_a_time: usize, times: u32) {
    let lab = Lab::new().nodes(1).secondaries(count).record(false);
    let lab = lab.build().unwrap();
    let node = lab.node(1);
    node.start_loader().unwrap();
    let network = node.network().unwrap();
    let pods: Vec<Pod> = (0..count)
        .map(|number| node.new_netns(&format!("pod{number}")).unwrap())
        .collect();
    let before = node.snapshot().unwrap();

    let (results, adding) = all(&pods, at_a_time, &network, Verb::Add);
    let given: BTreeSet<String> = results
        .into_iter()
        .map(|result| result.unwrap()["ips"][0]["address"].to_string())
        .collect();
    assert_eq!(given.len(), pods.len(), "an address each");
    let registered = node.status().unwrap()["pods"].as_array().unwrap().len();
    assert_eq!(registered, pods.len());
    for pod in pods.iter().step_by(pods.len() / 5) {
        let seen = pod.tcp(lab.inet().addr(), 8080).unwrap();
        assert_eq!(seen.peer_ip(), node.addr());
    }

    let starting = start_again(node);
    let kept = node.status().unwrap()["pods"].as_array().unwrap().len();
    assert_eq!(kept, pods.len());

    let (_, deleting) = all(&pods, at_a_time, &network, Verb::Del);
    // Leases, records, links, routes, entries of the maps.
    assert_eq!(before.left(&node.snapshot().unwrap()), Vec::<String>::new());
    let resting = node.exec(&["ls", "/run/azure-vnet/ipam/released"]).unwrap();
    assert_eq!(
        resting.lines().count(),
        pods.len(),
        "free, after their rest"
    );
    for (verb, took) in [("ADD", adding), ("DEL", deleting)] {
        assert!(
            took <= LIMIT * times,
            "{at_a_time} {verb}s at once took {took:?}"
        );
    }
    let enough = START * times * u32::from(count.div_ceil(PODS));
    assert!(
        starting <= enough,
        "with {count} pods, a start took {starting:?}"
    );
}

#[test]
fn two_hundred_and_fifty_pods_come_and_go_at_once() {
    pods_come_and_go(PODS, PODS.into(), BESIDE_OTHERS);
}

#[test]
#[ignore = "measures; cargo xtask test load"]
fn two_hundred_and_fifty_pods_come_and_go_at_once_within_five_seconds_each() {
    pods_come_and_go(PODS, PODS.into(), 1);
}

#[test]
#[ignore = "slow: a thousand namespaces; cargo xtask test load"]
fn a_node_holds_a_thousand_attachments() {
    pods_come_and_go(1000, 50, 1);
}
