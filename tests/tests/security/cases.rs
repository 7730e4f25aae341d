//! The rows of the matrix: what the hostile pod sends, and what shall come of it.

use std::net::Ipv4Addr;

use lab::{Ipv4, Mac, frame};

use crate::forge::{
    arp, cut, ethertype, foreign_fragments, from, good, ipv6, long_header, options, overlapping,
    patched, redirect, resized, source_route, tagged, tcp_offset, tiny_first, to_mac, tunnel,
    udp_length, vxlan, with_mac,
};
use crate::{Ends, Target};

/// What shall come of a frame.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Expected {
    /// All frames are dropped by us, each counted under this reason.
    Dropped(&'static str),
    /// It reaches the target, with the source that the pod has there.
    Arrives,
    /// It is left to the stack, and surfaces nowhere.
    Gone,
}

use Expected::{Arrives, Dropped, Gone};

/// One row.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// The frames; each packet that would carry data carries the mark.
    pub(crate) frames: fn(&Ends, &[u8]) -> Vec<Vec<u8>>,
    pub(crate) expected: fn(Target) -> Expected,
}

const fn case(
    name: &'static str,
    frames: fn(&Ends, &[u8]) -> Vec<Vec<u8>>,
    expected: fn(Target) -> Expected,
) -> Case {
    Case {
        name,
        frames,
        expected,
    }
}

pub(crate) const CASES: [Case; 54] = [
    // Source addresses.
    case(
        "the neighbour's address",
        |e, m| from(e, e.neighbour, m),
        |_| SOURCE,
    ),
    case("the node's address", |e, m| from(e, e.node, m), |_| SOURCE),
    case("the target's address", |e, m| from(e, e.to, m), |_| SOURCE),
    case(
        "no address",
        |e, m| from(e, Ipv4Addr::UNSPECIFIED, m),
        |_| SOURCE,
    ),
    case(
        "loopback",
        |e, m| from(e, Ipv4Addr::LOCALHOST, m),
        |_| SOURCE,
    ),
    case(
        "broadcast",
        |e, m| from(e, Ipv4Addr::BROADCAST, m),
        |_| SOURCE,
    ),
    case(
        "the gateway's address",
        |e, m| from(e, Ipv4Addr::new(169, 254, 1, 1), m),
        |_| SOURCE,
    ),
    case(
        "the neighbour's address in fragments",
        foreign_fragments,
        |_| SOURCE,
    ),
    // Source MAC addresses.
    case(
        "the neighbour's MAC",
        |e, m| with_mac(e, e.neighbour_mac, m),
        |_| MAC,
    ),
    case("the host's MAC", |e, m| with_mac(e, e.host_mac, m), |_| MAC),
    case(
        "a broadcast MAC",
        |e, m| with_mac(e, Mac([0xff; 6]), m),
        |_| MAC,
    ),
    case("no MAC", |e, m| with_mac(e, Mac([0; 6]), m), |_| MAC),
    // Destination MAC addresses: only the node itself takes what is for everybody.
    case(
        "to the neighbour's MAC",
        |e, m| to_mac(e, e.neighbour_mac, m),
        |_| Gone,
    ),
    case("to all", |e, m| to_mac(e, Mac([0xff; 6]), m), only_node),
    case(
        "to a group",
        |e, m| to_mac(e, Mac([1, 0, 0x5e, 0, 0, 1]), m),
        only_node,
    ),
    // ARP.
    case(
        "ARP request as the target",
        |e, _| vec![arp(e, 1, (e.mac, e.to), e.neighbour)],
        |_| ARP,
    ),
    case(
        "gratuitous ARP as the target",
        |e, _| vec![arp(e, 1, (e.mac, e.to), e.to)],
        |_| ARP,
    ),
    case(
        "ARP reply as the target",
        |e, _| vec![arp(e, 2, (e.mac, e.to), e.own)],
        |_| ARP,
    ),
    case(
        "ARP reply as another MAC",
        |e, _| vec![arp(e, 2, (e.neighbour_mac, e.own), e.to)],
        |_| ARP,
    ),
    case(
        "ARP in a foreign frame",
        |e, _| vec![frame::arp_request(e.neighbour_mac, e.own, e.to)],
        |_| MAC,
    ),
    case(
        "ARP of another hardware",
        |e, _| vec![patched(arp(e, 1, (e.mac, e.own), e.to), 15, 6)],
        |_| BAD,
    ),
    case(
        "ARP cut short",
        |e, _| vec![cut(arp(e, 1, (e.mac, e.own), e.to), 40)],
        |_| BAD,
    ),
    case("RARP", |e, m| vec![ethertype(e, 0x8035, m)], |_| TYPE),
    // Other protocols beside IPv4.
    case(
        "IPv6 neighbour advertisement",
        |e, m| ipv6(e, 136, m),
        |_| TYPE,
    ),
    case(
        "IPv6 router advertisement",
        |e, m| ipv6(e, 134, m),
        |_| TYPE,
    ),
    case("VLAN tag", |e, m| tagged(e, &[0x8100_0005], m), |_| TYPE),
    case(
        "VLAN tag with no VLAN",
        |e, m| tagged(e, &[0x8100_0000], m),
        |_| TYPE,
    ),
    case(
        "two VLAN tags",
        |e, m| tagged(e, &[0x88a8_0005, 0x8100_0006], m),
        |_| TYPE,
    ),
    case(
        "three VLAN tags",
        |e, m| tagged(e, &[0x8100_0005, 0x8100_0006, 0x8100_0007], m),
        |_| TYPE,
    ),
    case("MPLS", |e, m| vec![ethertype(e, 0x8847, m)], |_| TYPE),
    case("LLC", |e, m| vec![ethertype(e, 60, m)], |_| TYPE),
    // Fragments.
    case("a tiny first fragment", tiny_first, |_| Arrives),
    case("a port rewritten by an overlap", overlapping, |_| Gone),
    // Options.
    case(
        "record route",
        |e, m| vec![options(e, m, &[7, 7, 4, 0, 0, 0, 0, 0])],
        |_| Arrives,
    ),
    case(
        "loose source route",
        |e, m| vec![options(e, m, &source_route(131, e))],
        |_| Gone,
    ),
    case(
        "strict source route",
        |e, m| vec![options(e, m, &source_route(137, e))],
        |_| Gone,
    ),
    case(
        "an option beyond the header",
        |e, m| vec![options(e, m, &[7, 200, 4, 0])],
        |_| Gone,
    ),
    // Tunnels: what is inside stays inside.
    case("IPIP", |e, m| tunnel(e, 4, &[], m), |_| Arrives),
    case("GRE", |e, m| tunnel(e, 47, &[0, 0, 8, 0], m), |_| Arrives),
    case("VXLAN", vxlan, |_| Arrives),
    // Headers that are short or lie.
    case(
        "a header of 16 bytes",
        |e, m| vec![patched(good(e, m), 14, 0x44)],
        |_| BAD,
    ),
    case(
        "IP version 6",
        |e, m| vec![patched(good(e, m), 14, 0x65)],
        |_| BAD,
    ),
    case(
        "half a header",
        |e, m| vec![cut(good(e, m), 14 + 10)],
        |_| BAD,
    ),
    case(
        "a total length beyond the frame",
        |e, m| vec![resized(good(e, m), 2000)],
        |_| Gone,
    ),
    case(
        "a total length of nothing",
        |e, m| vec![resized(good(e, m), 0)],
        |_| Gone,
    ),
    case(
        "a total length below the header",
        |e, m| vec![resized(good(e, m), 19)],
        |_| Gone,
    ),
    case(
        "a total length in the middle of the TCP header",
        |e, m| vec![resized(tcp_offset(e, m, 0x50), 30)],
        short_tcp,
    ),
    case(
        "a header length beyond the packet",
        |e, m| vec![long_header(e, m)],
        |_| Gone,
    ),
    case(
        "a TCP header beyond the segment",
        |e, m| vec![tcp_offset(e, m, 0xf0)],
        |_| Arrives,
    ),
    case(
        "a TCP header of nothing",
        |e, m| vec![tcp_offset(e, m, 0)],
        |_| Arrives,
    ),
    case(
        "a UDP length beyond the packet",
        |e, m| vec![udp_length(e, m, 2000)],
        |_| Arrives,
    ),
    case(
        "a UDP length below the header",
        |e, m| vec![udp_length(e, m, 7)],
        |_| Arrives,
    ),
    // The wireserver's secrets.
    case(
        "a segment to port 80",
        |e, m| vec![e.frame(&Ipv4::tcp((e.own, e.port), (e.to, 80), 2, m))],
        secret,
    ),
    // Redirects would lead the neighbour's packets elsewhere.
    case("ICMP redirect", redirect, |_| Dropped("icmp_redirect")),
];

const SOURCE: Expected = Dropped("source_address");
const MAC: Expected = Dropped("source_mac");
const ARP: Expected = Dropped("arp_sender");
const TYPE: Expected = Dropped("ethertype");
const BAD: Expected = Dropped("malformed");

fn only_node(target: Target) -> Expected {
    if target == Target::Node {
        Arrives
    } else {
        Gone
    }
}

/// TCP whose port is out of sight is not let near the wireserver.
fn short_tcp(target: Target) -> Expected {
    if target == Target::Wireserver {
        Dropped("wireserver")
    } else {
        Gone
    }
}

fn secret(target: Target) -> Expected {
    if target == Target::Wireserver {
        Dropped("wireserver")
    } else {
        Arrives
    }
}
