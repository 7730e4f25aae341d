//! A node with two pods, and packets with right checksums, for tests that read as sentences.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::allow_attributes,
    reason = "each test file uses a part of it"
)]

use abi::{
    Class, Config, ConfigFlags, EndpointFlags, FlowFlags, IfIndex, Ip4, Mac, Path, Pod, Port,
    Secret, Slot, Ticks, Veth,
};
use datapath::model::{Frame, Memory};
use datapath::{Seconds, Tables as _, Verdict, flow_key};
use etherparse::{Icmpv4Type, PacketBuilder, SlicedPacket, TransportSlice};

pub const NIC: IfIndex = IfIndex::new(2);
pub const VETH_A: IfIndex = IfIndex::new(10);
pub const VETH_B: IfIndex = IfIndex::new(11);
pub const PRIMARY: Ip4 = Ip4::new([10, 240, 0, 4]);
pub const A: Ip4 = Ip4::new([10, 240, 1, 10]);
pub const B: Ip4 = Ip4::new([10, 240, 1, 11]);
pub const VNET: Ip4 = Ip4::new([10, 240, 2, 10]);
pub const INTERNET: Ip4 = Ip4::new([203, 0, 113, 10]);
pub const SERVICE: Ip4 = Ip4::new([10, 0, 0, 10]);
pub const WIRESERVER: Ip4 = Ip4::new([168, 63, 129, 16]);
pub const MARK: u32 = 0x1000;
pub const NOW: Seconds = Seconds(10_000);

pub const SYN: u8 = 2;
pub const ACK: u8 = 16;
pub const FIN: u8 = 1;
pub const RST: u8 = 4;

pub fn mac(last: u8) -> Mac {
    Mac::new([2, 0, 0, 0, 0, last])
}

pub fn host_mac(last: u8) -> Mac {
    Mac::new([2, 0, 0, 0, 1, last])
}

/// Pods A and B, `ports` SNAT ports from 1024 on, the usual classes.
pub fn node(ports: u16) -> Memory {
    let mut node = Memory::new();
    node.config = Some(Config {
        nic: NIC,
        primary: PRIMARY,
        nic_mac: mac(1),
        mtu: 1500,
        nat_first: 1024,
        nat_count: ports,
        nat_quota: u16::MAX,
        subnet_len: 16,
        fast_mark: MARK,
        flags: ConfigFlags::BLOCK_WIRESERVER,
        generation: 0,
        flows_lost: 0,
        gateway: Ip4::UNSPECIFIED,
        subnet: Ip4::new([10, 240, 0, 0]),
        epoch: 0,
        ticks: Ticks::new(250),
    });
    node.secret = Some(Secret { key: [7, 11] });
    add_pod(&mut node, A, VETH_A, 10, 1);
    add_pod(&mut node, B, VETH_B, 11, 1);
    node.classes = vec![
        (PRIMARY, 32, Class::Stack),
        (WIRESERVER, 32, Class::Wireserver),
        (Ip4::new([10, 240, 0, 0]), 16, Class::Direct),
        (Ip4::new([10, 0, 0, 0]), 8, Class::Stack),
        (Ip4::UNSPECIFIED, 0, Class::Snat),
    ];
    node
}

pub fn add_pod(node: &mut Memory, addr: Ip4, ifindex: IfIndex, last: u8, generation: u16) {
    let slot = Slot::new(u16::from(last));
    let (mac, host_mac) = (mac(last), host_mac(last));
    node.pods.insert(
        addr,
        Pod {
            ifindex,
            mac,
            host_mac,
            slot,
            generation,
            flags: EndpointFlags::NONE,
        },
    );
    node.veths.insert(
        ifindex,
        Veth {
            addr,
            mac,
            host_mac,
            slot,
            generation,
            flags: EndpointFlags::NONE,
        },
    );
}

/// An end of a flow.
pub type End = (Ip4, u16);

/// An Ethernet frame from pod A's interface.
fn from_a(src: Ip4, dst: Ip4) -> etherparse::PacketBuilderStep<etherparse::IpHeaders> {
    PacketBuilder::ethernet2(mac(10).octets(), host_mac(10).octets()).ipv4(
        src.octets(),
        dst.octets(),
        64,
    )
}

pub fn tcp(src: End, dst: End, flags: u8) -> Frame {
    let mut step = from_a(src.0, dst.0).tcp(src.1, dst.1, 1, 1000);
    if flags & SYN != 0 {
        step = step.syn();
    }
    if flags & ACK != 0 {
        step = step.ack(1);
    }
    if flags & FIN != 0 {
        step = step.fin();
    }
    if flags & RST != 0 {
        step = step.rst();
    }
    let mut bytes = Vec::new();
    step.write(&mut bytes, b"payload").unwrap();
    Frame::new(bytes)
}

pub fn udp(src: End, dst: End) -> Frame {
    let mut bytes = Vec::new();
    from_a(src.0, dst.0)
        .udp(src.1, dst.1)
        .write(&mut bytes, b"payload")
        .unwrap();
    Frame::new(bytes)
}

/// A datagram of 2000 bytes.
pub fn long_udp(src: End, dst: End) -> Frame {
    let mut bytes = Vec::new();
    from_a(src.0, dst.0)
        .udp(src.1, dst.1)
        .write(&mut bytes, &[7; 1992])
        .unwrap();
    Frame::new(bytes)
}

pub fn ping(src: Ip4, dst: Ip4, id: u16) -> Frame {
    let mut bytes = Vec::new();
    from_a(src, dst)
        .icmpv4_echo_request(id, 1)
        .write(&mut bytes, b"payload")
        .unwrap();
    Frame::new(bytes)
}

pub fn pong(src: Ip4, dst: Ip4, id: u16) -> Frame {
    let mut bytes = Vec::new();
    from_a(src, dst)
        .icmpv4_echo_reply(id, 1)
        .write(&mut bytes, b"payload")
        .unwrap();
    Frame::new(bytes)
}

/// The fragments of a frame, each of `size` bytes behind its IP header; a multiple of eight.
pub fn fragments(whole: &Frame, size: usize) -> Vec<Frame> {
    let (header, payload) = whole.bytes.split_at(34);
    let pieces = payload.chunks(size).enumerate();
    let last = payload.len().div_ceil(size) - 1;
    pieces
        .map(|(number, piece)| {
            let mut bytes = [header, piece].concat();
            let offset = u16::try_from(number * size / 8).unwrap();
            let more = if number == last { 0 } else { 0x2000 };
            bytes[16..18].copy_from_slice(&u16::try_from(20 + piece.len()).unwrap().to_be_bytes());
            bytes[20..22].copy_from_slice(&(offset | more).to_be_bytes());
            bytes[24..26].copy_from_slice(&[0; 2]);
            let mut ip = etherparse::Ipv4Header::from_slice(&bytes[14..34])
                .unwrap()
                .0;
            ip.header_checksum = ip.calc_header_checksum();
            bytes[24..26].copy_from_slice(&ip.header_checksum.to_be_bytes());
            Frame::new(bytes)
        })
        .collect()
}

/// The datagram that fragments, in order, make.
pub fn reassemble(fragments: &[Frame]) -> Frame {
    let mut bytes = fragments[0].bytes[..34].to_vec();
    for fragment in fragments {
        bytes.extend_from_slice(&fragment.bytes[34..]);
    }
    let length = u16::try_from(bytes.len() - 14).unwrap();
    bytes[16..18].copy_from_slice(&length.to_be_bytes());
    bytes[20..22].copy_from_slice(&[0; 2]);
    let mut ip = etherparse::Ipv4Header::from_slice(&bytes[14..34])
        .unwrap()
        .0;
    ip.header_checksum = ip.calc_header_checksum();
    bytes[24..26].copy_from_slice(&ip.header_checksum.to_be_bytes());
    Frame::new(bytes)
}

/// "Fragmentation needed" from a router about `sent`, as it left the node.
pub fn frag_needed(router: Ip4, sent: &Frame, quoted: usize) -> Frame {
    icmp_error((router, PRIMARY), sent, quoted)
}

/// The same from and to anybody.
pub fn icmp_error((src, dst): (Ip4, Ip4), sent: &Frame, quoted: usize) -> Frame {
    let error = Icmpv4Type::DestinationUnreachable(
        etherparse::icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: 1400 },
    );
    let mut bytes = Vec::new();
    let end = (14 + 20 + quoted).min(sent.bytes.len());
    from_a(src, dst)
        .icmpv4(error)
        .write(&mut bytes, &sent.bytes[14..end])
        .unwrap();
    Frame::new(bytes)
}

/// Both ends of a frame whose checksums are all right; panics with the reason when they are not.
pub fn ends(frame: &Frame) -> (End, End) {
    let packet = SlicedPacket::from_ethernet(&frame.bytes).unwrap();
    let etherparse::NetSlice::Ipv4(ip) = packet.net.unwrap() else {
        panic!("not IPv4")
    };
    let header = ip.header().to_header();
    assert_eq!(
        header.header_checksum,
        header.calc_header_checksum(),
        "IP checksum"
    );
    let (src, dst) = (Ip4::new(header.source), Ip4::new(header.destination));
    let (src_port, dst_port) = match packet.transport.unwrap() {
        TransportSlice::Tcp(tcp) => {
            assert_eq!(
                tcp.checksum(),
                tcp.calc_checksum_ipv4(header.source, header.destination)
                    .unwrap(),
                "TCP"
            );
            (tcp.source_port(), tcp.destination_port())
        }
        TransportSlice::Udp(udp) => {
            let whole = udp.to_header();
            let right = whole
                .calc_checksum_ipv4_raw(header.source, header.destination, udp.payload())
                .unwrap();
            assert_eq!(udp.checksum(), right, "UDP checksum");
            (udp.source_port(), udp.destination_port())
        }
        TransportSlice::Icmpv4(icmp) => {
            let whole = icmp.header();
            assert_eq!(
                whole.checksum,
                whole.icmp_type.calc_checksum(icmp.payload()),
                "ICMP checksum"
            );
            let id = if let Icmpv4Type::EchoRequest(echo) | Icmpv4Type::EchoReply(echo) =
                whole.icmp_type
            {
                echo.id
            } else {
                0
            };
            (id, id)
        }
        TransportSlice::Icmpv6(_) | TransportSlice::Igmp(_) => panic!("not a protocol of ours"),
    };
    ((src, src_port), (dst, dst_port))
}

pub fn ttl(frame: &Frame) -> u8 {
    frame.bytes[22]
}

/// Sends `frame` from pod A.
pub fn from_a_pod(node: &Memory, frame: &Frame) -> (Verdict, Frame) {
    send(node, VETH_A, frame, NOW)
}

pub fn send(node: &Memory, veth: IfIndex, frame: &Frame, now: Seconds) -> (Verdict, Frame) {
    let mut frame = frame.clone();
    let verdict = datapath::from_pod(&mut frame, node, veth, || now);
    (verdict, frame)
}

pub fn receive(node: &Memory, frame: &Frame, now: Seconds) -> (Verdict, Frame) {
    let mut frame = frame.clone();
    let verdict = datapath::from_wire(&mut frame, node, || now);
    (verdict, frame)
}

/// What is known of a TCP flow.
pub fn known(node: &Memory, a: End, b: End) -> Option<FlowFlags> {
    known_of(node, a, b, abi::proto::TCP)
}

/// What is known of a flow.
pub fn known_of(node: &Memory, a: End, b: End, proto: u8) -> Option<FlowFlags> {
    let key = flow_key(
        (a.0, Port::from_u16(a.1)),
        (b.0, Port::from_u16(b.1)),
        proto,
    );
    node.flow(&key).map(|(flow, _)| flow.flags)
}

/// Packets that pod A (slot 10) sent on `path`.
pub fn counted(node: &Memory, path: Path) -> u64 {
    node.stats
        .borrow()
        .get(&path.index(Slot::new(10)))
        .map_or(0, |counter| counter.packets)
}

/// Opens a connection from pod A to the Internet and returns the port that the wire shows.
pub fn open(node: &Memory, port: u16) -> u16 {
    let (verdict, frame) = from_a_pod(node, &tcp((A, port), (INTERNET, 443), SYN));
    assert_eq!(verdict, Verdict::Wire(NIC), "port {port}");
    let ((addr, nat_port), remote) = ends(&frame);
    assert_eq!((addr, remote), (PRIMARY, (INTERNET, 443)));
    nat_port
}
