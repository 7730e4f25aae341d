//! How are the matrix's frames made? Each maker takes the ends and the mark, and lies about one thing.

use std::net::Ipv4Addr;

use lab::frame::{self, ethernet};
use lab::{Ipv4, Mac, ipv4};

use crate::Ends;

pub(crate) fn good(e: &Ends, mark: &[u8]) -> Vec<u8> {
    e.frame(&e.honest(mark))
}

pub(crate) fn from(e: &Ends, src: Ipv4Addr, mark: &[u8]) -> Vec<Vec<u8>> {
    vec![e.frame(&Ipv4::udp((src, 4000), (e.to, 7777), mark))]
}

pub(crate) fn with_mac(e: &Ends, mac: Mac, mark: &[u8]) -> Vec<Vec<u8>> {
    vec![e.honest(mark).framed(e.host_mac, mac)]
}

pub(crate) fn to_mac(e: &Ends, mac: Mac, mark: &[u8]) -> Vec<Vec<u8>> {
    vec![e.honest(mark).framed(mac, e.mac)]
}

pub(crate) fn frames(e: &Ends, packets: &[Ipv4]) -> Vec<Vec<u8>> {
    packets.iter().map(|packet| e.frame(packet)).collect()
}

/// An honest datagram that may be cut into fragments.
pub(crate) fn identified(e: &Ends, mark: &[u8]) -> Ipv4 {
    let id = mark
        .iter()
        .fold(1, |id: u16, byte| id.wrapping_mul(31) ^ u16::from(*byte));
    Ipv4 {
        id,
        ..e.honest(mark)
    }
}

pub(crate) fn foreign_fragments(e: &Ends, mark: &[u8]) -> Vec<Vec<u8>> {
    let mut packet = Ipv4::udp((e.neighbour, 4000), (e.to, 7777), mark);
    packet.id = 1;
    frames(e, &packet.fragments(8))
}

/// The ports alone, and then the rest, in which the mark stays whole when the node cuts it anew.
pub(crate) fn tiny_first(e: &Ends, mark: &[u8]) -> Vec<Vec<u8>> {
    let mut whole = e.honest(&mark.repeat(4));
    whole.id = identified(e, mark).id;
    frames(e, &[whole.part(0, 8), whole.part(8, 65_000)])
}

/// The second fragment begins in the first, and would change the ports (RFC 1858).
pub(crate) fn overlapping(e: &Ends, mark: &[u8]) -> Vec<Vec<u8>> {
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

pub(crate) fn options(e: &Ends, mark: &[u8], options: &[u8]) -> Vec<u8> {
    e.frame(&Ipv4 {
        options: options.to_vec(),
        ..e.honest(mark)
    })
}

/// A source route over the target to the neighbour.
pub(crate) fn source_route(kind: u8, e: &Ends) -> Vec<u8> {
    [&[kind, 7, 4][..], &e.neighbour.octets(), &[0]].concat()
}

/// What the neighbour would send to the pod's target, in a tunnel from the pod to the target.
pub(crate) fn tunnel(e: &Ends, protocol: u8, header: &[u8], mark: &[u8]) -> Vec<Vec<u8>> {
    let inner = Ipv4::udp((e.neighbour, 4000), (e.to, 7777), mark);
    let payload = [header, &inner.bytes()].concat();
    vec![e.frame(&Ipv4::new(e.own, e.to, protocol, &payload))]
}

pub(crate) fn vxlan(e: &Ends, mark: &[u8]) -> Vec<Vec<u8>> {
    let inner = Ipv4::udp((e.neighbour, 4000), (e.to, 7777), mark);
    let inner = inner.framed(e.neighbour_mac, e.host_mac);
    let data = [&[8, 0, 0, 0, 0, 0, 1, 0][..], &inner].concat();
    vec![e.frame(&Ipv4::udp((e.own, 4000), (e.to, 4789), &data))]
}

pub(crate) fn arp(e: &Ends, operation: u8, sender: (Mac, Ipv4Addr), target: Ipv4Addr) -> Vec<u8> {
    let request = frame::arp_request(sender.0, sender.1, target);
    let mut frame = patched(request, 21, operation);
    frame.splice(6..12, e.mac.0);
    frame
}

pub(crate) fn ethertype(e: &Ends, ethertype: u16, mark: &[u8]) -> Vec<u8> {
    ethernet(e.host_mac, e.mac, ethertype, &e.honest(mark).bytes())
}

/// An `ICMPv6` message in an IPv6 packet from a link-local address to all nodes.
pub(crate) fn ipv6(e: &Ends, message: u8, mark: &[u8]) -> Vec<Vec<u8>> {
    let all_nodes = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let own = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
    let message = [&[message, 0, 0, 0, 0, 0, 0, 0][..], mark].concat();
    let [high, low] = u16::try_from(message.len()).unwrap_or(0).to_be_bytes();
    let head = [0x60, 0, 0, 0, high, low, 58, 255];
    let packet = [&head[..], &own, &all_nodes, &message].concat();
    vec![ethernet(e.host_mac, e.mac, 0x86dd, &packet)]
}

/// An honest packet behind VLAN tags, the outer one first.
pub(crate) fn tagged(e: &Ends, tags: &[u32], mark: &[u8]) -> Vec<Vec<u8>> {
    let mut frame = good(e, mark);
    let tags: Vec<u8> = tags.iter().flat_map(|tag| tag.to_be_bytes()).collect();
    frame.splice(12..12, tags);
    vec![frame]
}

/// The frame with another total length in its IP header.
pub(crate) fn resized(mut frame: Vec<u8>, total: u16) -> Vec<u8> {
    frame.splice(16..18, total.to_be_bytes());
    summed(frame)
}

/// The frame with the IP header's checksum made right for its first 20 bytes.
pub(crate) fn summed(mut frame: Vec<u8>) -> Vec<u8> {
    frame.splice(24..26, [0; 2]);
    let sum = frame::checksum(&frame[14..34]);
    frame.splice(24..26, sum.to_be_bytes());
    frame
}

/// A header that says 60 bytes in a packet of fewer.
pub(crate) fn long_header(e: &Ends, mark: &[u8]) -> Vec<u8> {
    summed(patched(good(e, mark), 14, 0x4f))
}

pub(crate) fn tcp_offset(e: &Ends, mark: &[u8], offset: u8) -> Vec<u8> {
    let mut packet = Ipv4::tcp((e.own, 4000), (e.to, 53), 2, mark);
    packet.payload.splice(12..13, [offset]);
    e.frame(&packet.with_transport_checksum())
}

pub(crate) fn udp_length(e: &Ends, mark: &[u8], length: u16) -> Vec<u8> {
    let mut packet = e.honest(mark);
    packet.payload.splice(4..6, length.to_be_bytes());
    e.frame(&packet)
}

/// "Send to me what you would send to the gateway", about a packet of the target.
pub(crate) fn redirect(e: &Ends, mark: &[u8]) -> Vec<Vec<u8>> {
    let about = Ipv4::udp((e.to, 7777), (e.own, 4000), mark);
    let packet = Ipv4::icmp(e.own, e.to, (5, 1), e.own.octets(), &about.bytes());
    vec![e.frame(&packet)]
}

pub(crate) fn patched(mut frame: Vec<u8>, at: usize, value: u8) -> Vec<u8> {
    frame.splice(at..=at, [value]);
    frame
}

pub(crate) fn cut(mut frame: Vec<u8>, length: usize) -> Vec<u8> {
    frame.truncate(length);
    frame
}
