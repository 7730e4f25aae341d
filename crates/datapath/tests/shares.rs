//! Ports are shared: between pods by a quota, with the node's own sockets by looking, with the kernel when none is left.
#![cfg(test)]

mod support;

use std::collections::BTreeSet;

use abi::{BindingKey, ConfigFlags, FlowFlags, Port, Slot, proto};
use datapath::Verdict;
use datapath::model::{Frame, Memory};
use support::*;

/// Pod A may hold two bindings open.
fn strict() -> Memory {
    let mut node = node(1000);
    if let Some(config) = &mut node.config {
        config.nat_quota = 2;
    }
    node
}

fn syn(port: u16) -> Frame {
    tcp((A, port), (INTERNET, 443), SYN)
}

fn open(node: &Memory) -> u32 {
    *node.open.borrow().get(&Slot::new(10)).unwrap_or(&0)
}

#[test]
fn a_pod_that_holds_its_share_overflows_to_the_kernel_and_leaves_the_rest_to_others() {
    let node = strict();
    assert_eq!(from_a_pod(&node, &syn(40_000)).0, Verdict::Wire(NIC));
    assert_eq!(from_a_pod(&node, &syn(40_001)).0, Verdict::Wire(NIC));
    assert_eq!(from_a_pod(&node, &syn(40_002)).0, Verdict::Stack);
    assert_eq!(
        known(&node, (A, 40_002), (INTERNET, 443)),
        Some(FlowFlags::VIA_STACK)
    );
    let mut other = tcp((B, 40_000), (INTERNET, 443), SYN);
    other.bytes[..12].copy_from_slice(&[host_mac(11).octets(), mac(11).octets()].concat());
    assert_eq!(send(&node, VETH_B, &other, NOW).0, Verdict::Wire(NIC));
    assert_eq!(
        from_a_pod(&node, &syn(40_000)).0,
        Verdict::Wire(NIC),
        "what it holds, it keeps"
    );
}

#[test]
fn a_closed_connection_counts_no_longer_and_a_reopened_one_counts_again() {
    let node = strict();
    from_a_pod(&node, &syn(40_000));
    from_a_pod(&node, &syn(40_001));
    assert_eq!(open(&node), 2);
    from_a_pod(&node, &tcp((A, 40_000), (INTERNET, 443), RST));
    assert_eq!(open(&node), 1);
    from_a_pod(&node, &tcp((A, 40_000), (INTERNET, 443), RST));
    assert_eq!(open(&node), 1, "once");
    from_a_pod(&node, &syn(40_000));
    assert_eq!(open(&node), 2);
}

#[test]
fn a_port_of_a_closed_connection_is_used_again_only_within_the_share() {
    let node = strict();
    from_a_pod(&node, &syn(40_000));
    from_a_pod(&node, &tcp((A, 40_000), (INTERNET, 443), RST));
    from_a_pod(&node, &syn(40_001));
    from_a_pod(&node, &syn(40_002));
    assert_eq!(open(&node), 2);
    // While an upgrade moves the tables, the other build may still have it.
    let mut moving = node.clone();
    moving.lost.set(1);
    for flags in [ConfigFlags::NONE, ConfigFlags::STACK] {
        moving.config.as_mut().unwrap().flags = flags;
        let moving = moving.clone();
        assert_eq!(from_a_pod(&moving, &syn(40_000)).0, Verdict::Wire(NIC));
    }
    // A pod that fills the table gets nothing by it.
    let mut full = node.clone();
    full.lost.set(1);
    full.config.as_mut().unwrap().flags = ConfigFlags::STACK.with(ConfigFlags::FLOWS_FULL);
    assert_eq!(from_a_pod(&full, &syn(40_000)).0, Verdict::Stack);
    assert_eq!(from_a_pod(&node, &syn(40_000)).0, Verdict::Stack);
    assert_eq!(open(&node), 2);
    let next = tcp((A, 40_000), (INTERNET, 443), ACK);
    assert_eq!(
        from_a_pod(&node, &next).0,
        Verdict::Stack,
        "it follows its SYN"
    );
    assert_eq!(
        from_a_pod(&node, &syn(40_001)).0,
        Verdict::Wire(NIC),
        "a SYN that is sent again"
    );
}

#[test]
fn fin_from_both_ends_counts_as_closed() {
    let node = strict();
    let (_, sent) = from_a_pod(&node, &syn(40_000));
    let nat = (PRIMARY, ends(&sent).0.1);
    receive(&node, &tcp((INTERNET, 443), nat, SYN | ACK), NOW);
    from_a_pod(&node, &tcp((A, 40_000), (INTERNET, 443), FIN | ACK));
    assert_eq!(open(&node), 1);
    receive(&node, &tcp((INTERNET, 443), nat, FIN | ACK), NOW);
    assert_eq!(open(&node), 0);
}

#[test]
fn a_port_that_a_socket_of_the_node_has_is_skipped() {
    for (kind, frame, remote) in [
        (proto::TCP, syn(1500), 443),
        (proto::UDP, udp((A, 1500), (INTERNET, 53)), 53),
    ] {
        let mut node = node(1000);
        let remote = (INTERNET, Port::from_u16(remote));
        node.node_ports
            .insert(BindingKey::new(remote, Port::from_u16(1500), kind));
        let (verdict, sent) = from_a_pod(&node, &frame);
        assert_eq!(verdict, Verdict::Wire(NIC));
        assert_ne!(ends(&sent).0.1, 1500, "protocol {kind}");
    }
}

#[test]
fn a_flow_that_finds_no_room_sends_every_unknown_flow_to_the_stack() {
    let mut node = node(1000);
    node.flow_limit = 0;
    let direct = tcp((A, 40_000), (VNET, 80), ACK);
    assert_eq!(from_a_pod(&node, &direct).0, Verdict::Wire(NIC));
    let mut through_the_kernel = tcp((A, 40_001), (VNET, 80), SYN);
    datapath::to_wire(&mut through_the_kernel, &node, || NOW);
    assert_eq!(from_a_pod(&node, &direct).0, Verdict::Stack);
    let answer = tcp((VNET, 80), (A, 40_001), SYN | ACK);
    assert_eq!(receive(&node, &answer, NOW).0, Verdict::Stack);

    let lost = node.lost.get();
    if let Some(config) = &mut node.config {
        config.flows_lost = lost;
    }
    assert_eq!(
        from_a_pod(&node, &direct).0,
        Verdict::Wire(NIC),
        "the loader has made up for it"
    );
}

#[test]
fn half_of_the_ports_taken_one_by_one_leaves_the_other_half_to_everybody() {
    let node = node(20_000);
    // Ports in the range are kept.
    for port in 1024..11_024 {
        assert_eq!(from_a_pod(&node, &syn(port)).0, Verdict::Wire(NIC));
    }
    for port in 40_000..42_000 {
        let mut other = tcp((B, port), (INTERNET, 443), SYN);
        other.bytes[..12].copy_from_slice(&[host_mac(11).octets(), mac(11).octets()].concat());
        assert_eq!(send(&node, VETH_B, &other, NOW).0, Verdict::Wire(NIC));
    }
}

#[test]
fn a_small_range_is_used_to_its_last_port() {
    for count in [1, 2, 3, 5, 7] {
        let node = node(count);
        let port = |n| ends(&from_a_pod(&node, &syn(40_000 + n)).1).0.1;
        let used: BTreeSet<u16> = (0..count).map(port).collect();
        assert_eq!(used.len(), usize::from(count));
    }
}
