//! Source NAT: bindings are made, found again, run out, expire and die with their pod.
#![cfg(test)]

mod support;

use abi::{Binding, BindingState, FlowFlags, Ip4, Port, Slot};
use datapath::model::Memory;
use datapath::{Seconds, Verdict};
use support::*;

#[test]
fn the_internet_sees_the_primary_address_and_the_answer_finds_the_pod() {
    let node = node(1000);
    let nat_port = open(&node, 40_000);
    assert!((1024..2024).contains(&nat_port));
    let (verdict, frame) = receive(
        &node,
        &tcp((INTERNET, 443), (PRIMARY, nat_port), SYN | ACK),
        NOW,
    );
    assert_eq!(
        (verdict, ends(&frame)),
        (Verdict::Peer(VETH_A), ((INTERNET, 443), (A, 40_000)))
    );
    let (_, frame) = from_a_pod(&node, &tcp((A, 40_000), (INTERNET, 443), ACK));
    assert_eq!(ends(&frame).0, (PRIMARY, nat_port), "the same binding");
    assert_eq!(node.bindings.borrow().len(), 1);
}

#[test]
fn udp_and_ping_are_translated_both_ways() {
    let node = node(1000);
    let (_, frame) = from_a_pod(&node, &udp((A, 40_000), (INTERNET, 53)));
    let ((addr, port), _) = ends(&frame);
    assert_eq!(addr, PRIMARY);
    let (verdict, frame) = receive(&node, &udp((INTERNET, 53), (PRIMARY, port)), NOW);
    assert_eq!(
        (verdict, ends(&frame).1),
        (Verdict::Peer(VETH_A), (A, 40_000))
    );

    let (_, frame) = from_a_pod(&node, &ping(A, INTERNET, 7));
    let ((addr, id), _) = ends(&frame);
    assert_eq!(addr, PRIMARY);
    let (verdict, frame) = receive(&node, &pong(INTERNET, PRIMARY, id), NOW);
    assert_eq!((verdict, ends(&frame).1), (Verdict::Peer(VETH_A), (A, 7)));
}

#[test]
fn udp_without_a_checksum_stays_without() {
    let node = node(1000);
    let mut frame = udp((A, 40_000), (INTERNET, 53));
    frame.bytes[40..42].copy_from_slice(&[0, 0]);
    let (_, sent) = from_a_pod(&node, &frame);
    assert_eq!(sent.bytes[40..42], [0, 0]);
}

#[test]
fn a_port_in_the_range_is_kept() {
    assert_eq!(open(&node(1000), 1500), 1500);
}

#[test]
fn two_pods_with_the_same_port_get_two_bindings() {
    let node = node(1000);
    let first = open(&node, 1500);
    let mut syn = tcp((B, 1500), (INTERNET, 443), SYN);
    syn.bytes[..12].copy_from_slice(&[host_mac(11).octets(), mac(11).octets()].concat());
    let (verdict, frame) = send(&node, VETH_B, &syn, NOW);
    assert_eq!(verdict, Verdict::Wire(NIC));
    assert_ne!(ends(&frame).0.1, first);
}

#[test]
fn one_remote_takes_all_ports_and_the_next_connection_goes_to_the_kernel() {
    let node = node(4);
    let mut used: Vec<u16> = (0..4).map(|n| open(&node, 40_000 + n)).collect();
    used.sort_unstable();
    assert_eq!(used, [1024, 1025, 1026, 1027]);
    let overflow = tcp((A, 40_009), (INTERNET, 443), SYN);
    let (verdict, frame) = from_a_pod(&node, &overflow);
    assert_eq!(
        (verdict, frame.bytes),
        (Verdict::Stack, overflow.bytes),
        "never a drop, never half rewritten"
    );
    assert_eq!(
        known(&node, (A, 40_009), (INTERNET, 443)),
        Some(FlowFlags::VIA_STACK)
    );

    let other = tcp((A, 40_009), (Ip4::new([198, 51, 100, 10]), 443), SYN);
    assert_eq!(
        from_a_pod(&node, &other).0,
        Verdict::Wire(NIC),
        "another remote has all ports"
    );
}

#[test]
fn a_full_table_goes_to_the_kernel() {
    let mut node = node(1000);
    node.binding_limit = 1;
    open(&node, 40_000);
    assert_eq!(
        from_a_pod(&node, &tcp((A, 40_001), (INTERNET, 443), SYN)).0,
        Verdict::Stack
    );
    assert_eq!(
        from_a_pod(&node, &tcp((A, 40_000), (INTERNET, 443), ACK)).0,
        Verdict::Wire(NIC),
        "the old one lives"
    );
}

#[test]
fn a_reset_in_mid_flow_without_a_binding_makes_none() {
    let node = node(1000);
    assert_eq!(
        from_a_pod(&node, &tcp((A, 40_000), (INTERNET, 443), RST)).0,
        Verdict::Stack
    );
    assert!(node.bindings.borrow().is_empty() && node.flows.borrow().is_empty());
}

#[test]
fn two_packets_of_one_flow_on_two_cpus_get_one_binding() {
    let node = node(1000);
    let (first, second) = (1500, 1501);
    let port = open(&node, first);
    let made = *node.bindings.borrow().values().next().unwrap();
    node.bindings.borrow_mut().clear();
    node.rival.set(Some(made));
    assert_eq!(open(&node, first), port, "the other CPU's");
    assert_eq!(node.bindings.borrow().len(), 1);
    node.bindings.borrow_mut().clear();
    node.rival.set(Some(made));
    assert_ne!(open(&node, second), second);
    assert_eq!(
        node.bindings.borrow().len(),
        2,
        "another flow's is in the way"
    );
}

#[test]
fn a_lost_binding_is_made_again_with_the_same_port_in_mid_flow() {
    let node = node(1000);
    for first in [
        udp((A, 40_000), (INTERNET, 53)),
        tcp((A, 40_000), (INTERNET, 443), SYN),
        ping(A, INTERNET, 7),
    ] {
        let sent = ends(&from_a_pod(&node, &first).1);
        node.bindings.borrow_mut().clear();
        let mut next = first.clone();
        if sent.1.1 == 443 {
            next = tcp((A, 40_000), (INTERNET, 443), ACK);
        }
        assert_eq!(ends(&from_a_pod(&node, &next).1), sent);
    }
}

#[test]
fn a_flow_of_the_kernel_stays_with_the_kernel_in_mid_flow() {
    let node = node(1);
    open(&node, 40_000);
    let (mine, remote) = ((A, 40_001), (INTERNET, 443));
    assert_eq!(from_a_pod(&node, &tcp(mine, remote, SYN)).0, Verdict::Stack);
    node.bindings.borrow_mut().clear();
    assert_eq!(from_a_pod(&node, &tcp(mine, remote, ACK)).0, Verdict::Stack);
}

#[test]
fn a_released_pods_bindings_are_dead_at_once() {
    let mut node = node(1);
    let nat_port = open(&node, 40_000);
    add_pod(&mut node, A, VETH_A, 10, 2);
    let answer = tcp((INTERNET, 443), (PRIMARY, nat_port), SYN | ACK);
    assert_eq!(
        receive(&node, &answer, NOW).0,
        Verdict::Stack,
        "the new owner of the address gets nothing of the old"
    );
    assert_eq!(open(&node, 40_001), nat_port, "and the port is free");
}

#[test]
fn what_is_for_the_node_itself_stays_with_the_node() {
    let node = node(1000);
    open(&node, 40_000);
    for frame in [
        tcp((INTERNET, 443), (PRIMARY, 22), SYN),
        udp((INTERNET, 53), (PRIMARY, 40_000)),
        ping(INTERNET, PRIMARY, 7),
    ] {
        assert_eq!(receive(&node, &frame, NOW).0, Verdict::Stack);
    }
}

/// Neither a table that is full nor `datapath: stack`.
#[test]
fn what_sends_new_flows_through_the_stack_harms_no_established_connection() {
    for flag in [abi::ConfigFlags::FLOWS_FULL, abi::ConfigFlags::STACK] {
        new_flows_only_take_the_stack(flag);
    }
}

fn new_flows_only_take_the_stack(flag: abi::ConfigFlags) {
    let mut node = node(4);
    // With four ports, some bindings lie behind candidates that were in use.
    let ports: Vec<u16> = (0..4).map(|n| open(&node, 40_000 + n)).collect();
    let mut config = node.config.unwrap();
    config.flags = config.flags.with(flag);
    node.config = Some(config);
    for (n, port) in (0..).zip(ports) {
        let (verdict, frame) = from_a_pod(&node, &tcp((A, 40_000 + n), (INTERNET, 443), ACK));
        assert_eq!(
            (verdict, ends(&frame).0),
            (Verdict::Wire(NIC), (PRIMARY, port))
        );
    }
    let other = tcp((A, 40_000), (Ip4::new([198, 51, 100, 10]), 443), SYN);
    assert_eq!(
        from_a_pod(&node, &other).0,
        Verdict::Stack,
        "a new one takes the stack"
    );
    assert_eq!(
        from_a_pod(&node, &tcp((A, 40_000), (INTERNET, 443), SYN)).0,
        Verdict::Wire(NIC),
        "a SYN that is sent again does not"
    );
}

/// Those that began on the port of an earlier one have its binding, and would go on for ever.
#[test]
fn with_datapath_stack_a_connection_on_the_port_of_an_earlier_one_takes_the_stack() {
    let mut node = node(1000);
    let answered = open(&node, 40_000);
    open(&node, 40_001);
    let answer = tcp((INTERNET, 443), (PRIMARY, answered), SYN | ACK);
    receive(&node, &answer, NOW);
    from_a_pod(&node, &tcp((A, 40_001), (INTERNET, 443), RST));
    let held = |node: &Memory| *node.open.borrow().get(&Slot::new(10)).unwrap();
    assert_eq!(held(&node), 1);
    let verdict =
        |node: &Memory, port, flags| from_a_pod(node, &tcp((A, port), (INTERNET, 443), flags)).0;
    let mut config = node.config.unwrap();
    config.flags = config.flags.with(abi::ConfigFlags::FLOWS_FULL);
    node.config = Some(config);
    let full = node.clone();
    for port in [40_000, 40_001] {
        assert_eq!(
            verdict(&full, port, SYN),
            Verdict::Wire(NIC),
            "full: {port}"
        );
    }
    config.flags = config.flags.with(abi::ConfigFlags::STACK);
    node.config = Some(config);
    for port in [40_000, 40_001] {
        for flags in [SYN, ACK] {
            assert_eq!(verdict(&node, port, flags), Verdict::Stack, "{port}");
        }
    }
    assert_eq!(held(&node), 0);
}

#[test]
fn a_reset_that_nobody_believes_closes_nothing() {
    let node = node(1);
    let nat_port = open(&node, 40_000);
    receive(
        &node,
        &tcp((INTERNET, 443), (PRIMARY, nat_port), SYN | ACK),
        NOW,
    );
    receive(&node, &tcp((INTERNET, 443), (PRIMARY, nat_port), RST), NOW);
    from_a_pod(&node, &tcp((A, 40_000), (INTERNET, 443), ACK));
    let syn = tcp((A, 40_001), (INTERNET, 443), SYN);
    assert_eq!(
        send(&node, VETH_A, &syn, Seconds(NOW.0 + 100)).0,
        Verdict::Stack,
        "the port is still in use"
    );
}

#[test]
fn a_connection_that_the_pod_opens_owes_nothing_to_one_that_it_accepted_on_the_same_ports() {
    let node = node(1000);
    receive(&node, &tcp((INTERNET, 443), (A, 40_000), SYN), NOW);
    open(&node, 40_000);
}

#[test]
fn a_connection_that_the_pod_accepts_owes_nothing_to_one_that_it_opened_on_the_same_ports() {
    let (mine, remote) = ((A, 40_000), (INTERNET, 443));
    let sends = |node: &Memory, flags| {
        let (verdict, frame) = from_a_pod(node, &tcp(mine, remote, flags));
        (verdict != Verdict::Stack).then(|| ends(&frame).0)
    };
    let closed = |node: &Memory| {
        let nat = (PRIMARY, open(node, 40_000));
        receive(node, &tcp(remote, nat, SYN | ACK), NOW);
        assert_eq!(sends(node, FIN | ACK), Some(nat));
        // Of the accepted one before, sent again.
        receive(node, &tcp(remote, mine, FIN | ACK), NOW);
        receive(node, &tcp(remote, nat, FIN | ACK), NOW);
        assert_eq!(sends(node, ACK), Some(nat), "its end is its own");
        nat
    };
    let node = node(1000);
    for _ in 0..2 {
        closed(&node);
        receive(&node, &tcp(remote, mine, SYN), NOW);
        assert_eq!(sends(&node, SYN | ACK), Some(mine));
        assert_eq!(sends(&node, ACK), Some(mine));
        receive(&node, &tcp(remote, mine, FIN | ACK), NOW);
        assert_eq!(sends(&node, FIN | ACK), Some(mine));
    }
    // The table has no room for it, so the kernel has it; also where the port was not the first that was looked at.
    for other_pods in [false, true] {
        let mut full = support::node(1000);
        if other_pods {
            let made = Binding::new(
                B,
                Port::from_u16(40_000),
                11,
                BindingState::Established,
                NOW.0,
            );
            full.rival.set(Some(made));
        }
        let nat = open(&full, 40_000);
        assert!(sends(&full, RST).is_some());
        full.flows.borrow_mut().clear();
        full.flow_limit = 0;
        receive(&full, &tcp(remote, mine, SYN), NOW);
        assert_eq!(sends(&full, SYN | ACK), None, "{nat:?}");
        assert_eq!(sends(&full, ACK), None, "and keeps it");
    }
    // The same through a NodePort, whose translation only the kernel knows, and then one of the pod's own, which the kernel has, too.
    let nat = closed(&node);
    datapath::to_pod(&mut tcp(remote, mine, SYN), &node, VETH_A, || NOW);
    assert_eq!(sends(&node, SYN | ACK), None);
    assert_eq!(sends(&node, ACK), None);
    assert_eq!(sends(&node, SYN), None);
    receive(&node, &tcp(remote, nat, ACK), NOW);
    assert_eq!(
        sends(&node, ACK),
        None,
        "nothing late brings the old one back"
    );
}

#[test]
fn a_connection_from_outside_that_was_open_before_is_recognised_in_its_middle() {
    let node = node(1000);
    receive(&node, &tcp((INTERNET, 443), (A, 8080), ACK), NOW);
    let (verdict, frame) = from_a_pod(&node, &tcp((A, 8080), (INTERNET, 443), ACK));
    assert_eq!((verdict, ends(&frame).0), (Verdict::Wire(NIC), (A, 8080)));
}

#[test]
fn the_second_segment_of_a_connection_that_the_pod_opens_is_translated_like_the_first() {
    // One port only, and it is taken: the pod's own connection overflows or binds elsewhere, but never goes untranslated.
    let node = node(2);
    receive(&node, &tcp((INTERNET, 443), (A, 40_000), SYN), NOW);
    for port in 41_000..41_020 {
        let syn = tcp((A, port), (INTERNET, 443), SYN);
        if from_a_pod(&node, &syn).0 == Verdict::Wire(NIC) {
            break;
        }
    }
    let (_, first) = from_a_pod(&node, &tcp((A, 40_000), (INTERNET, 443), SYN));
    let (_, second) = from_a_pod(&node, &tcp((A, 40_000), (INTERNET, 443), ACK));
    assert_eq!(ends(&first).0, ends(&second).0);
    assert_eq!(ends(&first).0.0, PRIMARY);
}

#[test]
fn an_answer_that_needs_no_more_hops_to_the_node_reaches_the_pod() {
    let node = node(1000);
    let nat_port = open(&node, 40_000);
    let mut answer = tcp((INTERNET, 443), (PRIMARY, nat_port), SYN | ACK);
    // Only TTL and checksum of the IP header: 64 becomes 1.
    answer.bytes[22] = 1;
    let sum = datapath::replace([answer.bytes[24], answer.bytes[25]], [64, 6], [1, 6]);
    answer.bytes[24..26].copy_from_slice(&sum);
    let (verdict, frame) = receive(&node, &answer, NOW);
    assert_eq!(
        (verdict, ends(&frame).1),
        (Verdict::Peer(VETH_A), (A, 40_000))
    );
    assert_eq!(ttl(&frame), 1);
}
