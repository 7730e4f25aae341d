//! One case of every hook, made from bytes: what fuzz targets, the corpus test and the property tests run.
//!
//! The first bytes choose the node's tables, the rest is the frame. Shared with `fuzz/` by path.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::allow_attributes,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "a wrong verdict ends the test or the fuzzing; each user needs a part"
)]

use abi::{
    Binding, BindingKey, BindingState, Class, Config, ConfigFlags, EndpointFlags, Flow, FlowFlags,
    IfIndex, Ip4, Mac, Pod, Port, Secret, Slot, Ticks, Veth, proto,
};
use datapath::model::{Frame, Memory};
use datapath::{Seconds, Verdict, flow_key, from_pod, from_wire, to_pod, to_wire, xdp_guard};

const NIC: IfIndex = IfIndex::new(2);
const VETH: IfIndex = IfIndex::new(3);
const OTHER_VETH: IfIndex = IfIndex::new(4);
const PRIMARY: Ip4 = Ip4::new([10, 240, 0, 4]);
const POD: Ip4 = Ip4::new([10, 240, 1, 10]);
const OTHER: Ip4 = Ip4::new([10, 240, 1, 11]);
const VNET: Ip4 = Ip4::new([10, 240, 2, 10]);
const INTERNET: Ip4 = Ip4::new([203, 0, 113, 10]);
const POD_MAC: Mac = Mac::new([2, 0, 0, 0, 0, 10]);
const HOST_MAC: Mac = Mac::new([2, 0, 0, 0, 1, 10]);
const FAST: u32 = 0x10;
const NOW: Seconds = Seconds(100_000);

/// Bytes in front of the frame.
pub const CHOICES: usize = 6;

/// The five programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    FromPod,
    ToPod,
    FromWire,
    ToWire,
    XdpGuard,
}

impl Hook {
    pub const ALL: [Self; 5] = [
        Self::FromPod,
        Self::ToPod,
        Self::FromWire,
        Self::ToWire,
        Self::XdpGuard,
    ];

    /// The program's name, and that of its corpus.
    pub const fn name(self) -> &'static str {
        match self {
            Self::FromPod => "from_pod",
            Self::ToPod => "to_pod",
            Self::FromWire => "from_wire",
            Self::ToWire => "to_wire",
            Self::XdpGuard => "xdp_guard",
        }
    }
}

/// Runs one case, twice, because the second packet finds what the first one left; panics on a wrong verdict.
pub fn run(hook: Hook, input: &[u8]) {
    let Some((choices, bytes)) = input.split_first_chunk() else {
        return;
    };
    let node = node(*choices);
    for _packet in 0..2 {
        once(hook, &node, &frame(*choices, bytes));
    }
}

fn once(hook: Hook, node: &Memory, before: &Frame) {
    let dropped = drops(node);
    let mut after = before.clone();
    let verdict = match hook {
        Hook::FromPod => from_pod(&mut after, node, VETH, || NOW),
        Hook::ToPod => to_pod(&mut after, node, VETH, || NOW),
        Hook::FromWire => from_wire(&mut after, node, || NOW),
        Hook::ToWire => to_wire(&mut after, node, || NOW),
        Hook::XdpGuard => xdp_guard(&after, node).map_or(Verdict::Stack, Verdict::Drop),
    };
    assert_eq!(
        before.bytes.len(),
        after.bytes.len(),
        "no frame grows or shrinks"
    );
    let counted = u64::from(matches!(verdict, Verdict::Drop(_)));
    assert_eq!(
        drops(node) - dropped,
        counted,
        "{verdict:?} is counted once"
    );
    match verdict {
        Verdict::Stack | Verdict::Drop(_) => {
            assert_eq!(
                before.bytes, after.bytes,
                "{verdict:?} leaves the frame alone"
            );
        }
        Verdict::Peer(ifindex) => {
            let pod = node.pods.values().find(|pod| pod.ifindex == ifindex);
            let pod = pod.expect("only registered pods get frames");
            assert_eq!(after.bytes[..6], pod.mac.octets());
            assert_eq!(after.mark, 0, "no mark reaches a pod");
            is_forwarded(before, &after);
        }
        Verdict::Wire(ifindex) | Verdict::Via(ifindex, _) => {
            assert_eq!((hook, ifindex), (Hook::FromPod, NIC));
            let source = &after.bytes[26..30];
            assert!(source == POD.octets() || source == PRIMARY.octets());
            assert_eq!(after.mark & FAST, FAST);
            is_forwarded(before, &after);
        }
        Verdict::Reply(ifindex) => {
            assert_eq!((hook, ifindex), (Hook::FromPod, VETH));
            assert_eq!(after.bytes[12..14], [8, 6], "only ARP is answered");
        }
    }
}

/// One hop less or the last one, and every checksum as right or as wrong as it was. A full recomputation, not the incremental one.
fn is_forwarded(before: &Frame, after: &Frame) {
    // An answer to the node's own address has arrived, even with its last hop: the pod gets it with one.
    let arrived = before.bytes[30..34] == PRIMARY.octets();
    let least = u8::from(arrived);
    assert_eq!(
        before.bytes[22].saturating_sub(1).max(least),
        after.bytes[22],
        "TTL"
    );
    assert_eq!(header_sum(before), header_sum(after), "IPv4 checksum");
    let no_checksum =
        |frame: &Frame| frame.bytes[23] == proto::UDP && frame.bytes[40..42] == [0; 2];
    assert_eq!(
        no_checksum(before),
        no_checksum(after),
        "UDP without a checksum"
    );
    if !no_checksum(before) {
        assert_eq!(
            segment_sum(before),
            segment_sum(after),
            "transport checksum"
        );
    }
}

/// One's complement sum (RFC 1071) of the IPv4 header, its two zeros made one.
fn header_sum(frame: &Frame) -> u32 {
    sum(&frame.bytes[14..34])
}

/// The same of everything behind it, with the addresses, which the pseudo header covers.
fn segment_sum(frame: &Frame) -> u32 {
    let addresses = if frame.bytes[23] == proto::ICMP {
        0
    } else {
        sum(&frame.bytes[26..34])
    };
    (sum(&frame.bytes[34..]) + addresses) % 0xffff
}

fn sum(bytes: &[u8]) -> u32 {
    let words = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)));
    words.sum::<u32>() % 0xffff
}

fn drops(node: &Memory) -> u64 {
    let drops = node.drops.borrow();
    drops.values().map(|counter| counter.packets).sum()
}

fn frame([_, _, _, mark, gso, vlan]: [u8; CHOICES], bytes: &[u8]) -> Frame {
    Frame {
        mark: u32::from(mark),
        gso_size: u32::from(gso) * 8,
        vlan_tag: vlan & 0xf == 0xf,
        ..Frame::new(bytes)
    }
}

/// Two pods; every other thing about the node is chosen.
fn node([flags, ports, state, _, _, more]: [u8; CHOICES]) -> Memory {
    let on = |bit: u8| flags >> bit & 1 == 1;
    let mut node = Memory::new();
    node.config = on(0).then(|| config(flags, ports));
    node.secret = on(1).then_some(Secret { key: [7, 11] });
    for (addr, ifindex, last, tunnel) in [(POD, VETH, 10, on(2)), (OTHER, OTHER_VETH, 11, on(3))] {
        add_pod(&mut node, addr, ifindex, last, tunnel);
    }
    if more & 0x10 != 0 {
        node.veths.remove(&VETH);
    }
    node.classes = vec![
        (PRIMARY, 32, Class::Stack),
        (Ip4::new([168, 63, 129, 16]), 32, Class::Wireserver),
        (Ip4::new([169, 254, 169, 254]), 32, Class::Deny),
        (Ip4::new([10, 240, 0, 0]), 16, Class::Direct),
        (Ip4::new([10, 0, 0, 0]), 8, Class::Stack),
        (Ip4::UNSPECIFIED, 0, Class::Snat),
    ];
    node.denied = vec![(Ip4::new([198, 51, 100, 0]), 24)];
    add_flows(&node, state);
    add_bindings(&node, state);
    if more & 0x40 != 0
        && let Some(config) = &mut node.config
    {
        config.gateway = Ip4::new([10, 240, 0, 1]);
    }
    if more & 0x20 != 0 {
        node.flow_limit = node.flows.borrow().len();
        node.binding_limit = node.bindings.borrow().len();
    }
    node
}

fn config(flags: u8, ports: u8) -> Config {
    let on = |bit: u8| flags >> bit & 1 == 1;
    Config {
        nic: NIC,
        primary: PRIMARY,
        nic_mac: Mac::new([0, 0x0d, 0x3a, 0, 0, 1]),
        mtu: if on(4) { 1500 } else { 100 },
        nat_first: 1024,
        nat_count: u16::from(ports),
        nat_quota: if on(5) { u16::MAX } else { 1 },
        subnet_len: 16,
        fast_mark: FAST,
        flags: ConfigFlags::NONE
            .set(ConfigFlags::BLOCK_WIRESERVER, on(6))
            .set(ConfigFlags::FLOWS_FULL, on(7)),
        generation: 9,
        flows_lost: 0,
        gateway: Ip4::UNSPECIFIED,
        subnet: Ip4::new([10, 240, 0, 0]),
        epoch: 0,
        ticks: Ticks::new(250),
    }
}

fn add_pod(node: &mut Memory, addr: Ip4, ifindex: IfIndex, last: u8, tunnel: bool) {
    let (mac, host_mac) = (
        Mac::new([2, 0, 0, 0, 0, last]),
        Mac::new([2, 0, 0, 0, 1, last]),
    );
    let flags = if tunnel {
        EndpointFlags::TUNNEL
    } else {
        EndpointFlags::NONE
    };
    let (slot, generation) = (Slot::new(u16::from(last)), u16::from(last));
    let pod = Pod {
        ifindex,
        mac,
        host_mac,
        slot,
        generation,
        flags,
    };
    let veth = Veth {
        addr,
        mac,
        host_mac,
        slot,
        generation,
        flags,
    };
    node.pods.insert(addr, pod);
    node.veths.insert(ifindex, veth);
}

/// Flows of the ports that the corpus uses, of either kind, fresh or stale.
fn add_flows(node: &Memory, state: u8) {
    let fact = match state & 3 {
        0 => return,
        1 => FlowFlags::VIA_STACK,
        2 => FlowFlags::INBOUND,
        _ => FlowFlags::VIA_STACK.with(FlowFlags::RESET),
    };
    let seen = if state & 4 == 0 { NOW.0 } else { 1 };
    for (remote, port) in [(OTHER, 80), (VNET, 80), (INTERNET, 443)] {
        for protocol in [proto::TCP, proto::UDP] {
            let ends = ((POD, Port::from_u16(4000)), (remote, Port::from_u16(port)));
            let key = flow_key(ends.0, ends.1, protocol);
            node.flows.borrow_mut().insert(key, Flow::new(fact, seen));
        }
    }
}

/// A live, a foreign, an old and a closed binding.
fn add_bindings(node: &Memory, state: u8) {
    if state & 8 == 0 {
        return;
    }
    for (nat_port, pod, generation, kind, seen) in [
        (1024, POD, 10, BindingState::Established, NOW.0),
        (1025, OTHER, 11, BindingState::Established, NOW.0),
        (1026, POD, 9, BindingState::Established, NOW.0),
        (1027, POD, 10, BindingState::Closed, 1),
    ] {
        for (protocol, port) in [(proto::TCP, 443), (proto::UDP, 443), (proto::ICMP, 0)] {
            let remote = (INTERNET, Port::from_u16(port));
            let key = BindingKey::new(remote, Port::from_u16(nat_port), protocol);
            let binding = Binding::new(pod, Port::from_u16(4000), generation, kind, seen);
            node.bindings.borrow_mut().insert(key, binding);
        }
    }
}
