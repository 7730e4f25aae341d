//! Host veth, egress: what the kernel sends to a pod. Fast packets never get here (`bpf_redirect_peer` skips it).

use abi::{Class, FlowFlags, IfIndex, Path};

use crate::flow::{Seen, learn};
use crate::headers::{Ethernet, IP, Ipv4, Kind, L4, Transport};
use crate::{Packet, Peer, Seconds, Tables, Verdict};

/// Remembers that the packet's flow uses the stack, so that the pod's answer takes the stack too and is un-NATed.
///
/// Nothing is remembered of a sender whose answers take the stack anyway: the node itself, Service addresses.
#[inline(always)]
pub fn to_pod<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    ifindex: IfIndex,
    now: impl FnOnce() -> Seconds,
) -> Verdict {
    if let Some(veth) = tables.veth(ifindex) {
        tables.count(veth.slot, Path::FromStack, packet.length());
        if let Some((ip, transport)) = flow_of(packet)
            && ip.dst == veth.addr
            && tables.peer(ip.src) != Peer::Other(Class::Stack)
        {
            learn(
                tables,
                &Seen::of(&ip, &transport),
                FlowFlags::VIA_STACK,
                now(),
            );
        }
    }
    Verdict::Stack
}

/// The headers of a packet that belongs to a flow. ICMP errors do not make one.
#[inline(always)]
pub(crate) fn flow_of<P: Packet>(packet: &P) -> Option<(Ipv4, Transport)> {
    if !Ethernet::is_ipv4(packet) {
        return None;
    }
    let ip = Ipv4::read(packet, IP).filter(|ip| ip.is_valid() && ip.is_plain(packet.length()))?;
    let transport = Transport::read(packet, L4, ip.proto)?;
    match transport.kind {
        Kind::Tcp(_) | Kind::Udp | Kind::EchoRequest | Kind::EchoReply => Some((ip, transport)),
        Kind::IcmpError | Kind::IcmpRedirect => None,
    }
}
