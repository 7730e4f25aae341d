//! Which side of the road a flow takes, remembered under a key that both directions share.

use abi::{ConfigFlags, Flow, FlowFlags, FlowKey, Ip4, Port};

use crate::headers::{Ipv4, Kind, Transport};
use crate::{Seconds, Tables};

/// The key of the flow between two ends, the same for both directions.
#[inline(always)]
pub fn flow_key(a: (Ip4, Port), b: (Ip4, Port), proto: u8) -> FlowKey {
    let rank = |end: (Ip4, Port)| u64::from(end.0.to_bits()) << 16 | u64::from(end.1.get());
    let (low, high) = if rank(a) <= rank(b) { (a, b) } else { (b, a) };
    FlowKey::new(low, high, proto)
}

/// The key of the flow that a packet belongs to.
#[inline(always)]
pub(crate) fn key_of(ip: &Ipv4, transport: &Transport) -> FlowKey {
    flow_key((ip.src, transport.src), (ip.dst, transport.dst), ip.proto)
}

/// What is known of a packet's flow.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// Nothing: it may go fast.
    Unknown,
    /// The stack owns it.
    Stack,
    /// The remote end opened it to the pod's own address.
    Inbound,
}

/// Looks a flow up and refreshes its entry. A miss means "stack" while the table is above its high-water mark, because
/// then an owner may have been unable to write its entry.
#[inline(always)]
pub(crate) fn side(
    tables: &impl Tables,
    key: &FlowKey,
    transport: &Transport,
    full: bool,
    now: Seconds,
) -> Side {
    match tables.flow(key) {
        Some(flow) if flow.flags.contains(FlowFlags::VIA_STACK) => {
            refresh(tables, key, flow, transport, now);
            Side::Stack
        }
        Some(flow) if flow.flags.contains(FlowFlags::INBOUND) => {
            refresh(tables, key, flow, transport, now);
            Side::Inbound
        }
        Some(_) | None if full => Side::Stack,
        Some(_) | None => Side::Unknown,
    }
}

/// Whether the loader has seen `flows` above its high-water mark.
#[inline(always)]
pub(crate) fn is_full(flags: ConfigFlags) -> bool {
    flags.contains(ConfigFlags::FLOWS_FULL)
}

/// Remembers a fact about a flow. A full table loses it; the loader notices the fill and misses become "stack".
#[inline(always)]
pub(crate) fn learn(
    tables: &impl Tables,
    key: &FlowKey,
    fact: FlowFlags,
    transport: &Transport,
    now: Seconds,
) {
    let known = tables.flow(key);
    let old = match known {
        // A new connection on the same ports owes nothing to the old one.
        Some(flow) if !opens(transport) => flow,
        _ => Flow::new(FlowFlags::NONE, now.0),
    };
    let new = Flow::new(old.flags.with(fact).with(closing(transport)), now.0);
    if known != Some(new) {
        tables.put_flow(key, new);
    }
}

/// Writes the entry again at most once a second, or when the connection closes.
#[inline(always)]
fn refresh(tables: &impl Tables, key: &FlowKey, flow: Flow, transport: &Transport, now: Seconds) {
    let kept = if opens(transport) {
        flow.flags.without(FlowFlags::CLOSING)
    } else {
        flow.flags
    };
    let flags = kept.with(closing(transport));
    if flags != flow.flags || now.since(flow.last_seen) > 0 {
        tables.put_flow(key, Flow::new(flags, now.0));
    }
}

#[inline(always)]
fn opens(transport: &Transport) -> bool {
    matches!(transport.kind, Kind::Tcp(flags) if flags.opens())
}

#[inline(always)]
fn closing(transport: &Transport) -> FlowFlags {
    match transport.kind {
        Kind::Tcp(flags) if flags.fin() || flags.rst() => FlowFlags::CLOSING,
        Kind::Tcp(_)
        | Kind::Udp
        | Kind::EchoRequest
        | Kind::EchoReply
        | Kind::IcmpError
        | Kind::IcmpRedirect => FlowFlags::NONE,
    }
}
