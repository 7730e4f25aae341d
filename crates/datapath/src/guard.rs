//! NIC, XDP: what need not become an skb, because it cannot have come from an honest sender or is unwanted.

use abi::{Config, DropReason, EndpointFlags, Ip4};

use crate::headers::{ETHERTYPE_IPV4, IP, Ipv4};
use crate::{Bytes, Tables};

/// Source prefixes that no packet on a wire can have: "this network", loopback, multicast, reserved and broadcast
/// (RFC 6890). First address and mask.
const MARTIANS: [(u32, u32); 4] = [
    (0x0000_0000, 0xff00_0000),
    (0x7f00_0000, 0xff00_0000),
    (0xe000_0000, 0xf000_0000),
    (0xf000_0000, 0xf000_0000),
];

/// Decides about a frame that the NIC received: why it is dropped, which is counted already, or `None`: it goes on.
///
/// Anything but IPv4 goes on, and until the loader has filled the settings everything does.
#[inline(always)]
pub fn xdp_guard<B: Bytes, T: Tables>(frame: &B, tables: &T) -> Option<DropReason> {
    let reason = refuse(frame, tables)?;
    tables.count_drop(reason, frame.length());
    Some(reason)
}

#[inline(always)]
fn refuse<B: Bytes, T: Tables>(frame: &B, tables: &T) -> Option<DropReason> {
    let config = tables.config()?;
    if frame.read(12)? != ETHERTYPE_IPV4.to_be_bytes() {
        return None;
    }
    let Some(ip) = Ipv4::read(frame, IP) else {
        return Some(DropReason::Malformed);
    };
    if !ip.is_valid() || !ip.is_whole(frame.length()) {
        return Some(DropReason::Malformed);
    }
    if is_martian(ip.src) {
        return Some(DropReason::Martian);
    }
    if is_own(tables, config, &ip) {
        return Some(DropReason::OwnSource);
    }
    tables.denied(ip.src).then_some(DropReason::DenyList)
}

#[inline(always)]
fn is_martian(src: Ip4) -> bool {
    let bits = src.to_bits();
    MARTIANS.iter().any(|(first, mask)| bits & mask == *first)
}

/// Whether the source is an address of this node. What one pod sends to another in a tunnel mode comes back from the
/// fabric so, by right.
#[inline(always)]
fn is_own<T: Tables>(tables: &T, config: &Config, ip: &Ipv4) -> bool {
    if ip.src == config.primary {
        return true;
    }
    let Some(sender) = tables.pod(ip.src) else {
        return false;
    };
    let Some(receiver) = tables.pod(ip.dst) else {
        return true;
    };
    let tunnel = EndpointFlags::TUNNEL;
    !(sender.flags.contains(tunnel) || receiver.flags.contains(tunnel))
}
