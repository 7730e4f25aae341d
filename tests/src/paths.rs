//! Which way did a pod's packets take?

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::namespace::Namespace;
use crate::pod::Pod;
use crate::wait::eventually;

/// How long connections may take to close.
const PATIENCE: Duration = Duration::from_secs(5);
/// States of `/proc/net/tcp` in which nobody is about to send anything: established, time-wait, listening.
const QUIET: [&str; 3] = ["01", "06", "0A"];

impl Pod {
    /// Packets by path, as `vnetctl status` counts them.
    pub fn paths(&self) -> Result<BTreeMap<String, u64>> {
        let text = self.node().exec(&["vnetctl", "status", "-o", "json"])?;
        let status: Value = serde_json::from_str(&text).context("parse the status")?;
        let (pods, own) = (status.get("pods"), self.addr().to_string());
        let mut pods = pods.and_then(Value::as_array).into_iter().flatten();
        let pod = pods.find(|pod| pod.get("address").and_then(Value::as_str) == Some(&own));
        let paths = pod.and_then(|pod| pod.get("paths")?.as_object());
        let paths = paths.with_context(|| format!("the status has no pod {own}"))?;
        let packets = |counted: &Value| counted.get("packets").and_then(Value::as_u64);
        Ok(paths
            .iter()
            .map(|(path, counted)| (path.clone(), packets(counted).unwrap_or(0)))
            .collect())
    }
}

/// What `work` returns, and the ways that each pod's packets took meanwhile, the close of its connections included: names of
/// paths with a blank between them, in the order of the alphabet.
pub fn paths_during<T>(pods: &[&Pod], work: impl FnOnce() -> T) -> Result<(T, Vec<String>)> {
    let count = || -> Result<Vec<_>> { pods.iter().map(|pod| pod.paths()).collect() };
    // What is still closing from earlier belongs to nobody's count.
    pods.iter().try_for_each(|pod| closed(pod))?;
    let before = count()?;
    let done = work();
    for pod in pods {
        closed(pod)?;
    }
    let taken = |(before, after): (&BTreeMap<String, u64>, BTreeMap<String, u64>)| {
        let more = |(path, packets): (String, u64)| {
            (before.get(&path).copied().unwrap_or(0) < packets).then_some(path)
        };
        after
            .into_iter()
            .filter_map(more)
            .collect::<Vec<_>>()
            .join(" ")
    };
    Ok((done, before.iter().zip(count()?).map(taken).collect()))
}

/// Waits until no TCP connection of the namespace is about to open or to close.
fn closed(namespace: &Namespace) -> Result<()> {
    let quiet = || {
        let table = namespace
            .run(|| Ok(std::fs::read_to_string("/proc/thread-self/net/tcp")?))
            .ok()?;
        let mut states = table
            .lines()
            .skip(1)
            .filter_map(|line| line.split_whitespace().nth(3));
        states.all(|state| QUIET.contains(&state)).then_some(())
    };
    eventually(PATIENCE, quiet)
        .with_context(|| format!("connections of {} do not close", namespace.name()))
}
