//! `vnetctl snat`: who holds which ports of the primary address, and towards whom.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::Ipv4Addr;

use abi::{Binding, BindingKey, Ip4, Port, pins};
use anyhow::Context as _;
use serde::Serialize;

use super::output::{Output, table};
use super::pinned::{Pinned, ROWS, tail, walk};
use crate::gc::now;
use crate::words::{duration, protocol};

#[derive(Clone, Debug, clap::Args)]
pub(super) struct Arguments {
    /// Only this pod's: `NAMESPACE/NAME`, `NAME` or an address.
    pod: Option<String>,
    /// The N remote ends that take the most ports.
    #[arg(long, value_name = "N", conflicts_with = "pod")]
    top: Option<usize>,
    /// At most so many bindings, the latest first.
    #[arg(long, value_name = "ROWS", default_value_t = ROWS)]
    limit: usize,
}

/// Bindings.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "documents", derive(schemars::JsonSchema))]
pub(crate) struct Bindings {
    /// How many there are.
    pub total: usize,
    /// Those that are shown, the latest first.
    pub bindings: Vec<BindingView>,
}

/// A port of the primary address that stands for a pod's.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "documents", derive(schemars::JsonSchema))]
pub(crate) struct BindingView {
    /// Namespace and name; empty when no record tells.
    pub pod: String,
    /// Its address.
    pub address: Ipv4Addr,
    /// Its port, or identifier of a ping.
    pub port: u16,
    /// The port of the primary address.
    pub nat_port: u16,
    /// `tcp`, `udp` or `icmp`.
    pub protocol: String,
    /// The remote end.
    pub remote: Ipv4Addr,
    /// Its port; 0 for `icmp`.
    pub remote_port: u16,
    /// What has been seen of the connection.
    pub state: &'static str,
    /// Seconds since the last packet.
    pub idle_s: u32,
    /// Whether the pod is gone, so that the next sweep removes it.
    pub orphan: bool,
}

/// Remote ends.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "documents", derive(schemars::JsonSchema))]
pub(crate) struct RemoteEnds {
    /// How many there are.
    pub total: usize,
    /// Those that take the most ports.
    pub remote_ends: Vec<RemoteEnd>,
}

/// A remote end that pods reach from SNAT ports.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "documents", derive(schemars::JsonSchema))]
pub(crate) struct RemoteEnd {
    /// Its address.
    pub address: Ipv4Addr,
    /// Its port; 0 for `icmp`.
    pub port: u16,
    /// `tcp`, `udp` or `icmp`.
    pub protocol: String,
    /// Ports of the primary address in use towards it, closing ones included.
    pub ports: usize,
    /// Pods that use them.
    pub pods: usize,
}

pub(super) fn run(output: Output, arguments: &Arguments) -> anyhow::Result<()> {
    let pinned = Pinned::open()?;
    if let Some(most) = arguments.top {
        return output.print(&remote_ends(&pinned, most)?, render_ends);
    }
    let of = arguments
        .pod
        .as_deref()
        .map(|pod| pinned.addresses_of(pod))
        .transpose()?;
    output.print(&bindings(&pinned, of.as_deref(), arguments.limit)?, render)
}

fn read(pinned: &Pinned) -> anyhow::Result<BTreeMap<BindingKey, Binding>> {
    let capacity = pinned.capacity(pins::map::SNAT)?;
    walk(pinned.maps.snat.iter(), capacity).context("read the pinned map `snat`")
}

pub(super) fn bindings(
    pinned: &Pinned,
    of: Option<&[Ipv4Addr]>,
    limit: usize,
) -> anyhow::Result<Bindings> {
    let (names, pods, now) = (pinned.names(), pinned.pods()?, now());
    let mut all: Vec<_> = read(pinned)?
        .into_iter()
        .filter(|(_, binding)| of.is_none_or(|of| of.contains(&binding.pod.into())))
        .collect();
    all.sort_unstable_by_key(|(key, binding)| (now.since(binding.last_seen), *key));
    let total = all.len();
    all.truncate(limit);
    let view = |(key, binding): (BindingKey, Binding)| {
        let address = Ipv4Addr::from(binding.pod);
        let owner = pods.get(&binding.pod);
        BindingView {
            pod: names.get(&address).cloned().unwrap_or_default(),
            address,
            port: binding.pod_port.get(),
            nat_port: key.nat_port.get(),
            protocol: protocol(key.proto),
            remote: key.remote.into(),
            remote_port: key.remote_port.get(),
            state: binding.state().name(),
            idle_s: now.since(binding.last_seen),
            orphan: owner.is_none_or(|pod| pod.generation != binding.generation),
        }
    };
    Ok(Bindings {
        total,
        bindings: all.into_iter().map(view).collect(),
    })
}

pub(super) fn remote_ends(pinned: &Pinned, most: usize) -> anyhow::Result<RemoteEnds> {
    let mut ends: HashMap<(Ip4, Port, u8), (usize, HashSet<Ip4>)> = HashMap::new();
    for (key, binding) in read(pinned)? {
        let end = (key.remote, key.remote_port, key.proto);
        let (ports, pods) = ends.entry(end).or_default();
        *ports += 1;
        pods.insert(binding.pod);
    }
    let mut all: Vec<_> = ends.into_iter().collect();
    all.sort_unstable_by_key(|(end, (ports, _))| (std::cmp::Reverse(*ports), *end));
    let total = all.len();
    all.truncate(most);
    let view =
        |((address, port, proto), (ports, pods)): ((Ip4, Port, u8), (usize, HashSet<Ip4>))| {
            RemoteEnd {
                address: address.into(),
                port: port.get(),
                protocol: protocol(proto),
                ports,
                pods: pods.len(),
            }
        };
    Ok(RemoteEnds {
        total,
        remote_ends: all.into_iter().map(view).collect(),
    })
}

fn render(told: &Bindings) -> String {
    let rows: Vec<[String; 7]> = told
        .bindings
        .iter()
        .map(|one| {
            let orphan = if one.orphan { " (pod is gone)" } else { "" };
            [
                one.protocol.clone(),
                format!("{}:{}", one.address, one.port),
                one.nat_port.to_string(),
                format!("{}:{}", one.remote, one.remote_port),
                duration(one.idle_s.into()),
                one.state.to_owned(),
                format!("{}{orphan}", one.pod),
            ]
        })
        .collect();
    let heads = ["PROTO", "FROM", "PORT", "TO", "IDLE", "STATE", "POD"];
    table(heads, &rows) + &tail(told.bindings.len(), told.total)
}

fn render_ends(told: &RemoteEnds) -> String {
    let rows: Vec<[String; 4]> = told
        .remote_ends
        .iter()
        .map(|end| {
            [
                end.ports.to_string(),
                end.pods.to_string(),
                end.protocol.clone(),
                format!("{}:{}", end.address, end.port),
            ]
        })
        .collect();
    table(["PORTS", "PODS", "PROTO", "TO"], &rows)
}
