//! A node that restarts all its pods: 250 ADDs at the same moment, then 250 DELs.
#![cfg(test)]

use std::collections::BTreeSet;
use std::time::Duration;

use lab::libcni::{Network, Verb, outcome};
use lab::{Lab, Pod, at_once};
use serde_json::Value;

/// As many as Azure allows on a node.
const PODS: u16 = 250;
/// On two cores that do nothing else.
const LIMIT: Duration = Duration::from_secs(5);
/// So many times longer it may take beside other tests.
const BESIDE_OTHERS: u32 = 6;

/// `verb` for all pods at the same moment: what each printed, and the time until the last one had ended.
fn all_at_once(pods: &[Pod], network: &Network, verb: Verb) -> (Vec<Option<Value>>, Duration) {
    let (done, took) = at_once(pods, |pod| {
        let done = pod.call(network, verb)?;
        outcome("azure-vnet", &done)
    });
    let failed: Vec<String> = done
        .iter()
        .filter_map(|done| Some(format!("{:#}", done.as_ref().err()?)))
        .collect();
    println!(
        "{} {}s at once: {} errors, {took:.2?}",
        pods.len(),
        verb.name(),
        failed.len()
    );
    assert_eq!(failed, Vec::<String>::new());
    (done.into_iter().map(Result::unwrap).collect(), took)
}

fn pods_come_and_go_at_once(limit: Duration) {
    let lab = Lab::new()
        .nodes(1)
        .secondaries(PODS)
        .record(false)
        .build()
        .unwrap();
    let node = lab.node(1);
    node.start_loader().unwrap();
    let network = node.network().unwrap();
    let pods: Vec<Pod> = (0..PODS)
        .map(|number| node.new_netns(&format!("pod{number}")).unwrap())
        .collect();
    let before = node.snapshot().unwrap();

    let (results, adding) = all_at_once(&pods, &network, Verb::Add);
    let given: BTreeSet<String> = results
        .into_iter()
        .map(|result| result.unwrap()["ips"][0]["address"].to_string())
        .collect();
    assert_eq!(given.len(), pods.len(), "an address each");
    let registered = node.status().unwrap()["pods"].as_array().unwrap().len();
    assert_eq!(registered, pods.len());
    for pod in pods.iter().step_by(50) {
        let seen = pod.tcp(lab.inet().addr(), 8080).unwrap();
        assert_eq!(seen.peer_ip(), node.addr());
    }

    let (_, deleting) = all_at_once(&pods, &network, Verb::Del);
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
            took <= limit,
            "{} {verb}s at once took {took:?}",
            pods.len()
        );
    }
}

#[test]
fn two_hundred_and_fifty_pods_come_and_go_at_once() {
    pods_come_and_go_at_once(LIMIT * BESIDE_OTHERS);
}

#[test]
#[ignore = "measures; cargo xtask test load"]
fn two_hundred_and_fifty_pods_come_and_go_at_once_within_five_seconds_each() {
    pods_come_and_go_at_once(LIMIT);
}
