//! Which way destinations go, and what follows when the configuration or the node changes.
#![cfg(test)]

mod config;
mod node;
mod reload;
mod vnetctl;

use std::net::Ipv4Addr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use lab::{Lab, Node, Pod, eventually};
use serde_json::Value;

const LOADER_YAML: &str = "/etc/azure-vnet/loader.yaml";
const MASQ_FILE: &str = "/etc/azure-vnet/masq/ip-masq-agent";
/// What a change may take, until the programs go by it.
const PROMPT: Duration = Duration::from_secs(1);
/// Long enough for a busy machine, and far less than the loader's own look at everything every 30 s.
const SOON: Duration = Duration::from_secs(10);

/// One node with this loader.yaml and a running loader.
fn lab(loader_yaml: &str) -> Lab {
    let lab = Lab::new().nodes(1).build().unwrap();
    lab.node(1).write(LOADER_YAML, loader_yaml).unwrap();
    lab.node(1).start_loader().unwrap();
    lab
}

/// How long it takes until `holds`.
#[track_caller]
fn soon(what: &str, mut holds: impl FnMut() -> bool) -> Duration {
    let started = Instant::now();
    let held = eventually(SOON, || holds().then_some(()));
    assert!(held.is_some(), "{what}: not after {SOON:?}");
    started.elapsed()
}

/// Makes a change and waits until it `holds`, for packets and in the kernel's tables, for which a busy machine may take seconds; how long
/// that took. By the loader's own clock, each change is prompt.
#[track_caller]
fn prompt(node: &Node, what: &str, change: impl FnOnce(), holds: impl FnMut() -> bool) -> Duration {
    // Times as `YYYY-MM-DDThh:mm:ss.mmm`, which are in order as texts are.
    let times = || -> Vec<String> {
        let log = node.loader().log();
        let lines = log.lines();
        let lines = lines.filter(|line| line.contains("destination classes changed"));
        lines.map(|line| line[..23].to_owned()).collect()
    };
    let earlier = times().len();
    let limit = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + PROMPT;
    change();
    let took = soon(what, holds);
    soon("the loader's word", || times().len() > earlier);
    let taken_over = times().pop().unwrap();
    let limit = rpc::utc(limit);
    assert!(taken_over < limit, "{what}: {taken_over}, after {limit}");
    took
}

/// The address by which on-premises, which accepts every source, sees the pod.
fn seen_on_premises(lab: &Lab, pod: &Pod) -> Ipv4Addr {
    pod.tcp(lab.onprem().addr(), 8080).unwrap().peer_ip()
}

fn status(node: &Node) -> Value {
    serde_json::from_str(&node.exec(&["vnetctl", "status", "-o", "json"]).unwrap()).unwrap()
}

/// Why the files are not in force.
fn rejected(node: &Node) -> String {
    let why = status(node)["config"]["rejected"]
        .as_array()
        .unwrap()
        .clone();
    why.iter()
        .map(|text| text.as_str().unwrap())
        .collect::<Vec<_>>()
        .join("\n")
}

fn warnings(node: &Node) -> String {
    status(node)["warnings"].to_string()
}

/// Class and reason of an address, as `vnetctl classes` prints them.
fn class(node: &Node, addr: &str) -> String {
    let table = node.exec(&["vnetctl", "classes", addr]).unwrap();
    let line = table.lines().nth(1).unwrap();
    line.split_whitespace()
        .skip(1)
        .collect::<Vec<_>>()
        .join(" ")
}
