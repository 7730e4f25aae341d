//! Packets by their headers, right in every field that is not named.

use abi::{Ip4, Mac, proto};
use datapath::model::Frame;

use crate::frames::ip_header;
use crate::world::{HOST_MAC, INTERNET, POD, POD_MAC, PRIMARY};

pub(crate) const SYN: u8 = 2;
pub(crate) const ACK: u8 = 16;
/// Kinds of ICMP messages.
pub(crate) const ECHO_REPLY: u8 = 0;
pub(crate) const UNREACHABLE: u8 = 3;
pub(crate) const REDIRECT: u8 = 5;
pub(crate) const ECHO: u8 = 8;
/// What the fragment field of a header says: of a whole packet, of a first piece, and of the last one behind it.
const WHOLE: u16 = 0x4000;
pub(crate) const FIRST: u16 = 0x2000;
pub(crate) const LAST: u16 = 0x004b;
/// Of a first piece, as `LAST` says in units of eight bytes.
const PIECE: usize = 600;

fn ethernet(src: Mac, ethertype: u16) -> Vec<u8> {
    let mut bytes = [HOST_MAC.octets(), src.octets()].concat();
    bytes.extend(ethertype.to_be_bytes());
    bytes
}

fn ipv4(fragment: u16, proto: u8, (src, dst): (Ip4, Ip4), l4: &[u8]) -> Frame {
    let mut bytes = ethernet(POD_MAC, 0x0800);
    let length = u16::try_from(20 + l4.len()).unwrap();
    bytes.extend(ip_header(0x45, length, fragment, 64, proto, src, dst));
    bytes.extend(l4);
    Frame::new(bytes)
}

pub(crate) fn tcp(src: Ip4, src_port: u16, dst: Ip4, dst_port: u16, flags: u8) -> Frame {
    let mut l4 = [src_port.to_be_bytes(), dst_port.to_be_bytes()].concat();
    l4.extend([
        0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 0xff, 0xff, 0x12, 0x34, 0, 0,
    ]);
    ipv4(WHOLE, proto::TCP, (src, dst), &l4)
}

pub(crate) fn udp(from: (Ip4, u16), to: (Ip4, u16)) -> Frame {
    let l4 = [from.1, to.1, 12, 0x1234, 0, 0].map(u16::to_be_bytes);
    ipv4(WHOLE, proto::UDP, (from.0, to.0), &l4.concat())
}

/// A piece of a datagram.
pub(crate) fn piece(fragment: u16, from: (Ip4, u16), to: (Ip4, u16)) -> Frame {
    let mut l4 = [from.1, to.1, 1208, 0].map(u16::to_be_bytes).concat();
    l4.resize(PIECE, 7);
    ipv4(fragment, proto::UDP, (from.0, to.0), &l4)
}

pub(crate) fn echo(kind: u8, src: Ip4, dst: Ip4, id: u16) -> Frame {
    let [high, low] = id.to_be_bytes();
    ipv4(
        WHOLE,
        proto::ICMP,
        (src, dst),
        &[kind, 0, 0x12, 0x34, high, low, 0, 1],
    )
}

/// An error about a packet that left through a binding, or what has the form of one.
pub(crate) fn icmp(kind: u8, src: Ip4, dst: Ip4, nat_port: u16) -> Frame {
    let mut l4 = vec![kind, 1, 0x12, 0x34, 0, 0, 0, 0];
    l4.extend(ip_header(0x45, 40, WHOLE, 1, proto::TCP, PRIMARY, INTERNET));
    l4.extend([nat_port, 443].map(u16::to_be_bytes).concat());
    l4.extend([0, 0, 0, 1]);
    ipv4(0, proto::ICMP, (src, dst), &l4)
}

/// Somebody behind the pod's veth asks who has its gateway.
pub(crate) fn arp(sender: Ip4) -> Frame {
    let mut bytes = [0xff; 6].to_vec();
    bytes.extend(POD_MAC.octets());
    bytes.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    bytes.extend(POD_MAC.octets());
    bytes.extend(sender.octets());
    bytes.extend([0; 6]);
    bytes.extend([169, 254, 1, 1]);
    bytes.resize(60, 0);
    Frame::new(bytes)
}

/// Neither IPv4 nor ARP.
pub(crate) fn foreign() -> Frame {
    let mut bytes = ethernet(POD_MAC, 0x86dd);
    bytes.resize(74, 0);
    Frame::new(bytes)
}

/// With a header that is shorter than any.
pub(crate) fn malformed() -> Frame {
    let mut frame = tcp(POD, 50_000, INTERNET, 443, ACK);
    frame.bytes[14] = 0x44;
    frame
}

/// With the Ethernet address of somebody else.
pub(crate) fn sent_by(mac: Mac, mut frame: Frame) -> Frame {
    frame.bytes[6..12].copy_from_slice(&mac.octets());
    frame
}

pub(crate) fn marked(mark: u32, frame: Frame) -> Frame {
    Frame { mark, ..frame }
}
