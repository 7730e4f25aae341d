//! Host veth, ingress: what a pod sends.

use abi::{
    Class, Config, ConfigFlags, DropReason, EndpointFlags, IfIndex, Path, Pod, Port,
    SOURCE_CHECKED, TUNNEL_MARK, Veth, proto,
};

use crate::flow::{Seen, Side, side};
use crate::forward::{decrement_ttl, fits, into_pod, onto_wire};
use crate::headers::{ETHERTYPE_ARP, ETHERTYPE_IPV4, Ethernet, IP, Ipv4, Kind, L4, Transport};
use crate::icmp_error::Quoted;
use crate::{Packet, Peer, Seconds, Tables, Verdict, arp, snat};

/// TCP ports of the wireserver that hand out the VM's secrets.
const WIRESERVER_PORTS: [Port; 2] = [Port::from_u16(80), Port::from_u16(32526)];

/// Decides about a frame that the pod behind `ifindex` sent.
///
/// Checks the source, answers ARP, and sends what is provably free of netfilter straight to a pod or to the wire. The time is
/// asked for only where it matters, here as in the other decisions.
#[inline(always)]
pub fn from_pod<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    ifindex: IfIndex,
    now: impl FnOnce() -> Seconds,
) -> Verdict {
    let bytes = packet.length();
    let Some(veth) = tables.veth(ifindex) else {
        tables.count_drop(DropReason::UnknownVeth, bytes);
        return Verdict::Drop(DropReason::UnknownVeth);
    };
    match frame(packet, tables, ifindex, &veth, now) {
        Ok((verdict, path)) => {
            tables.count(veth.slot, path, bytes);
            verdict
        }
        Err(reason) => {
            tables.count(veth.slot, Path::Dropped, bytes);
            tables.count_drop(reason, bytes);
            Verdict::Drop(reason)
        }
    }
}

/// The verdict and the path that is counted, or why the packet is dropped.
pub(crate) type Decision = Result<(Verdict, Path), DropReason>;

/// Leave it to the stack.
pub(crate) const STACK: (Verdict, Path) = (Verdict::Stack, Path::ToStack);

#[inline(always)]
fn frame<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    ifindex: IfIndex,
    veth: &Veth,
    now: impl FnOnce() -> Seconds,
) -> Decision {
    let ethernet = Ethernet::read(packet).ok_or(DropReason::Malformed)?;
    if ethernet.src != veth.mac {
        return Err(DropReason::SourceMac);
    }
    if packet.has_vlan_tag() {
        return Err(DropReason::EtherType);
    }
    match ethernet.ethertype {
        ETHERTYPE_ARP => {
            arp::from_pod(packet, ifindex, veth).map(|verdict| (verdict, Path::ToStack))
        }
        ETHERTYPE_IPV4 => {
            let ip = Ipv4::read(packet, IP)
                .filter(Ipv4::is_valid)
                .ok_or(DropReason::Malformed)?;
            if ip.src != veth.addr {
                return Err(DropReason::SourceAddress);
            }
            let to_us = ethernet.dst == veth.host_mac;
            let decision = ipv4(packet, tables, veth, &ip, to_us, now);
            if let Ok((Verdict::Stack, _)) = decision {
                packet.set_priority(SOURCE_CHECKED);
            }
            decision
        }
        _ => Err(DropReason::EtherType),
    }
}

#[inline(always)]
fn ipv4<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    veth: &Veth,
    ip: &Ipv4,
    to_us: bool,
    now: impl FnOnce() -> Seconds,
) -> Decision {
    let peer = tables.peer(ip.dst);
    // Every packet to a Service, with no more than it takes. Of ICMP, redirects are looked for below.
    if peer == Peer::Other(Class::Stack) && ip.proto != proto::ICMP {
        return Ok(STACK);
    }
    // A frame to another Ethernet address, broadcast for example, is odd; so is one whose TTL ends here.
    let plain = to_us && ip.is_plain(packet.length()) && ip.ttl > 1;
    let transport = if plain {
        Transport::read(packet, L4, ip.proto)
    } else {
        None
    };

    if transport.is_some_and(|transport| transport.kind == Kind::IcmpRedirect) {
        return Err(DropReason::IcmpRedirect);
    }

    let Some(config) = tables.config() else {
        return Ok(STACK);
    };
    let class = match peer {
        Peer::Pod(pod) => {
            // Either end's mode: a flow whose directions took two ways would confuse access lists that track connections.
            let tunnel = EndpointFlags::TUNNEL;
            if veth.flags.contains(tunnel) || pod.flags.contains(tunnel) {
                return tunnelled(packet, tables, config, ip, transport.as_ref(), now());
            }
            let Some(transport) = transport else {
                return Ok(STACK);
            };
            return local(packet, tables, config, ip, &transport, &pod, now());
        }
        Peer::Other(class) => class,
    };
    match class {
        Class::Deny => return Err(DropReason::Denied),
        Class::Wireserver if config.flags.contains(ConfigFlags::BLOCK_WIRESERVER) => {
            if is_protected(ip, transport.as_ref()) {
                return Err(DropReason::Wireserver);
            }
        }
        Class::Stack => return Ok(STACK),
        Class::Wireserver | Class::Direct | Class::Snat => {}
    }
    let now = now();
    let Some(transport) = transport else {
        let simple = to_us && ip.is_simple(packet.length());
        if class == Class::Snat && simple && ip.is_fragment() {
            return snat::fragment(packet, tables, config, veth, ip, now);
        }
        return Ok(STACK);
    };
    if !fits(packet, &transport, config) {
        return Ok(STACK);
    }
    if class == Class::Snat {
        snat::to_internet(packet, tables, config, veth, ip, &transport, now)
    } else {
        direct(packet, tables, config, ip, &transport, now)
    }
}

/// TCP to the wireserver's protected ports, and TCP whose port cannot be seen (fragments, options): fail closed.
#[inline(always)]
fn is_protected(ip: &Ipv4, transport: Option<&Transport>) -> bool {
    let Some(transport) = transport else {
        return ip.proto == proto::TCP;
    };
    ip.proto == proto::TCP && WIRESERVER_PORTS.contains(&transport.dst)
}

/// To a pod of this node.
#[inline(always)]
fn local<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    config: &Config,
    ip: &Ipv4,
    transport: &Transport,
    pod: &Pod,
    now: Seconds,
) -> Decision {
    if own_side(packet, tables, config, ip, transport, now) == Side::Stack {
        return Ok(STACK);
    }
    let bytes = packet.length();
    let delivered = decrement_ttl(packet, ip).and_then(|()| into_pod(packet, pod));
    let Some(verdict) = delivered else {
        return Ok(STACK);
    };
    tables.count(pod.slot, Path::FromPod, bytes);
    Ok((verdict, Path::ToPod))
}

/// To a pod of this node, by way of the fabric. What is left to the stack is marked, so that the kernel sends it to the
/// fabric, too; the loader's rules take the mark off flows that the kernel has translated, whose answers must find back.
#[inline(always)]
fn tunnelled<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    config: &Config,
    ip: &Ipv4,
    transport: Option<&Transport>,
    now: Seconds,
) -> Decision {
    if let Some(transport) = transport
        && fits(packet, transport, config)
        && own_side(packet, tables, config, ip, transport, now) != Side::Stack
        && decrement_ttl(packet, ip).is_some()
    {
        packet.set_mark(config.fast_mark | TUNNEL_MARK);
        return Ok((Verdict::Wire(config.nic), Path::ToVnet));
    }
    packet.set_mark(TUNNEL_MARK);
    Ok(STACK)
}

/// To the wire with the pod's own address.
#[inline(always)]
fn direct<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    config: &Config,
    ip: &Ipv4,
    transport: &Transport,
    now: Seconds,
) -> Decision {
    if own_side(packet, tables, config, ip, transport, now) == Side::Stack {
        return Ok(STACK);
    }
    untranslated(packet, config, ip)
}

/// The side of the packet's flow; of an ICMP error, the side of the flow that it is about.
#[inline(always)]
fn own_side<P: Packet, T: Tables>(
    packet: &P,
    tables: &T,
    config: &Config,
    ip: &Ipv4,
    transport: &Transport,
    now: Seconds,
) -> Side {
    let seen = match transport.kind {
        Kind::Tcp(_) | Kind::Udp | Kind::EchoRequest | Kind::EchoReply => Seen::of(ip, transport),
        Kind::IcmpError | Kind::IcmpRedirect => match Quoted::read(packet, ip) {
            Some(quoted) => Seen::about(&quoted),
            None => return Side::Stack,
        },
    };
    side(tables, &seen, config, now)
}

/// Onto the wire with the addresses as they are: to the VNet, or in answer to a flow that somebody outside opened to the
/// pod's own address.
#[inline(always)]
pub(crate) fn untranslated<P: Packet>(packet: &mut P, config: &Config, ip: &Ipv4) -> Decision {
    if decrement_ttl(packet, ip).is_none() {
        return Ok(STACK);
    }
    Ok((onto_wire(packet, config, ip.dst), Path::ToVnet))
}
