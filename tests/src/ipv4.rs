//! How does a test make and read IPv4 packets with every field in its own hands?

use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::{Context as _, Result};
use socket2::{Domain, Protocol, Socket, Type};

use crate::frame::{self, checksum};
use crate::namespace::Namespace;
use crate::vnet::Mac;

/// Protocol number of ICMP.
pub const ICMP: u8 = 1;
/// Protocol number of TCP.
pub const TCP: u8 = 6;
/// Protocol number of UDP.
pub const UDP: u8 = 17;

/// "Don't fragment" in [`Ipv4::fragment`].
pub const DF: u16 = 0x4000;
/// "More fragments" in [`Ipv4::fragment`].
pub const MF: u16 = 0x2000;

/// An IPv4 packet (RFC 791). Lengths and header checksum are right whenever [`Ipv4::bytes`] makes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ipv4 {
    pub src: Ipv4Addr,
    pub dst: Ipv4Addr,
    pub protocol: u8,
    pub ttl: u8,
    pub id: u16,
    /// Flags, and the offset in units of eight bytes.
    pub fragment: u16,
    /// A multiple of four bytes, at most 40.
    pub options: Vec<u8>,
    pub payload: Vec<u8>,
}

impl Ipv4 {
    /// A packet with TTL 64 that may be fragmented.
    pub fn new(src: Ipv4Addr, dst: Ipv4Addr, protocol: u8, payload: &[u8]) -> Self {
        Self {
            src,
            dst,
            protocol,
            ttl: 64,
            id: 0,
            fragment: 0,
            options: Vec::new(),
            payload: payload.to_vec(),
        }
    }

    /// A UDP datagram between two ends, with checksum.
    pub fn udp(src: (Ipv4Addr, u16), dst: (Ipv4Addr, u16), data: &[u8]) -> Self {
        let length = be(8 + data.len());
        let header = [src.1.to_be_bytes(), dst.1.to_be_bytes(), length, [0; 2]].concat();
        Self::new(src.0, dst.0, UDP, &[&header, data].concat()).with_transport_checksum()
    }

    /// A TCP segment between two ends, without TCP options.
    pub fn tcp(src: (Ipv4Addr, u16), dst: (Ipv4Addr, u16), flags: u8, data: &[u8]) -> Self {
        let ports = [src.1.to_be_bytes(), dst.1.to_be_bytes()].concat();
        let rest = [0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0];
        Self::new(src.0, dst.0, TCP, &[&ports, &rest[..], data].concat()).with_transport_checksum()
    }

    /// An ICMP message: type, code, the header's other four bytes, data.
    pub fn icmp(
        src: Ipv4Addr,
        dst: Ipv4Addr,
        (kind, code): (u8, u8),
        rest: [u8; 4],
        data: &[u8],
    ) -> Self {
        let payload = [&[kind, code, 0, 0], &rest[..], data].concat();
        Self::new(src, dst, ICMP, &payload).with_transport_checksum()
    }

    /// The transport's checksum made right.
    #[must_use]
    pub fn with_transport_checksum(mut self) -> Self {
        if let Some(at) = self.checksum_at()
            && let Some(field) = self.payload.get_mut(at..at + 2)
        {
            field.fill(0);
            let sum = self.transport_sum();
            self.payload.splice(at..at + 2, sum.to_be_bytes());
        }
        self
    }

    /// Whether the checksum of TCP, UDP or ICMP is right. The packet must be whole.
    pub fn is_intact(&self) -> bool {
        self.checksum_at().is_some() && self.transport_sum() == 0
    }

    fn checksum_at(&self) -> Option<usize> {
        match self.protocol {
            ICMP => Some(2),
            TCP => Some(16),
            UDP => Some(6),
            _ => None,
        }
    }

    fn transport_sum(&self) -> u16 {
        if self.protocol == ICMP {
            return checksum(&self.payload);
        }
        let length = be(self.payload.len());
        let pseudo = [
            &self.src.octets()[..],
            &self.dst.octets(),
            &[0, self.protocol],
            &length,
        ];
        checksum(&[&pseudo.concat()[..], &self.payload].concat())
    }

    /// The packet as it goes over the wire.
    pub fn bytes(&self) -> Vec<u8> {
        let header = 20 + self.options.len();
        let [_, ihl] = be(header / 4);
        let total = be(header + self.payload.len());
        let mut bytes = vec![0x40 | ihl, 0];
        bytes.extend(total);
        bytes.extend(self.id.to_be_bytes());
        bytes.extend(self.fragment.to_be_bytes());
        bytes.extend([self.ttl, self.protocol, 0, 0]);
        bytes.extend(self.src.octets());
        bytes.extend(self.dst.octets());
        bytes.extend(&self.options);
        let sum = checksum(&bytes).to_be_bytes();
        bytes.splice(10..12, sum);
        bytes.extend(&self.payload);
        bytes
    }

    /// The packet in an Ethernet frame.
    pub fn framed(&self, to: Mac, from: Mac) -> Vec<u8> {
        frame::ethernet(to, from, frame::IPV4, &self.bytes())
    }

    /// Reads a packet. `None` when it is none or its header checksum is wrong. What lies behind the total length is cut off;
    /// a packet that an ICMP error quotes may be cut short.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let header = usize::from(bytes.first()? & 0x0f) * 4;
        let is_ipv4 = bytes.first()? >> 4 == 4 && checksum(bytes.get(..header)?) == 0;
        let word = |at: usize| Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
        let address = |at: usize| {
            let octets: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
            Some(Ipv4Addr::from(octets))
        };
        let end = usize::from(word(2)?).min(bytes.len());
        is_ipv4.then_some(Self {
            src: address(12)?,
            dst: address(16)?,
            protocol: *bytes.get(9)?,
            ttl: *bytes.get(8)?,
            id: word(4)?,
            fragment: word(6)?,
            options: bytes.get(20..header)?.to_vec(),
            payload: bytes.get(header..end)?.to_vec(),
        })
    }

    /// Reads the packet of an untagged Ethernet frame.
    pub fn of_frame(frame: &[u8]) -> Option<Self> {
        (frame.get(12..14)? == frame::IPV4.to_be_bytes()).then_some(())?;
        Self::parse(frame.get(14..)?)
    }

    /// Source and destination port, or the words that lie where TCP and UDP have them.
    pub fn ports(&self) -> Option<(u16, u16)> {
        let [a, b, c, d] = self.payload.first_chunk().copied()?;
        Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
    }

    /// Type and code of an ICMP message.
    pub fn message(&self) -> Option<(u8, u8)> {
        let [kind, code] = self.payload.first_chunk().copied()?;
        (self.protocol == ICMP && self.offset() == 0).then_some((kind, code))
    }

    /// The packet that an ICMP error quotes.
    pub fn quoted(&self) -> Option<Self> {
        matches!(self.message()?.0, 3 | 5 | 11 | 12).then_some(())?;
        Self::parse(self.payload.get(8..)?)
    }

    /// Where in the datagram the fragment lies, in bytes.
    pub fn offset(&self) -> usize {
        usize::from(self.fragment & 0x1fff) * 8
    }

    /// The datagram's bytes from `start` to `end` as a fragment; `start` a multiple of eight.
    #[must_use]
    pub fn part(&self, start: usize, end: usize) -> Self {
        let end = end.min(self.payload.len());
        let more = if end < self.payload.len() { MF } else { 0 };
        let [high, low] = be(start / 8);
        Self {
            fragment: u16::from_be_bytes([high, low]) | more,
            payload: self.payload.get(start..end).unwrap_or_default().to_vec(),
            ..self.clone()
        }
    }

    /// The packet in fragments of `size` payload bytes, a multiple of eight.
    pub fn fragments(&self, size: usize) -> Vec<Self> {
        let starts = (0..self.payload.len()).step_by(size);
        starts.map(|start| self.part(start, start + size)).collect()
    }
}

impl Namespace {
    /// Sends packets through the kernel's routing, which changes nothing but an identification of zero.
    pub fn send_packets(&self, packets: &[Ipv4]) -> Result<()> {
        self.run(|| {
            let raw = Protocol::from(nix::libc::IPPROTO_RAW);
            let socket = Socket::new(Domain::IPV4, Type::RAW, Some(raw))?;
            for packet in packets {
                let to = SocketAddrV4::new(packet.dst, 0);
                socket
                    .send_to(&packet.bytes(), &to.into())
                    .with_context(|| format!("send to {}", packet.dst))?;
            }
            Ok(())
        })
    }
}

/// A length as a 16-bit field; what does not fit is the largest.
fn be(length: usize) -> [u8; 2] {
    u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: (Ipv4Addr, u16) = (Ipv4Addr::new(10, 0, 0, 1), 1000);
    const B: (Ipv4Addr, u16) = (Ipv4Addr::new(10, 0, 0, 2), 2000);

    #[test]
    fn a_packet_is_read_as_it_was_made() {
        let mut packet = Ipv4::udp(A, B, b"odd");
        packet.options = vec![7, 7, 4, 0, 0, 0, 0, 0];
        let mut frame = packet.framed(Mac([1; 6]), Mac([2; 6]));
        frame.extend([0; 9]);
        assert_eq!(Ipv4::of_frame(&frame), Some(packet.clone()));
        assert!(packet.is_intact() && packet.ports() == Some((1000, 2000)));
        packet.payload[8] ^= 1;
        assert!(!packet.is_intact());
        frame[22] ^= 1;
        assert_eq!(Ipv4::of_frame(&frame), None, "the header's checksum");
    }

    #[test]
    fn fragments_cover_the_packet() {
        let packet = Ipv4::tcp(A, B, 2, &[5; 100]);
        let parts = packet.fragments(48);
        let fields: Vec<_> = parts.iter().map(|part| part.fragment).collect();
        assert_eq!(fields, [MF, MF | 6, 12]);
        let bytes: Vec<u8> = parts.into_iter().flat_map(|part| part.payload).collect();
        assert_eq!(bytes, packet.payload);
    }
}
