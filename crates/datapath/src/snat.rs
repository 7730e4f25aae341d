//! Source NAT to the primary address: what a pod sends to the Internet.

use abi::{Config, FlowFlags, Path, Port, Veth};

use crate::binding::{Sender, see};
use crate::flow::{Seen, Side, forget_inbound, is_full, known_side, learn, side};
use crate::forward::{fits_whole, onto_wire};
use crate::from_pod::{Decision, STACK, untranslated};
use crate::headers::{Ipv4, Kind, L4, Transport};
use crate::icmp_error::Quoted;
use crate::search::Search;
use crate::translate::{Translation, translate};
use crate::{Packet, Seconds, Tables, fragment};

/// To the wire with the primary address.
#[inline(always)]
pub(crate) fn to_internet<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    config: &Config,
    veth: &Veth,
    ip: &Ipv4,
    transport: &Transport,
    now: Seconds,
) -> Decision {
    match transport.kind {
        Kind::Tcp(_) | Kind::Udp | Kind::EchoRequest => {
            flow(packet, tables, config, veth, ip, transport, now)
        }
        Kind::EchoReply => echo_answer(packet, tables, config, ip, transport, now),
        Kind::IcmpError | Kind::IcmpRedirect => error(packet, tables, config, veth, ip, now),
    }
}

/// A packet of a flow that the pod opened.
#[inline(always)]
fn flow<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    config: &Config,
    veth: &Veth,
    ip: &Ipv4,
    transport: &Transport,
    now: Seconds,
) -> Decision {
    let seen = Seen::of(ip, transport);
    // A datagram that was fragmented has gone through the kernel, and the remote end must see one port for all of them.
    if !matches!(transport.kind, Kind::Tcp(_)) && known_side(tables, &seen, now) == Side::Stack {
        return Ok(STACK);
    }
    let remote_port = match transport.kind {
        Kind::Tcp(_) | Kind::Udp => transport.dst,
        Kind::EchoRequest | Kind::EchoReply | Kind::IcmpError | Kind::IcmpRedirect => Port::NONE,
    };
    let (port, remote) = (transport.src, (ip.dst, remote_port));
    let Some(search) = Search::new(tables, config, veth, port, remote, ip.proto) else {
        return Ok(STACK);
    };
    let opens = opens_tcp(transport);
    let mut found = search.first(tables);
    // What a connection begins with owes nothing to one before it on the same ports. Its end does: a flow may have been learnt meanwhile.
    let begins = begins_tcp(transport) && matches!(&found, Some((_, old)) if old.state().is_over());
    if found.is_none() || begins {
        let side = known_side(tables, &seen, now);
        if (side == Side::Stack || (side == Side::Inbound && !opens))
            && let Some((key, binding)) = found.take()
        {
            search.give_up(tables, &key, &binding);
        }
        match side {
            Side::Stack => return Ok(STACK),
            Side::Inbound if !opens => return untranslated(packet, config, ip),
            Side::Inbound | Side::Unknown => {
                if side == Side::Inbound {
                    forget_inbound(tables, &seen, now);
                }
                if found.is_none() {
                    found = search.all(tables, opens);
                }
                // The pod answers somebody's SYN, of which nothing could be remembered.
                if begins_tcp(transport)
                    && !opens
                    && is_full(tables, config)
                    && let Some((key, old)) = found
                    && old.state().is_over()
                {
                    search.give_up(tables, &key, &old);
                    return Ok(STACK);
                }
            }
        }
    }
    let nat_port = if let Some((key, binding)) = found {
        if opens && !search.may_reopen(tables, config, &binding) {
            search.give_up(tables, &key, &binding);
            learn(tables, &seen, FlowFlags::VIA_STACK, now);
            return Ok(STACK);
        }
        see(
            tables,
            veth.slot,
            (&key, &binding),
            transport,
            Sender::Pod,
            now,
        );
        key.nat_port
    } else if !may_bind(transport) {
        // Not remembered: the kernel takes it for invalid, and whoever sends many would fill the table.
        return Ok(STACK);
    } else if !is_full(tables, config)
        && let Some(key) = search.bind(tables, config, now)
    {
        key.nat_port
    } else {
        // No port, no room, or more than the pod's share: the kernel masquerades into its own range.
        learn(tables, &seen, FlowFlags::VIA_STACK, now);
        return Ok(STACK);
    };
    let change = Translation {
        from: (ip.src, transport.src),
        to: (config.primary, nat_port),
        of: Sender::Pod,
    };
    if translate(packet, ip, transport, &change).is_none() {
        return Ok(STACK);
    }
    Ok((onto_wire(packet, config, ip.dst), Path::ToInternet))
}

/// The answer to a ping from outside, which came in through the stack or directly; never a binding of its own, even if
/// the pod pings the same host with the same identifier.
#[inline(always)]
fn echo_answer<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    config: &Config,
    ip: &Ipv4,
    transport: &Transport,
    now: Seconds,
) -> Decision {
    match side(tables, &Seen::of(ip, transport), config, now) {
        Side::Inbound => untranslated(packet, config, ip),
        Side::Stack | Side::Unknown => Ok(STACK),
    }
}

/// An ICMP error of the pod about what the Internet sent it: it leaves as its own flow does, so that the remote end
/// finds in it what it has sent (RFC 5508 REQ-4).
#[inline(always)]
fn error<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    config: &Config,
    veth: &Veth,
    ip: &Ipv4,
    now: Seconds,
) -> Decision {
    let Some(quoted) = Quoted::read(packet, ip) else {
        return Ok(STACK);
    };
    if quoted.dst.0 != ip.src || quoted.src.0 != ip.dst {
        return Ok(STACK);
    }
    match side(tables, &Seen::about(&quoted), config, now) {
        Side::Stack => return Ok(STACK),
        Side::Inbound => return untranslated(packet, config, ip),
        Side::Unknown => {}
    }
    let (port, remote) = (quoted.dst.1, quoted.remote(quoted.src));
    let found = Search::new(tables, config, veth, port, remote, quoted.proto)
        .and_then(|search| search.all(tables, false));
    let Some((key, _)) = found else {
        return Ok(STACK);
    };
    if quoted
        .translate(packet, ip, Sender::Pod, (config.primary, key.nat_port))
        .is_none()
    {
        return Ok(STACK);
    }
    Ok((onto_wire(packet, config, ip.dst), Path::ToInternet))
}

/// A fragment of a datagram, for itself. One of a flow that somebody outside opened keeps the pod's address; the others go
/// to the kernel, which translates them to a port of its own, so the flow's whole datagrams must follow them there.
#[inline(always)]
pub(crate) fn fragment<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    config: &Config,
    veth: &Veth,
    ip: &Ipv4,
    now: Seconds,
) -> Decision {
    if !fits_whole(packet, config) {
        return Ok(STACK);
    }
    let parties = (config, veth);
    let sent = if ip.is_later_fragment() {
        fragment::later_of_pod(packet, tables, parties, ip, now)
    } else if let Some(transport) = Transport::read(packet, L4, ip.proto) {
        let seen = Seen::of(ip, &transport);
        let answers = known_side(tables, &seen, now) == Side::Inbound;
        if !answers {
            learn(tables, &seen, FlowFlags::VIA_STACK, now);
        }
        fragment::first_of_pod(packet, tables, parties, ip, answers, now)
    } else {
        None
    };
    sent.unwrap_or(Ok(STACK))
}

/// A segment in mid-flow may bind, too: what the kernel owns is in `flows`, so the connection's binding was lost, and
/// the flow's first candidate is most likely the port that it had. RST needs no binding any more.
#[inline(always)]
fn may_bind(transport: &Transport) -> bool {
    !matches!(transport.kind, Kind::Tcp(flags) if flags.rst())
}

/// The first segment of a TCP connection.
#[inline(always)]
fn opens_tcp(transport: &Transport) -> bool {
    matches!(transport.kind, Kind::Tcp(flags) if flags.opens())
}

/// One of the first two segments, whoever sends the first.
#[inline(always)]
fn begins_tcp(transport: &Transport) -> bool {
    matches!(transport.kind, Kind::Tcp(flags) if flags.syn() && !flags.rst())
}
