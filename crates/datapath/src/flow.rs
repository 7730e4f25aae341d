//! Which side of the road a flow takes, remembered under a key that both directions share.

use abi::{Config, ConfigFlags, Flow, FlowFlags, FlowKey, Ip4, Port};

use crate::headers::{Ipv4, Kind, Transport};
use crate::icmp_error::Quoted;
use crate::{Seconds, Tables};

/// The key of the flow between two ends, the same for both directions.
#[inline(always)]
pub fn flow_key(a: (Ip4, Port), b: (Ip4, Port), proto: u8) -> FlowKey {
    let rank = |end: (Ip4, Port)| u64::from(end.0.to_bits()) << 16 | u64::from(end.1.get());
    let (low, high) = if rank(a) <= rank(b) { (a, b) } else { (b, a) };
    FlowKey::new(low, high, proto)
}

/// A packet of a flow: which flow, from which of its ends, and what the packet is.
#[derive(Clone, Copy)]
pub(crate) struct Seen {
    key: FlowKey,
    from_low: bool,
    kind: Kind,
}

impl Seen {
    /// The flow that the packet belongs to.
    #[inline(always)]
    pub(crate) fn of(ip: &Ipv4, transport: &Transport) -> Self {
        let (src, dst) = ((ip.src, transport.src), (ip.dst, transport.dst));
        let key = flow_key(src, dst, ip.proto);
        Self {
            from_low: (key.low, key.low_port) == src,
            key,
            kind: transport.kind,
        }
    }

    /// The flow that an ICMP error is about.
    #[inline(always)]
    pub(crate) fn about(quoted: &Quoted) -> Self {
        Self {
            key: flow_key(quoted.src, quoted.dst, quoted.proto),
            from_low: false,
            kind: Kind::IcmpError,
        }
    }

    /// The first segment of a TCP connection.
    #[inline(always)]
    fn opens(&self) -> bool {
        matches!(self.kind, Kind::Tcp(flags) if flags.opens())
    }

    /// What is known of a flow once the packet has been seen.
    #[inline(always)]
    fn advance(&self, flow: Flow, now: Seconds) -> FlowFlags {
        let flags = flow.flags;
        let Kind::Tcp(tcp) = self.kind else {
            return if now.since(flow.last_seen) > 0 {
                flags.with(FlowFlags::LASTING)
            } else {
                flags
            };
        };
        if tcp.opens() {
            return flags
                .without(FlowFlags::CLOSING)
                .without(FlowFlags::ANSWERED);
        }
        if tcp.rst() {
            return flags.without(FlowFlags::DOUBTED).with(FlowFlags::RESET);
        }
        // RST may be forged, or out of the window (RFC 5961); then the connection lives on, here and in netfilter.
        let flags = if flags.contains(FlowFlags::RESET) {
            flags.with(FlowFlags::DOUBTED)
        } else {
            flags
        };
        let flags = if tcp.syn() {
            flags
        } else {
            flags.with(FlowFlags::ANSWERED)
        };
        match (tcp.fin(), self.from_low) {
            (true, true) => flags.with(FlowFlags::FIN_FROM_LOW),
            (true, false) => flags.with(FlowFlags::FIN_FROM_HIGH),
            (false, _) => flags,
        }
    }
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

/// Whether the flow is the stack's and its entry would stay as it is, by what this CPU has seen of it in this very second:
/// most packets of a connection need no more than that. One that is about to end may be another one by now, which another
/// CPU has seen begin.
#[inline(always)]
pub(crate) fn is_stacks_still(tables: &impl Tables, seen: &Seen, now: Seconds) -> bool {
    !seen.opens()
        && tables.recent_flow(&seen.key).is_some_and(|flow| {
            flow.last_seen == now.0
                && !flow.flags.intersects(FlowFlags::CLOSING)
                && seen.advance(flow, now) == flow.flags
        })
}

/// Looks a flow up and refreshes its entry.
#[inline(always)]
pub(crate) fn known_side(tables: &impl Tables, seen: &Seen, now: Seconds) -> Side {
    match tables.flow(&seen.key) {
        Some((flow, entry)) if flow.flags.contains(FlowFlags::VIA_STACK) => {
            refresh(tables, seen, (flow, entry), now);
            Side::Stack
        }
        Some((flow, entry)) if flow.flags.contains(FlowFlags::INBOUND) => {
            refresh(tables, seen, (flow, entry), now);
            Side::Inbound
        }
        Some(_) | None => Side::Unknown,
    }
}

/// The same, but a miss means "stack" while the table is full, because then an owner may have been unable to write its
/// entry.
#[inline(always)]
pub(crate) fn side(tables: &impl Tables, seen: &Seen, config: &Config, now: Seconds) -> Side {
    match known_side(tables, seen, now) {
        Side::Unknown if is_full(tables, config) => Side::Stack,
        side @ (Side::Unknown | Side::Stack | Side::Inbound) => side,
    }
}

/// Whether a flow that is not in `flows` may be one that did not fit: the loader has seen the table above its high-water
/// mark, or a flow has found no room since the loader last made up for such flows.
#[inline(always)]
pub(crate) fn is_full(tables: &impl Tables, config: &Config) -> bool {
    config.flags.contains(ConfigFlags::FLOWS_FULL)
        || config.flags.contains(ConfigFlags::STACK)
        || tables.lost_flows() != config.flows_lost
}

/// Remembers a fact about a flow. When there is no room, every miss is "stack" from now on, before this very packet
/// leaves the node and can be answered. Whether the fact is remembered.
#[inline(always)]
pub(crate) fn learn(tables: &impl Tables, seen: &Seen, fact: FlowFlags, now: Seconds) -> bool {
    learn_if(tables, seen, fact, now, || true)
}

/// The same if the flow is known for the fact already, which is asked first, or if the fact `holds`.
#[inline(always)]
pub(crate) fn learn_if(
    tables: &impl Tables,
    seen: &Seen,
    fact: FlowFlags,
    now: Seconds,
    holds: impl FnOnce() -> bool,
) -> bool {
    if fact == FlowFlags::VIA_STACK && is_stacks_still(tables, seen, now) {
        return true;
    }
    let known = tables.flow(&seen.key);
    if !known.is_some_and(|(flow, _)| flow.flags.contains(fact)) && !holds() {
        return false;
    }
    let old = match known {
        // A new connection on the same ports owes nothing to the old one.
        Some((flow, _)) if !seen.opens() => flow,
        _ => Flow::new(FlowFlags::NONE, now.0),
    };
    let new = Flow::new(seen.advance(old, now).with(fact), now.0);
    match known {
        Some((known, _)) if known == new => {}
        Some((_, entry)) => tables.see_flow(entry, new),
        None if tables.add_flow(&seen.key, new) => {}
        None => {
            tables.lose_flow();
            return false;
        }
    }
    keep_recent(tables, seen, new, old.last_seen);
    true
}

/// Keeps a flow of the stack that was seen a moment `before`: one that had been silent for long may just be removed.
#[inline(always)]
fn keep_recent(tables: &impl Tables, seen: &Seen, new: Flow, before: u32) {
    if new.flags.contains(FlowFlags::VIA_STACK) && Seconds(new.last_seen).since(before) <= 1 {
        tables.keep_recent_flow(&seen.key, new);
    }
}

/// Forgets that the remote end opened the flow: the pod itself opens it now.
#[inline(always)]
pub(crate) fn forget_inbound(tables: &impl Tables, seen: &Seen, now: Seconds) {
    if let Some((flow, entry)) = tables.flow(&seen.key) {
        let flags = flow.flags.without(FlowFlags::INBOUND);
        tables.see_flow(entry, Flow::new(flags, now.0));
    }
}

/// Writes the entry again at most once a second, or when the connection opens or closes.
#[inline(always)]
fn refresh<T: Tables>(tables: &T, seen: &Seen, known: (Flow, T::FlowEntry), now: Seconds) {
    let (flow, entry) = known;
    let flags = seen.advance(flow, now);
    let new = Flow::new(flags, now.0);
    if flags != flow.flags || now.since(flow.last_seen) > 0 {
        tables.see_flow(entry, new);
    }
    keep_recent(tables, seen, new, flow.last_seen);
}
