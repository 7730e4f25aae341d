//! Putting another address and port into a packet, with TTL and all checksums.

use abi::{Ip4, Port, proto};

use crate::binding::Sender;
use crate::forward::rewrite_ip;
use crate::headers::{Ipv4, Kind, L4, Transport};
use crate::packet::{ChecksumKind, Packet};

/// An end of a flow that takes another's place in a packet.
#[derive(Clone, Copy)]
pub(crate) struct Translation {
    pub(crate) from: (Ip4, Port),
    pub(crate) to: (Ip4, Port),
    /// The end is the packet's source; else its destination.
    pub(crate) of: Sender,
}

/// Rewrites one end of the packet, with TTL and all checksums. `None`: the frame is too short.
#[inline(always)]
pub(crate) fn translate(
    packet: &mut impl Packet,
    ip: &Ipv4,
    transport: &Transport,
    change: &Translation,
) -> Option<()> {
    let (old_port, new_port) = (change.from.1.bytes(), change.to.1.bytes());
    match transport.kind {
        Kind::Tcp(_) | Kind::Udp => {
            let is_udp = ip.proto == proto::UDP;
            let sum_at = if is_udp { L4 + 6 } else { L4 + 16 };
            let address = ChecksumKind {
                pseudo_header: true,
                zero_is_none: is_udp,
            };
            packet.replace_l4_checksum(
                sum_at,
                change.from.0.octets(),
                change.to.0.octets(),
                address,
            )?;
            if old_port != new_port {
                let port = ChecksumKind {
                    pseudo_header: false,
                    zero_is_none: is_udp,
                };
                packet.replace_l4_checksum(sum_at, old_port, new_port, port)?;
                packet.write(if change.of == Sender::Pod { L4 } else { L4 + 2 }, new_port)?;
            }
        }
        Kind::EchoRequest | Kind::EchoReply => {
            let sum = crate::checksum::replace(packet.read(L4 + 2)?, old_port, new_port);
            packet.write(L4 + 2, sum)?;
            packet.write(L4 + 4, new_port)?;
        }
        Kind::IcmpError | Kind::IcmpRedirect => return None,
    }
    match change.of {
        Sender::Pod => rewrite_ip(packet, ip, change.to.0, ip.dst),
        Sender::Remote => rewrite_ip(packet, ip, ip.src, change.to.0),
    }
}
