//! The rows of the matrix: what the hostile pod sends, and what shall come of it.

use std::net::Ipv4Addr;

use lab::frame::{self, ethernet};
use lab::{Ipv4, Mac, ipv4};

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

pub(crate) const CASES: [Case; 53] = [
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

fn good(e: &Ends, mark: &[u8]) -> Vec<u8> {
    e.frame(&e.honest(mark))
}

fn from(e: &Ends, src: Ipv4Addr, mark: &[u8]) -> Vec<Vec<u8>> {
    vec![e.frame(&Ipv4::udp((src, 4000), (e.to, 7777), mark))]
}

fn with_mac(e: &Ends, mac: Mac, mark: &[u8]) -> Vec<Vec<u8>> {
    vec![e.honest(mark).framed(e.host_mac, mac)]
}

fn to_mac(e: &Ends, mac: Mac, mark: &[u8]) -> Vec<Vec<u8>> {
    vec![e.honest(mark).framed(mac, e.mac)]
}

fn frames(e: &Ends, packets: &[Ipv4]) -> Vec<Vec<u8>> {
    packets.iter().map(|packet| e.frame(packet)).collect()
}

/// An honest datagram that may be cut into fragments.
fn identified(e: &Ends, mark: &[u8]) -> Ipv4 {
    let id = mark
        .iter()
        .fold(1, |id: u16, byte| id.wrapping_mul(31) ^ u16::from(*byte));
    Ipv4 {
        id,
        ..e.honest(mark)
    }
}

fn foreign_fragments(e: &Ends, mark: &[u8]) -> Vec<Vec<u8>> {
    let mut packet = Ipv4::udp((e.neighbour, 4000), (e.to, 7777), mark);
    packet.id = 1;
    frames(e, &packet.fragments(8))
}

/// The ports alone, and then the rest, in which the mark stays whole when the node cuts it anew.
fn tiny_first(e: &Ends, mark: &[u8]) -> Vec<Vec<u8>> {
    let mut whole = e.honest(&mark.repeat(4));
    whole.id = identified(e, mark).id;
    frames(e, &[whole.part(0, 8), whole.part(8, 65_000)])
}

/// The second fragment begins in the first, and would change the ports (RFC 1858).
fn overlapping(e: &Ends, mark: &[u8]) -> Vec<Vec<u8>> {
    let data = [mark, mark].concat();
    let whole = Ipv4::tcp((e.own, 4000), (e.to, 53), 2, &data);
    let whole = Ipv4 {
        id: identified(e, mark).id,
        protocol: ipv4::UDP,
        ..whole
    };
    let (first, mut second) = (whole.part(0, 16), whole.part(8, 48));
    second.payload.splice(..2, [0, 80]);
    frames(e, &[first, second])
}

fn options(e: &Ends, mark: &[u8], options: &[u8]) -> Vec<u8> {
    e.frame(&Ipv4 {
        options: options.to_vec(),
        ..e.honest(mark)
    })
}

/// A source route over the target to the neighbour.
fn source_route(kind: u8, e: &Ends) -> Vec<u8> {
    [&[kind, 7, 4][..], &e.neighbour.octets(), &[0]].concat()
}

/// What the neighbour would send to the pod's target, in a tunnel from the pod to the target.
fn tunnel(e: &Ends, protocol: u8, header: &[u8], mark: &[u8]) -> Vec<Vec<u8>> {
    let inner = Ipv4::udp((e.neighbour, 4000), (e.to, 7777), mark);
    let payload = [header, &inner.bytes()].concat();
    vec![e.frame(&Ipv4::new(e.own, e.to, protocol, &payload))]
}

fn vxlan(e: &Ends, mark: &[u8]) -> Vec<Vec<u8>> {
    let inner = Ipv4::udp((e.neighbour, 4000), (e.to, 7777), mark);
    let inner = inner.framed(e.neighbour_mac, e.host_mac);
    let data = [&[8, 0, 0, 0, 0, 0, 1, 0][..], &inner].concat();
    vec![e.frame(&Ipv4::udp((e.own, 4000), (e.to, 4789), &data))]
}

fn arp(e: &Ends, operation: u8, sender: (Mac, Ipv4Addr), target: Ipv4Addr) -> Vec<u8> {
    let request = frame::arp_request(sender.0, sender.1, target);
    let mut frame = patched(request, 21, operation);
    frame.splice(6..12, e.mac.0);
    frame
}

fn ethertype(e: &Ends, ethertype: u16, mark: &[u8]) -> Vec<u8> {
    ethernet(e.host_mac, e.mac, ethertype, &e.honest(mark).bytes())
}

/// An `ICMPv6` message in an IPv6 packet from a link-local address to all nodes.
fn ipv6(e: &Ends, message: u8, mark: &[u8]) -> Vec<Vec<u8>> {
    let all_nodes = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let own = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
    let message = [&[message, 0, 0, 0, 0, 0, 0, 0][..], mark].concat();
    let [high, low] = u16::try_from(message.len()).unwrap_or(0).to_be_bytes();
    let head = [0x60, 0, 0, 0, high, low, 58, 255];
    let packet = [&head[..], &own, &all_nodes, &message].concat();
    vec![ethernet(e.host_mac, e.mac, 0x86dd, &packet)]
}

/// An honest packet behind VLAN tags, the outer one first.
fn tagged(e: &Ends, tags: &[u32], mark: &[u8]) -> Vec<Vec<u8>> {
    let mut frame = good(e, mark);
    let tags: Vec<u8> = tags.iter().flat_map(|tag| tag.to_be_bytes()).collect();
    frame.splice(12..12, tags);
    vec![frame]
}

/// The frame with another total length in its IP header.
fn resized(mut frame: Vec<u8>, total: u16) -> Vec<u8> {
    frame.splice(16..18, total.to_be_bytes());
    summed(frame)
}

/// The frame with the IP header's checksum made right for its first 20 bytes.
fn summed(mut frame: Vec<u8>) -> Vec<u8> {
    frame.splice(24..26, [0; 2]);
    let sum = frame::checksum(&frame[14..34]);
    frame.splice(24..26, sum.to_be_bytes());
    frame
}

/// A header that says 60 bytes in a packet of fewer.
fn long_header(e: &Ends, mark: &[u8]) -> Vec<u8> {
    summed(patched(good(e, mark), 14, 0x4f))
}

fn tcp_offset(e: &Ends, mark: &[u8], offset: u8) -> Vec<u8> {
    let mut packet = Ipv4::tcp((e.own, 4000), (e.to, 53), 2, mark);
    packet.payload.splice(12..13, [offset]);
    e.frame(&packet.with_transport_checksum())
}

fn udp_length(e: &Ends, mark: &[u8], length: u16) -> Vec<u8> {
    let mut packet = e.honest(mark);
    packet.payload.splice(4..6, length.to_be_bytes());
    e.frame(&packet)
}

/// "Send to me what you would send to the gateway", about a packet of the target.
fn redirect(e: &Ends, mark: &[u8]) -> Vec<Vec<u8>> {
    let about = Ipv4::udp((e.to, 7777), (e.own, 4000), mark);
    let packet = Ipv4::icmp(e.own, e.to, (5, 1), e.own.octets(), &about.bytes());
    vec![e.frame(&packet)]
}

fn patched(mut frame: Vec<u8>, at: usize, value: u8) -> Vec<u8> {
    frame.splice(at..=at, [value]);
    frame
}

fn cut(mut frame: Vec<u8>, length: usize) -> Vec<u8> {
    frame.truncate(length);
    frame
}
