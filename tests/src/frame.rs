//! How are the frames made and read that tests send and capture by hand?

use std::net::Ipv4Addr;
use std::ops::Range;

use crate::vnet::Mac;

/// Ethertype of IPv4.
pub const IPV4: u16 = 0x0800;
/// Ethertype of ARP.
pub const ARP: u16 = 0x0806;

/// An Ethernet frame.
pub fn ethernet(to: Mac, from: Mac, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&to.0[..], &from.0, &ethertype.to_be_bytes(), payload].concat()
}

/// An ARP request for `target`.
pub fn arp_request(mac: Mac, sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let head = [0, 1, 8, 0, 6, 4, 0, 1];
    let body = [
        &head[..],
        &mac.0,
        &sender.octets(),
        &[0; 6],
        &target.octets(),
    ]
    .concat();
    ethernet(Mac([0xff; 6]), mac, ARP, &body)
}

/// The MAC address with which an ARP reply in `frame` answers for `target`.
pub fn arp_reply(frame: &[u8], target: Ipv4Addr) -> Option<Mac> {
    let is_reply = word(frame, 12)? == ARP && word(frame, 20)? == 2;
    let about = octets(frame, 28)? == target;
    let mac = frame.get(22..28)?.try_into().ok()?;
    (is_reply && about).then_some(Mac(mac))
}

/// A UDP datagram without UDP checksum in an IPv4 packet in an Ethernet frame.
pub fn udp(
    (to_mac, to, to_port): (Mac, Ipv4Addr, u16),
    (from_mac, from, from_port): (Mac, Ipv4Addr, u16),
    payload: &[u8],
) -> Vec<u8> {
    let udp_length = u16::try_from(8 + payload.len()).unwrap_or(u16::MAX);
    let total = (udp_length.saturating_add(20)).to_be_bytes();
    let mut ip = vec![0x45, 0, total[0], total[1], 0, 0, 0x40, 0, 64, 17, 0, 0];
    ip.extend(from.octets());
    ip.extend(to.octets());
    let sum = checksum(&ip).to_be_bytes();
    ip.splice(10..12, sum);
    let ports = [from_port.to_be_bytes(), to_port.to_be_bytes()].concat();
    let udp = [&ports[..], &udp_length.to_be_bytes(), &[0, 0], payload].concat();
    ethernet(to_mac, from_mac, IPV4, &[ip, udp].concat())
}

/// The Internet checksum (RFC 1071).
pub fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| {
        let [high, low] = [pair.first(), pair.get(1)].map(|b| b.copied().unwrap_or(0));
        u32::from(u16::from_be_bytes([high, low]))
    });
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

/// Source and destination address of an IPv4 packet in an Ethernet frame.
pub fn ipv4_ends(frame: &[u8]) -> Option<(Ipv4Addr, Ipv4Addr)> {
    let is_ipv4 = word(frame, 12)? == IPV4;
    let ends = (octets(frame, 26)?, octets(frame, 30)?);
    is_ipv4.then_some(ends)
}

/// One line for people about a frame.
pub fn describe(frame: &[u8]) -> String {
    let mac = |range: Range<usize>| {
        let octets = frame.get(range).and_then(|bytes| bytes.try_into().ok());
        Mac(octets.unwrap_or_default())
    };
    let ends = format!("{} > {}", mac(6..12), mac(0..6));
    let length = frame.len();
    let Some(ethertype) = word(frame, 12) else {
        return format!("{length} bytes, no Ethernet frame");
    };
    if ethertype == ARP {
        let address = |at: usize| octets(frame, at).map_or_else(String::new, |a| a.to_string());
        let (sender, target) = (address(28), address(38));
        let operation = if word(frame, 20) == Some(1) {
            "who has"
        } else {
            "reply to"
        };
        return format!("{ends} ARP {sender}: {operation} {target}");
    }
    let Some((source, destination)) = ipv4_ends(frame) else {
        return format!("{ends} ethertype {ethertype:04x}, {length} bytes");
    };
    let header = 14 + usize::from(frame.get(14).copied().unwrap_or(0) & 0x0f) * 4;
    let ports = || Some((word(frame, header)?, word(frame, header + 2)?));
    let protocol = frame.get(23).copied().unwrap_or(0);
    let transport = match (protocol, ports()) {
        (6, Some((from, to))) => {
            let flags = frame.get(header + 13).copied().unwrap_or(0);
            format!("TCP {from} > {to} flags {}", tcp_flags(flags))
        }
        (17, Some((from, to))) => format!("UDP {from} > {to}"),
        (1, Some((kind, _))) => format!("ICMP type {} code {}", kind >> 8, kind & 0xff),
        _ => format!("protocol {protocol}"),
    };
    format!("{ends} {source} > {destination} {transport}, {length} bytes")
}

fn tcp_flags(flags: u8) -> String {
    let names = "FSRPA".chars().enumerate();
    names
        .filter(|(bit, _)| flags >> bit & 1 == 1)
        .map(|(_, name)| name)
        .collect()
}

fn word(frame: &[u8], at: usize) -> Option<u16> {
    let bytes = frame.get(at..at + 2)?.try_into().ok()?;
    Some(u16::from_be_bytes(bytes))
}

fn octets(frame: &[u8], at: usize) -> Option<Ipv4Addr> {
    let octets: [u8; 4] = frame.get(at..at + 4)?.try_into().ok()?;
    Some(octets.into())
}
