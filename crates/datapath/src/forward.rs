//! What a router does to every packet that it forwards.

use abi::{Config, Ip4, Mac, Pod};

use crate::checksum::replace;
use crate::headers::{IP, Ipv4, Transport};
use crate::{Packet, Verdict};

/// Rewrites TTL and addresses of the IPv4 header in one go. `None`: the frame is too short, which the caller's read of
/// the same header has excluded.
#[inline(always)]
pub(crate) fn rewrite_ip(packet: &mut impl Packet, ip: &Ipv4, src: Ip4, dst: Ip4) -> Option<()> {
    // What is addressed to the node needs no more hops to have arrived; everything else has some left.
    let ttl = ip.ttl.saturating_sub(1).max(1);
    let mut sum = replace(ip.checksum, [ip.ttl, ip.proto], [ttl, ip.proto]);
    sum = replace(sum, ip.src.octets(), src.octets());
    sum = replace(sum, ip.dst.octets(), dst.octets());
    let [high, low] = sum;
    packet.write(IP + 8, [ttl, ip.proto, high, low])?;
    if src != ip.src {
        packet.write(IP + 12, src.octets())?;
    }
    if dst != ip.dst {
        packet.write(IP + 16, dst.octets())?;
    }
    Some(())
}

/// Decrements the TTL and leaves the addresses alone.
#[inline(always)]
pub(crate) fn decrement_ttl(packet: &mut impl Packet, ip: &Ipv4) -> Option<()> {
    let ttl = ip.ttl.saturating_sub(1);
    let [high, low] = replace(ip.checksum, [ip.ttl, ip.proto], [ttl, ip.proto]);
    packet.write(IP + 8, [ttl, ip.proto, high, low])
}

/// Hands a packet whose IP header is final to a pod of this node.
#[inline(always)]
pub(crate) fn into_pod(packet: &mut impl Packet, pod: &Pod) -> Option<Verdict> {
    write_macs(packet, pod.mac, pod.host_mac)?;
    // Kernels before mid-2025 carry the mark into the pod's namespace.
    if packet.mark() != 0 {
        packet.set_mark(0);
    }
    Some(Verdict::Peer(pod.ifindex))
}

/// Sends a packet whose IP header is final out of the NIC, with the mark that tells `to_wire` that it did not come
/// from the stack.
#[inline(always)]
pub(crate) fn onto_wire(packet: &mut impl Packet, config: &Config, dst: Ip4) -> Verdict {
    packet.set_mark(config.fast_mark);
    match config.next_hop(dst) {
        Some(hop) => Verdict::Via(config.nic, hop),
        None => Verdict::Wire(config.nic),
    }
}

/// Whether every segment of the packet fits into the NIC's MTU. One that does not goes to the stack, which fragments
/// it or answers "fragmentation needed".
#[inline(always)]
pub(crate) fn fits(packet: &impl Packet, transport: &Transport, config: &Config) -> bool {
    match packet.gso_size() {
        0 => fits_whole(packet, config),
        gso_size => gso_size + transport.segment_headers(packet) <= u32::from(config.mtu),
    }
}

/// The same for a packet that is no super-packet.
#[inline(always)]
pub(crate) fn fits_whole(packet: &impl Packet, config: &Config) -> bool {
    packet.length() <= u32::from(config.mtu) + 14
}

#[inline(always)]
pub(crate) fn write_macs(packet: &mut impl Packet, dst: Mac, src: Mac) -> Option<()> {
    packet.write(0, dst.octets())?;
    packet.write(6, src.octets())
}
