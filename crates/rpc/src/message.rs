//! Requests and replies.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::{CallReport, Endpoint, Key, MacAddr, Pools};

/// What the loader can be asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "request")]
pub enum Request {
    /// Is the data path ready for pods? Answered with [`Reply::Node`]; ADD asks before it touches anything.
    Node,
    /// Put the endpoint into the maps. The programs are attached already. Idempotent.
    Register(Endpoint),
    /// Take the endpoint out of the maps. Succeeds when it is not there, and leaves an address alone that has another
    /// owner by now.
    Unregister(Endpoint),
    /// Remove a host veth. Answered as soon as nobody sees it any more; the kernel's own waiting goes on behind the
    /// answer. Not there is success; an interface of that name with another index is left alone and refused.
    RemoveLink {
        /// Name of the host veth.
        name: String,
        /// Its index.
        index: u32,
    },
    /// Do maps and records agree about this attachment? For CHECK.
    Inspect {
        /// The attachment.
        key: Key,
    },
    /// The NIC's pools, read again from the wireserver first.
    RefreshPools,
    /// The classes of these destinations, or all prefixes when there are none. Answered with [`Reply::Classes`].
    Classes {
        /// Destinations.
        addresses: Vec<Ipv4Addr>,
    },
    /// Are the pods that are there connected as they should be? Answered with [`Reply::Health`].
    Health,
    /// Everything that `vnetctl status` shows.
    Status,
    /// A call of a plug-in is over: for the metrics. Whoever tells does not wait for the answer.
    Report(CallReport),
    /// The node is about to be left: whatever calls the runtime here stays away, until the loader starts again.
    Leave,
}

/// What the loader answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "reply")]
pub enum Reply {
    /// Done; nothing to tell.
    Done,
    /// To [`Request::Node`].
    Node(NodeView),
    /// To [`Request::RefreshPools`].
    Pools(Pools),
    /// To [`Request::Classes`].
    Classes {
        /// One for each address, or for each prefix, longest first.
        classes: Vec<Classified>,
    },
    /// To [`Request::Health`].
    Health {
        /// Why they may not be; nothing when all is well.
        limits: Vec<String>,
    },
    /// To [`Request::Status`].
    Status(Box<Status>),
    /// Not done.
    Refused(Refusal),
}

/// Why the loader did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{what}: {why}; {remedy}")]
pub struct Refusal {
    /// What failed.
    pub what: String,
    /// Why.
    pub why: String,
    /// What to do.
    pub remedy: String,
}

/// What ADD must know of the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct NodeView {
    /// The NIC that pods' traffic uses.
    pub nic: String,
    /// Its interface index.
    pub nic_ifindex: u32,
    /// Its Ethernet address.
    #[cfg_attr(feature = "schemars", schemars(with = "String"))]
    pub nic_mac: MacAddr,
    /// Its MTU in bytes; pods get the same.
    pub mtu: u32,
    /// Its primary address.
    pub primary: Ipv4Addr,
}

/// Answer to [`Request::Status`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct Status {
    /// Version of the loader.
    pub version: String,
    /// Layout version of the maps.
    pub abi_version: u32,
    /// Seconds since the loader started.
    pub uptime_s: u64,
    /// Whether this start took over programs and maps that an earlier one had left.
    pub adopted: bool,
    /// The node.
    pub node: NodeView,
    /// The configuration.
    pub config: ConfigView,
    /// First and last port of eBPF SNAT.
    pub nat_ports: (u16, u16),
    /// Where the address pools come from and how old they are, or why there are none.
    pub pools: Result<PoolView, String>,
    /// Attached programs.
    pub attached: Vec<Attached>,
    /// How full the tables are.
    pub tables: Vec<TableView>,
    /// The remote ends that take the most SNAT ports, busiest first.
    #[serde(default)]
    pub destinations: Vec<DestinationView>,
    /// Destination classes, longest prefix first.
    pub classes: Vec<ClassView>,
    /// Pods.
    pub pods: Vec<PodView>,
    /// `xdp_guard`.
    pub guard: GuardView,
    /// Packets dropped by reason; reasons with no packet are left out.
    pub drops: BTreeMap<String, Counted>,
    /// Leaked addresses that the loader has freed since it started.
    #[serde(default)]
    pub leaks_freed: u64,
    /// What keeps pods from being added, as `/readyz` says it.
    #[serde(default)]
    pub unready: Option<String>,
    /// What pods that are there lack, as the plug-in's STATUS says it.
    #[serde(default)]
    pub limits: Vec<String>,
    /// What the operator should know.
    pub warnings: Vec<String>,
}

/// The configuration in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct ConfigView {
    /// The files that were read; none means defaults.
    pub files: Vec<PathBuf>,
    /// Why files, as they are now, are not in force; the earlier configuration is.
    pub rejected: Vec<String>,
}

/// State of `xdp_guard`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct GuardView {
    /// `off`, `native`, or `refused`: asked for, and not running.
    pub mode: String,
    /// Prefixes of the deny list.
    pub denied: usize,
    /// Offloads of the NIC that it costs.
    pub lost: Vec<String>,
    /// What the operator should know of it.
    pub warning: Option<String>,
}

/// State of the pool cache.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct PoolView {
    /// `wireserver`.
    pub source: String,
    /// Seconds since the pools were read.
    pub age_s: u64,
    /// Secondary addresses in the pools.
    pub addresses: usize,
}

/// A program on an interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct Attached {
    /// Interface name.
    pub ifname: String,
    /// Program name.
    pub program: String,
}

/// Fill of a map.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct TableView {
    /// Map name.
    pub name: String,
    /// Entries in use; of `flows` and `snat` as of the last sweep, at most half a minute ago.
    pub used: u32,
    /// Entries that fit.
    pub capacity: u32,
}

/// A remote end that pods reach from SNAT ports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct DestinationView {
    /// Its address.
    pub address: Ipv4Addr,
    /// Its port; 0 for `icmp`.
    pub port: u16,
    /// `tcp`, `udp` or `icmp`.
    pub protocol: String,
    /// Ports of the primary address in use towards it, closing ones included.
    pub ports: u32,
}

/// One prefix of `dst4`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct ClassView {
    /// The prefix.
    #[cfg_attr(feature = "schemars", schemars(with = "String"))]
    pub prefix: Ipv4Net,
    /// Name of its class.
    pub class: String,
    /// Row of the table in docs/configuration.md that decides.
    pub row: u8,
    /// The key of a configuration file, or what the destination is.
    pub why: String,
    /// The configuration file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
}

/// Element of [`Reply::Classes`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct Classified {
    /// The destination that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<Ipv4Addr>,
    /// The prefix that decides, with its class.
    #[serde(flatten)]
    pub class: ClassView,
}

/// One pod.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct PodView {
    /// Kubernetes namespace.
    pub namespace: String,
    /// Kubernetes name.
    pub name: String,
    /// Address.
    pub address: Ipv4Addr,
    /// Host veth.
    pub host_ifname: String,
    /// Packets by path; paths with no packet are left out.
    pub paths: BTreeMap<String, Counted>,
}

/// Packets and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct Counted {
    /// Packets; a GSO super-packet counts as one.
    pub packets: u64,
    /// Bytes, Ethernet header included.
    pub bytes: u64,
}
