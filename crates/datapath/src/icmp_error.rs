//! ICMP errors: the packet that they quote says which flow they belong to (RFC 792, RFC 5508 §4).

use abi::{BindingKey, Ip4, Port, proto};

use crate::binding::Sender;
use crate::checksum::replace;
use crate::forward::rewrite_ip;
use crate::headers::{Ipv4, L4};
use crate::packet::Packet;

/// Start of the quoted IPv4 header.
const QUOTED_IP: usize = L4 + 8;
/// Start of the quoted transport header; a quoted packet with options was never on the fast path.
const QUOTED_L4: usize = QUOTED_IP + 20;

/// The ends of the packet that an ICMP error quotes.
#[derive(Clone, Copy)]
pub(crate) struct Quoted {
    ip: Ipv4,
    pub(crate) src: (Ip4, Port),
    pub(crate) dst: (Ip4, Port),
    pub(crate) proto: u8,
}

impl Quoted {
    /// What the error with the IPv4 header `outer` quotes. `None`: not enough, or no flow that the fast path knows.
    #[inline(always)]
    pub(crate) fn read(packet: &impl Packet, outer: &Ipv4) -> Option<Self> {
        let ip = Ipv4::read(packet, QUOTED_IP)?;
        if !ip.is_valid() || ip.has_options() || ip.is_fragment() {
            return None;
        }
        // Eight bytes of transport header, RFC 792; behind the error the frame may be padded.
        if !outer.reaches(QUOTED_L4 + 8) {
            return None;
        }
        let (src, dst) = match ip.proto {
            proto::TCP | proto::UDP => {
                let [a, b, c, d] = packet.read(QUOTED_L4)?;
                (Port::new([a, b]), Port::new([c, d]))
            }
            proto::ICMP => {
                let id = Port::new(packet.read(QUOTED_L4 + 4)?);
                (id, id)
            }
            _ => return None,
        };
        Some(Self {
            src: (ip.src, src),
            dst: (ip.dst, dst),
            proto: ip.proto,
            ip,
        })
    }

    /// The binding of a packet that left with the primary address as source.
    #[inline(always)]
    pub(crate) fn binding_key(&self) -> BindingKey {
        BindingKey::new(self.remote(self.dst), self.src.1, self.proto)
    }

    /// One of the ends as the remote end of a binding: ICMP echo has no port there.
    #[inline(always)]
    pub(crate) fn remote(&self, end: (Ip4, Port)) -> (Ip4, Port) {
        match self.proto {
            proto::ICMP => (end.0, Port::NONE),
            _ => end,
        }
    }

    /// Puts `to` in the place of the pod's end, or of what stands for it: of the quoted packet's source when the remote
    /// side answers (`from` is [`Sender::Remote`]), of its destination when the pod does; and of the error's own other
    /// address.
    ///
    /// The quoted IP header's own checksum makes up for the address, so the ICMP checksum changes only by the port and
    /// by the quoted transport checksum, where there is one. `None`: the frame is too short.
    #[inline(always)]
    pub(crate) fn translate(
        &self,
        packet: &mut impl Packet,
        outer: &Ipv4,
        from: Sender,
        to: (Ip4, Port),
    ) -> Option<()> {
        let (old, addr_at, port_at) = match from {
            Sender::Remote => (self.src, QUOTED_IP + 12, QUOTED_L4),
            Sender::Pod => (self.dst, QUOTED_IP + 16, QUOTED_L4 + 2),
        };
        let (old_port, new_port) = (old.1.bytes(), to.1.bytes());
        let ip_sum = replace(self.ip.checksum, old.0.octets(), to.0.octets());
        packet.write(QUOTED_IP + 10, ip_sum)?;
        packet.write(addr_at, to.0.octets())?;

        let mut sum = packet.read(L4 + 2)?;
        let (port_at, sum_at) = match self.proto {
            proto::TCP => (port_at, QUOTED_L4 + 16),
            proto::UDP => (port_at, QUOTED_L4 + 6),
            _ => (QUOTED_L4 + 4, QUOTED_L4 + 2),
        };
        packet.write(port_at, new_port)?;
        sum = replace(sum, old_port, new_port);

        // Routers quote at least eight bytes of transport header, which leaves a TCP checksum out.
        if outer.reaches(sum_at + 2)
            && let Some(quoted) = packet.read(sum_at)
            && !(self.proto == proto::UDP && quoted == [0; 2])
        {
            let by_port = replace(quoted, old_port, new_port);
            let mut new = match self.proto {
                proto::ICMP => by_port,
                _ => replace(by_port, old.0.octets(), to.0.octets()),
            };
            if self.proto == proto::UDP && new == [0; 2] {
                new = [0xff; 2];
            }
            packet.write(sum_at, new)?;
            sum = replace(sum, quoted, new);
        }
        packet.write(L4 + 2, sum)?;
        match from {
            Sender::Remote => rewrite_ip(packet, outer, outer.src, to.0),
            Sender::Pod => rewrite_ip(packet, outer, to.0, outer.dst),
        }
    }
}
