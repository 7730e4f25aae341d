//! ARP from a pod (RFC 826): every request is answered with the host veth's Ethernet address, because pods share no L2.

use abi::{DropReason, IfIndex, Ip4, Mac, Veth};

use crate::forward::write_macs;
use crate::headers::ETH;
use crate::{Packet, Verdict};

/// Hardware type Ethernet, protocol type IPv4, lengths 6 and 4.
const ETHERNET_IPV4: [u8; 6] = [0, 1, 8, 0, 6, 4];
const REQUEST: [u8; 2] = [0, 1];
const REPLY: [u8; 2] = [0, 2];

/// Answers a request in place; what needs no answer is left to the stack, which ignores it.
#[inline(always)]
pub(crate) fn from_pod(
    packet: &mut impl Packet,
    ifindex: IfIndex,
    veth: &Veth,
) -> Result<Verdict, DropReason> {
    answer(packet, ifindex, veth).unwrap_or(Err(DropReason::Malformed))
}

#[inline(always)]
fn answer(
    packet: &mut impl Packet,
    ifindex: IfIndex,
    veth: &Veth,
) -> Option<Result<Verdict, DropReason>> {
    let operation: [u8; 2] = packet.read(ETH + 6)?;
    let sender_mac = Mac::new(packet.read(ETH + 8)?);
    let sender = Ip4::new(packet.read(ETH + 14)?);
    let target = Ip4::new(packet.read(ETH + 24)?);
    if packet.read(ETH)? != ETHERNET_IPV4 || (operation != REQUEST && operation != REPLY) {
        return Some(Err(DropReason::Malformed));
    }
    // An address probe (RFC 5227) has no sender address.
    if sender_mac != veth.mac || (sender != veth.addr && sender != Ip4::UNSPECIFIED) {
        return Some(Err(DropReason::ArpSender));
    }
    if operation == REPLY || target == veth.addr {
        return Some(Ok(Verdict::Stack));
    }
    write_macs(packet, veth.mac, veth.host_mac)?;
    packet.write(ETH + 6, REPLY)?;
    packet.write(ETH + 8, veth.host_mac.octets())?;
    packet.write(ETH + 14, target.octets())?;
    packet.write(ETH + 18, veth.mac.octets())?;
    packet.write(ETH + 24, sender.octets())?;
    Some(Ok(Verdict::Reply(ifindex)))
}
