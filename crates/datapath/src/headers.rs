//! Ethernet, IPv4, TCP, UDP and ICMP headers at their constant offsets.

use abi::{Ip4, Mac, Port, proto};

use crate::{Bytes, Packet};

/// Length of an Ethernet header.
pub(crate) const ETH: usize = 14;
/// Start of the IPv4 header.
pub(crate) const IP: usize = ETH;
/// Start of the transport header behind an IPv4 header without options.
pub(crate) const L4: usize = IP + 20;

/// `EtherType` of IPv4.
pub(crate) const ETHERTYPE_IPV4: u16 = 0x0800;
/// `EtherType` of ARP.
pub(crate) const ETHERTYPE_ARP: u16 = 0x0806;

/// ICMP message types, RFC 792.
pub(crate) mod icmp {
    pub(crate) const ECHO_REPLY: u8 = 0;
    pub(crate) const UNREACHABLE: u8 = 3;
    pub(crate) const REDIRECT: u8 = 5;
    pub(crate) const ECHO_REQUEST: u8 = 8;
    pub(crate) const TIME_EXCEEDED: u8 = 11;
    pub(crate) const PARAMETER_PROBLEM: u8 = 12;
}

/// An Ethernet header.
pub(crate) struct Ethernet {
    pub(crate) dst: Mac,
    pub(crate) src: Mac,
    pub(crate) ethertype: u16,
}

impl Ethernet {
    /// `None`: the frame is shorter than 14 bytes.
    #[inline(always)]
    pub(crate) fn read(packet: &impl Packet) -> Option<Self> {
        Some(Self {
            dst: Mac::new(packet.read(0)?),
            src: Mac::new(packet.read(6)?),
            ethertype: u16::from_be_bytes(packet.read(12)?),
        })
    }

    /// Whether the frame is IPv4 without a VLAN tag.
    #[inline(always)]
    pub(crate) fn is_ipv4(packet: &impl Packet) -> bool {
        packet.read(12) == Some(ETHERTYPE_IPV4.to_be_bytes()) && !packet.has_vlan_tag()
    }
}

/// The fixed part of an IPv4 header, RFC 791.
#[derive(Clone, Copy)]
pub(crate) struct Ipv4 {
    pub(crate) src: Ip4,
    pub(crate) dst: Ip4,
    pub(crate) proto: u8,
    pub(crate) ttl: u8,
    /// Identification, network byte order.
    pub(crate) id: [u8; 2],
    pub(crate) checksum: [u8; 2],
    version_ihl: u8,
    total_len: u16,
    fragment: u16,
}

impl Ipv4 {
    /// Reads the header at `at`. `None`: the frame is too short.
    #[inline(always)]
    pub(crate) fn read(packet: &impl Bytes, at: usize) -> Option<Self> {
        let [version_ihl, _tos, len_high, len_low] = packet.read(at)?;
        let [ttl, proto, sum_high, sum_low] = packet.read(at + 8)?;
        Some(Self {
            src: Ip4::new(packet.read(at + 12)?),
            dst: Ip4::new(packet.read(at + 16)?),
            proto,
            ttl,
            id: packet.read(at + 4)?,
            checksum: [sum_high, sum_low],
            version_ihl,
            total_len: u16::from_be_bytes([len_high, len_low]),
            fragment: u16::from_be_bytes(packet.read(at + 6)?),
        })
    }

    /// Version 4 and at least the fixed header: anything else is not IPv4 at all.
    #[inline(always)]
    pub(crate) fn is_valid(&self) -> bool {
        self.version_ihl >> 4 == 4 && self.version_ihl & 0xf >= 5
    }

    /// The header and its packet fit into a frame of `len` bytes, and the packet holds its header.
    #[inline(always)]
    pub(crate) fn is_whole(&self, len: u32) -> bool {
        let header = u32::from(self.version_ihl & 0xf) * 4;
        let total = u32::from(self.total_len);
        header <= total && total + 14 <= len
    }

    /// There are IP options, so that the transport header is not at its constant offset.
    #[inline(always)]
    pub(crate) fn has_options(&self) -> bool {
        self.version_ihl != 0x45
    }

    /// Part of a fragmented datagram: "more fragments", or an offset.
    #[inline(always)]
    pub(crate) fn is_fragment(&self) -> bool {
        self.fragment & 0x3fff != 0
    }

    /// A fragment that begins behind the transport header.
    #[inline(always)]
    pub(crate) fn is_later_fragment(&self) -> bool {
        self.fragment & 0x1fff != 0
    }

    /// A header without options, in a frame of `len` bytes, with a total length that the frame holds and that holds the
    /// transport header, if there is one: what lies behind it is not part of the packet. A total length of zero is that
    /// of a BIG TCP super-packet, whose real one does not fit into the field.
    #[inline(always)]
    pub(crate) fn is_simple(&self, len: u32) -> bool {
        let total = u32::from(self.total_len);
        let least = match self.proto {
            _ if self.is_later_fragment() => 21,
            proto::TCP => 40,
            _ => 28,
        };
        let is_true = if total == 0 {
            len > 14 + 0xffff
        } else {
            least <= total && total + 14 <= len
        };
        !self.has_options() && is_true
    }

    /// Whether the packet has bytes up to `end`, an offset in the frame; beyond its own end, a frame may be padded.
    #[inline(always)]
    pub(crate) fn reaches(&self, end: usize) -> bool {
        end <= ETH + usize::from(self.total_len)
    }

    /// Whether the fast path may handle a packet of `len` bytes with this header: a simple one, and not a fragment.
    #[inline(always)]
    pub(crate) fn is_plain(&self, len: u32) -> bool {
        self.is_simple(len) && !self.is_fragment()
    }
}

/// The part of a transport header that identifies a flow.
#[derive(Clone, Copy)]
pub(crate) struct Transport {
    /// Source port; of ICMP echo, the identifier.
    pub(crate) src: Port,
    /// Destination port; of ICMP echo, the identifier.
    pub(crate) dst: Port,
    /// What kind of packet it is.
    pub(crate) kind: Kind,
}

/// What the fast path distinguishes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Tcp(TcpFlags),
    Udp,
    EchoRequest,
    EchoReply,
    /// An ICMP error that quotes the packet which caused it.
    IcmpError,
    IcmpRedirect,
}

/// The control bits of a TCP header, RFC 9293 §3.1.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct TcpFlags(u8);

impl TcpFlags {
    const FIN: u8 = 1;
    const SYN: u8 = 2;
    const RST: u8 = 4;
    const ACK: u8 = 16;

    /// The first segment of a connection.
    #[inline(always)]
    pub(crate) fn opens(self) -> bool {
        self.0 & (Self::SYN | Self::ACK | Self::RST | Self::FIN) == Self::SYN
    }

    #[inline(always)]
    pub(crate) fn syn(self) -> bool {
        self.0 & Self::SYN != 0
    }

    #[inline(always)]
    pub(crate) fn fin(self) -> bool {
        self.0 & Self::FIN != 0
    }

    #[inline(always)]
    pub(crate) fn rst(self) -> bool {
        self.0 & Self::RST != 0
    }
}

impl Transport {
    /// Reads the transport header at `at`. `None`: another protocol, or the frame is too short for the header.
    #[inline(always)]
    pub(crate) fn read(packet: &impl Packet, at: usize, proto: u8) -> Option<Self> {
        match proto {
            proto::TCP => {
                let [_data_offset, flags] = packet.read(at + 12)?;
                // The header is 20 bytes at least.
                let [_urgent_high, _urgent_low] = packet.read(at + 18)?;
                Self::with_ports(packet, at, Kind::Tcp(TcpFlags(flags)))
            }
            proto::UDP => {
                let [_sum_high, _sum_low] = packet.read(at + 6)?;
                Self::with_ports(packet, at, Kind::Udp)
            }
            proto::ICMP => Self::read_icmp(packet, at),
            _ => None,
        }
    }

    #[inline(always)]
    fn with_ports(packet: &impl Packet, at: usize, kind: Kind) -> Option<Self> {
        let [a, b, c, d] = packet.read(at)?;
        Some(Self {
            src: Port::new([a, b]),
            dst: Port::new([c, d]),
            kind,
        })
    }

    #[inline(always)]
    fn read_icmp(packet: &impl Packet, at: usize) -> Option<Self> {
        let [message, _code] = packet.read(at)?;
        let [id_high, id_low, _seq_high, _seq_low] = packet.read(at + 4)?;
        let id = Port::new([id_high, id_low]);
        let kind = match message {
            icmp::ECHO_REQUEST => Kind::EchoRequest,
            icmp::ECHO_REPLY => Kind::EchoReply,
            icmp::REDIRECT => Kind::IcmpRedirect,
            icmp::UNREACHABLE | icmp::TIME_EXCEEDED | icmp::PARAMETER_PROBLEM => Kind::IcmpError,
            _ => return None,
        };
        Some(Self {
            src: id,
            dst: id,
            kind,
        })
    }

    /// Bytes in front of the payload of each segment of a GSO super-packet, IPv4 header included.
    #[inline(always)]
    pub(crate) fn segment_headers(&self, packet: &impl Packet) -> u32 {
        match self.kind {
            Kind::Tcp(_) => {
                let [data_offset] = packet.read(L4 + 12).unwrap_or([0xf0]);
                20 + u32::from(data_offset >> 4) * 4
            }
            Kind::Udp
            | Kind::EchoRequest
            | Kind::EchoReply
            | Kind::IcmpError
            | Kind::IcmpRedirect => 28,
        }
    }
}
