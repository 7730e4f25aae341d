//! NIC, ingress: what the fabric sends.

use abi::{BindingKey, Class, Config, DropReason, FlowFlags, Path, Port};

use crate::binding::{Sender, reverse, see};
use crate::flow::{Seen, Side, is_stacks_still, learn, side};
use crate::forward::{decrement_ttl, into_pod};
use crate::headers::{Ethernet, IP, Ipv4, Kind, L4, Transport};
use crate::icmp_error::Quoted;
use crate::translate::{Translation, translate};
use crate::{Packet, Peer, Seconds, Tables, Verdict, fragment};

/// Decides about a frame that came from the wire: an answer to the primary address that belongs to a binding, or a
/// packet to a pod's own address, goes straight to the pod; everything else is the stack's.
#[inline(always)]
pub fn from_wire<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    now: impl FnOnce() -> Seconds,
) -> Verdict {
    let bytes = packet.length();
    match frame(packet, tables, bytes, now) {
        Ok(verdict) => verdict.unwrap_or(Verdict::Stack),
        Err(reason) => {
            tables.count_drop(reason, bytes);
            Verdict::Drop(reason)
        }
    }
}

/// `Ok(None)`: not for us.
type Decision = Result<Option<Verdict>, DropReason>;

#[inline(always)]
fn frame<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    bytes: u32,
    now: impl FnOnce() -> Seconds,
) -> Decision {
    let Some((config, ip)) = header(packet, tables) else {
        return Ok(None);
    };
    if ip.dst == config.primary {
        return if ip.is_later_fragment() {
            Ok(fragment::later(packet, tables, &ip, bytes, now()))
        } else {
            to_primary(packet, tables, bytes, &ip, now())
        };
    }
    if ip.is_fragment() || ip.ttl <= 1 {
        return Ok(None);
    }
    to_pod_address(packet, tables, bytes, config, &ip, now())
}

/// Only what the fast path may handle: `None` is the stack's.
#[inline(always)]
fn header<'t, P: Packet, T: Tables>(packet: &P, tables: &'t T) -> Option<(&'t Config, Ipv4)> {
    if !Ethernet::is_ipv4(packet) {
        return None;
    }
    let ip = Ipv4::read(packet, IP).filter(|ip| ip.is_valid() && ip.is_simple(packet.length()))?;
    Some((tables.config()?, ip))
}

/// To the primary address: an answer to SNATed traffic, if there is a binding for it.
#[inline(always)]
fn to_primary<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    bytes: u32,
    ip: &Ipv4,
    now: Seconds,
) -> Decision {
    let Some(transport) = &Transport::read(packet, L4, ip.proto) else {
        return Ok(None);
    };
    let remote_port = match transport.kind {
        Kind::Tcp(_) | Kind::Udp => transport.src,
        Kind::EchoReply => Port::NONE,
        Kind::IcmpError if !ip.is_fragment() => return error_to_primary(packet, tables, bytes, ip),
        Kind::IcmpError | Kind::EchoRequest => return Ok(None),
        Kind::IcmpRedirect => return Err(DropReason::IcmpRedirect),
    };
    let key = BindingKey::new((ip.src, remote_port), transport.dst, ip.proto);
    let found = reverse(tables, &key);
    if ip.is_fragment() {
        fragment::first(tables, ip, found.as_ref(), now);
    }
    let Some((binding, pod)) = found else {
        return Ok(None);
    };
    see(
        tables,
        pod.slot,
        (&key, &binding),
        transport,
        Sender::Remote,
        now,
    );
    let change = Translation {
        from: (ip.dst, transport.dst),
        to: (binding.pod, binding.pod_port),
        of: Sender::Remote,
    };
    let delivered = translate(packet, ip, transport, &change).and_then(|()| into_pod(packet, &pod));
    tables.count(pod.slot, Path::FromInternet, bytes);
    Ok(delivered)
}

/// An ICMP error about SNATed traffic: path MTU discovery and traceroute depend on it.
#[inline(always)]
fn error_to_primary<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    bytes: u32,
    ip: &Ipv4,
) -> Decision {
    let Some(quoted) = Quoted::read(packet, ip) else {
        return Ok(None);
    };
    if quoted.src.0 != ip.dst {
        return Ok(None);
    }
    let Some((binding, pod)) = reverse(tables, &quoted.binding_key()) else {
        return Ok(None);
    };
    let delivered = quoted
        .translate(packet, ip, Sender::Remote, (binding.pod, binding.pod_port))
        .and_then(|()| into_pod(packet, &pod));
    tables.count(pod.slot, Path::FromInternet, bytes);
    Ok(delivered)
}

/// To a pod's own address, or to nobody's: the flow is asked first, because it is known of whatever takes the stack.
#[inline(always)]
fn to_pod_address<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    bytes: u32,
    config: &Config,
    ip: &Ipv4,
    now: Seconds,
) -> Decision {
    let Some(transport) = &Transport::read(packet, L4, ip.proto) else {
        return Ok(None);
    };
    let seen = match transport.kind {
        Kind::Tcp(_) | Kind::Udp | Kind::EchoRequest | Kind::EchoReply => Seen::of(ip, transport),
        Kind::IcmpRedirect if tables.pod(ip.dst).is_some() => return Err(DropReason::IcmpRedirect),
        Kind::IcmpRedirect => return Ok(None),
        Kind::IcmpError => match Quoted::read(packet, ip) {
            Some(quoted) => Seen::about(&quoted),
            None => return Ok(None),
        },
    };
    if is_stacks_still(tables, &seen, now) {
        return Ok(None);
    }
    let side = side(tables, &seen, config, now);
    if side == Side::Stack {
        return Ok(None);
    }
    let Some(pod) = &tables.peer(ip.dst).pod() else {
        return Ok(None);
    };
    if side == Side::Unknown && transport.kind != Kind::IcmpError {
        match tables.peer(ip.src) {
            // The pod's answer will take the stack, so the request must.
            Peer::Other(Class::Stack) => return Ok(None),
            // The pod's packets to this sender are translated; the answers of what the sender opens must not be, so it
            // must be known of them.
            Peer::Other(Class::Snat) if shows_inbound(transport) => {
                if !learn(tables, &seen, FlowFlags::INBOUND, now) {
                    return Ok(None);
                }
            }
            Peer::Other(Class::Snat | Class::Direct | Class::Wireserver | Class::Deny)
            | Peer::Pod(_) => {}
        }
    }
    if decrement_ttl(packet, ip).is_none() {
        return Ok(None);
    }
    tables.count(pod.slot, Path::FromVnet, bytes);
    Ok(into_pod(packet, pod))
}

/// Whether a packet from where pods' own packets are translated shows that its flow was opened over there: what belongs
/// to a binding is addressed to the node.
#[inline(always)]
fn shows_inbound(transport: &Transport) -> bool {
    match transport.kind {
        Kind::Tcp(flags) => !flags.rst(),
        Kind::Udp | Kind::EchoRequest => true,
        Kind::EchoReply | Kind::IcmpError | Kind::IcmpRedirect => false,
    }
}
