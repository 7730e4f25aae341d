//! `vnetctl endpoints`: the pods of this node, and whether all of each is there.

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::time::{Duration, SystemTime};

use abi::{IfIndex, Ip4, Pod};
use anyhow::{Context as _, ensure};
use hooks::{Hook, Pins};
use rpc::{Counted, Endpoint, RunDirectory};
use serde::Serialize;

use super::output::{Output, table};
use super::pinned::Pinned;
use crate::nic::ifname;
use crate::podname;
use crate::status::paths;
use crate::words::duration;

/// A pod's attachment.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "documents", derive(schemars::JsonSchema))]
pub(crate) struct EndpointView {
    /// Kubernetes namespace and name; empty when no record tells.
    pub pod: String,
    /// Its address.
    pub address: Ipv4Addr,
    /// What is missing; nothing of a pod that is whole.
    pub missing: Vec<String>,
    /// Name of the host veth; empty when it is gone.
    pub host_ifname: String,
    /// Its index.
    pub host_ifindex: u32,
    /// Seconds since it was added.
    pub age_s: Option<u64>,
    /// SNAT bindings that it holds open.
    pub open_bindings: u32,
    /// Packets by path; paths with no packet are left out.
    pub paths: BTreeMap<String, Counted>,
    /// What the record tells.
    pub record: Option<RecordView>,
}

/// What only a pod's record tells.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "documents", derive(schemars::JsonSchema))]
pub(crate) struct RecordView {
    /// Name of the network.
    pub network: String,
    /// The runtime's ID.
    pub container_id: String,
    /// Name of the interface in the pod.
    pub ifname: String,
    /// The pod's network namespace.
    pub netns: String,
    /// `mode` of the conflist.
    pub mode: String,
    /// Ethernet address of the pod's interface.
    pub mac: String,
}

pub(super) fn run(output: Output) -> anyhow::Result<()> {
    let endpoints = read(&Pinned::open()?)?;
    output.print(endpoints.as_slice(), |endpoints| {
        if output.is_wide() {
            render_wide(endpoints)
        } else {
            render(endpoints)
        }
    })?;
    let broken = endpoints.iter().filter(|one| !one.missing.is_empty());
    let broken = broken.count();
    ensure!(
        broken == 0,
        "{broken} pods are not whole; `vnetctl doctor` says what to do"
    );
    Ok(())
}

/// Every record and every pod in the maps, by address.
pub(super) fn read(pinned: &Pinned) -> anyhow::Result<Vec<EndpointView>> {
    let pods = pinned.pods()?;
    let recorded = pinned
        .records
        .iter()
        .map(|record| (Ip4::from(record.address.addr()), Some(record)));
    let mut all: BTreeMap<Ip4, Option<&Endpoint>> = pods.keys().map(|addr| (*addr, None)).collect();
    all.extend(recorded);
    let views = all.into_iter();
    views
        .map(|(addr, record)| view(pinned, addr, pods.get(&addr), record))
        .collect()
}

fn view(
    pinned: &Pinned,
    addr: Ip4,
    pod: Option<&Pod>,
    record: Option<&Endpoint>,
) -> anyhow::Result<EndpointView> {
    let index = record.map_or_else(
        || pod.map_or(0, |pod| pod.ifindex.get()),
        |record| record.host_ifindex,
    );
    let (mut open_bindings, mut counted) = (0, BTreeMap::new());
    if let Some(pod) = pod {
        open_bindings = pinned
            .maps
            .snat_open
            .get(&pod.slot.index(), 0)
            .context("read `snat_open`")?;
        counted = paths(&pinned.maps, pod.slot).context("read `stats`")?;
    }
    Ok(EndpointView {
        pod: record.map_or_else(String::new, podname::name),
        address: addr.into(),
        missing: missing(&pinned.pins, index, pod, record),
        host_ifname: ifname(index).unwrap_or_default(),
        host_ifindex: index,
        age_s: record.and_then(age).map(|age| age.as_secs()),
        open_bindings,
        paths: counted,
        record: record.map(RecordView::of),
    })
}

/// What a whole pod would have.
fn missing(pins: &Pins, index: u32, pod: Option<&Pod>, record: Option<&Endpoint>) -> Vec<String> {
    let mut missing = Vec::new();
    if record.is_none() {
        missing.push("record".to_owned());
    }
    if pod.is_none_or(|pod| pod.ifindex != IfIndex::new(index)) {
        missing.push("entry in map `pods`".to_owned());
    }
    let Some(veth) = ifname(index) else {
        missing.push("host veth".to_owned());
        return missing;
    };
    let absent = Hook::POD
        .into_iter()
        .filter(|hook| !hooks::runs(pins, *hook, &veth));
    missing.extend(absent.map(|hook| format!("program {}", hook.program)));
    missing
}

/// How long ago ADD wrote the record.
fn age(record: &Endpoint) -> Option<Duration> {
    let file = format!("{}.json", record.key.file_name());
    let path = RunDirectory::default().endpoints().join(file);
    let written = fs::metadata(path).and_then(|meta| meta.modified()).ok()?;
    SystemTime::now().duration_since(written).ok()
}

impl RecordView {
    fn of(record: &Endpoint) -> Self {
        Self {
            network: record.key.network.clone(),
            container_id: record.key.container_id.clone(),
            ifname: record.key.ifname.clone(),
            netns: record.netns.clone(),
            mode: record.mode.clone(),
            mac: record.mac.to_string(),
        }
    }
}

impl EndpointView {
    fn state(&self) -> String {
        match self.missing.as_slice() {
            [] => "ok".to_owned(),
            missing => format!("NO {}", missing.join(", ")),
        }
    }

    fn age(&self) -> String {
        self.age_s.map_or_else(|| "?".to_owned(), duration)
    }
}

fn render(endpoints: &[EndpointView]) -> String {
    let rows: Vec<[String; 6]> = endpoints
        .iter()
        .map(|one| {
            [
                one.pod.clone(),
                one.address.to_string(),
                one.host_ifname.clone(),
                one.age(),
                one.open_bindings.to_string(),
                one.state(),
            ]
        })
        .collect();
    table(
        ["POD", "ADDRESS", "HOST VETH", "AGE", "SNAT", "STATE"],
        &rows,
    )
}

fn render_wide(endpoints: &[EndpointView]) -> String {
    let of = |one: &EndpointView, tell: fn(&RecordView) -> &String| {
        one.record.as_ref().map(tell).cloned().unwrap_or_default()
    };
    let rows: Vec<[String; 12]> = endpoints
        .iter()
        .map(|one| {
            let paths = one
                .paths
                .iter()
                .map(|(path, count)| format!("{path} {}", count.packets));
            let paths: Vec<String> = paths.collect();
            [
                one.pod.clone(),
                one.address.to_string(),
                format!("{} ({})", one.host_ifname, one.host_ifindex),
                one.age(),
                one.open_bindings.to_string(),
                of(one, |record| &record.network),
                of(one, |record| &record.mode),
                of(one, |record| &record.mac),
                of(one, |record| &record.container_id),
                of(one, |record| &record.netns),
                paths.join(", "),
                one.state(),
            ]
        })
        .collect();
    let heads = [
        "POD",
        "ADDRESS",
        "HOST VETH",
        "AGE",
        "SNAT",
        "NETWORK",
        "MODE",
        "MAC",
        "CONTAINER",
        "NETNS",
        "PACKETS",
        "STATE",
    ];
    table(heads, &rows)
}
