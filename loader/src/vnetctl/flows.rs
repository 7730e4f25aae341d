//! `vnetctl flows`: the flows whose side of the road is known, and why they take it.

use std::net::Ipv4Addr;

use abi::{Flow, FlowFlags, FlowKey, pins};
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
    /// At most so many, the latest first.
    #[arg(long, value_name = "ROWS", default_value_t = ROWS)]
    limit: usize,
}

/// Flows.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "documents", derive(schemars::JsonSchema))]
pub(crate) struct Flows {
    /// How many there are.
    pub total: usize,
    /// Those that are shown, the latest first.
    pub flows: Vec<FlowView>,
}

/// A flow, both directions.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "documents", derive(schemars::JsonSchema))]
pub(crate) struct FlowView {
    /// `tcp`, `udp` or `icmp`.
    pub protocol: String,
    /// Both ends; the first is a pod of this node if one of them is.
    pub ends: [End; 2],
    /// `stack`: the kernel owns it, both directions go through it. `inbound`: the other end opened it to the pod's own
    /// address. `fast`: neither.
    pub side: &'static str,
    /// What has been seen: `answered`, `lasting`, `fin`, `reset`.
    pub seen: Vec<&'static str>,
    /// Seconds since the last packet.
    pub idle_s: u32,
}

/// One end of a flow.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "documents", derive(schemars::JsonSchema))]
pub(crate) struct End {
    /// Address.
    pub address: Ipv4Addr,
    /// Port; of a ping, its identifier.
    pub port: u16,
    /// Namespace and name of the pod that has the address; empty when it is none of this node.
    pub pod: String,
}

pub(super) fn run(output: Output, arguments: &Arguments) -> anyhow::Result<()> {
    let pinned = Pinned::open()?;
    let of = arguments
        .pod
        .as_deref()
        .map(|pod| pinned.addresses_of(pod))
        .transpose()?;
    output.print(&flows(&pinned, of.as_deref(), arguments.limit)?, render)
}

pub(super) fn flows(
    pinned: &Pinned,
    of: Option<&[Ipv4Addr]>,
    limit: usize,
) -> anyhow::Result<Flows> {
    let (names, now) = (pinned.names(), now());
    let is_meant = |key: &FlowKey| {
        let ends = [Ipv4Addr::from(key.low), key.high.into()];
        of.is_none_or(|of| ends.iter().any(|end| of.contains(end)))
    };
    let entries = walk(pinned.maps.flows.iter(), pinned.capacity(pins::map::FLOWS)?);
    let mut all: Vec<(FlowKey, Flow)> = entries
        .context("read the pinned map `flows`")?
        .into_iter()
        .filter(|(key, _)| is_meant(key))
        .collect();
    all.sort_unstable_by_key(|(key, flow)| (now.since(flow.last_seen), *key));
    let total = all.len();
    all.truncate(limit);
    let end = |address: abi::Ip4, port: abi::Port| {
        let address = address.into();
        let pod = names.get(&address).cloned().unwrap_or_default();
        End {
            address,
            port: port.get(),
            pod,
        }
    };
    let view = |(key, flow): (FlowKey, Flow)| {
        let mut ends = [end(key.low, key.low_port), end(key.high, key.high_port)];
        ends.sort_by_key(|end| end.pod.is_empty());
        FlowView {
            protocol: protocol(key.proto),
            ends,
            side: side(flow.flags),
            seen: seen(flow.flags),
            idle_s: now.since(flow.last_seen),
        }
    };
    Ok(Flows {
        total,
        flows: all.into_iter().map(view).collect(),
    })
}

fn side(flags: FlowFlags) -> &'static str {
    if flags.contains(FlowFlags::VIA_STACK) {
        "stack"
    } else if flags.contains(FlowFlags::INBOUND) {
        "inbound"
    } else {
        "fast"
    }
}

fn seen(flags: FlowFlags) -> Vec<&'static str> {
    let fin = FlowFlags::FIN_FROM_LOW.with(FlowFlags::FIN_FROM_HIGH);
    let words = [
        (FlowFlags::ANSWERED, "answered"),
        (FlowFlags::LASTING, "lasting"),
        (fin, "fin"),
        (FlowFlags::RESET, "reset"),
    ];
    let said = words
        .into_iter()
        .filter(|(flag, _)| flags.intersects(*flag));
    said.map(|(_, word)| word).collect()
}

fn render(told: &Flows) -> String {
    let rows: Vec<[String; 7]> = told
        .flows
        .iter()
        .map(|flow| {
            let [one, other] = &flow.ends;
            let pods: Vec<&str> = flow.ends.iter().map(|end| end.pod.as_str()).collect();
            [
                flow.protocol.clone(),
                format!("{}:{}", one.address, one.port),
                format!("{}:{}", other.address, other.port),
                flow.side.to_owned(),
                duration(flow.idle_s.into()),
                flow.seen.join(" "),
                pods.join(" ").trim_end().to_owned(),
            ]
        })
        .collect();
    let heads = ["PROTO", "END", "OTHER END", "SIDE", "IDLE", "SEEN", "PODS"];
    table(heads, &rows) + &tail(told.flows.len(), told.total)
}
