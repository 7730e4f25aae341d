//! What leaves a pod, and what comes for it, when nothing is translated.
#![cfg(test)]

mod support;

use abi::{Class, DropReason, FlowFlags, Ip4, Path, Port, SOURCE_CHECKED, proto};
use datapath::model::Frame;
use datapath::{Seconds, Verdict, flow_key, to_pod, to_wire};
use support::*;

#[test]
fn a_pod_reaches_its_neighbour_past_the_stack() {
    let node = node(1000);
    let (verdict, frame) = from_a_pod(&node, &tcp((A, 4000), (B, 80), SYN));
    assert_eq!(verdict, Verdict::Peer(VETH_B));
    assert_eq!(ends(&frame), ((A, 4000), (B, 80)));
    assert_eq!(ttl(&frame), 63);
    assert_eq!(
        frame.bytes[..12],
        [mac(11).octets(), host_mac(11).octets()].concat()
    );
    assert_eq!(counted(&node, Path::ToPod), 1);
}

#[test]
fn the_vnet_sees_the_pods_own_address() {
    let node = node(1000);
    let (verdict, frame) = from_a_pod(&node, &tcp((A, 4000), (VNET, 80), SYN));
    assert_eq!(
        (verdict, ends(&frame)),
        (Verdict::Wire(NIC), ((A, 4000), (VNET, 80)))
    );
    assert_eq!(frame.mark, MARK);
    let (verdict, frame) = receive(&node, &tcp((VNET, 80), (A, 4000), SYN | ACK), NOW);
    assert_eq!(
        (verdict, ends(&frame)),
        (Verdict::Peer(VETH_A), ((VNET, 80), (A, 4000)))
    );
    assert_eq!(frame.mark, 0);
}

#[test]
fn the_next_hop_is_the_gateway_or_in_the_subnet_the_destination_and_no_broadcast_has_one() {
    let mut node = node(1000);
    let gateway = Ip4::new([10, 240, 0, 1]);
    let config = node.config.as_mut().unwrap();
    config.gateway = gateway;
    node.classes
        .push((Ip4::new([10, 50, 0, 0]), 16, Class::Direct));
    let peered = Ip4::new([10, 50, 0, 4]);
    for (dst, verdict) in [
        (VNET, Verdict::Via(NIC, VNET)),
        (peered, Verdict::Via(NIC, gateway)),
        (INTERNET, Verdict::Via(NIC, gateway)),
        (Ip4::new([10, 240, 0, 0]), Verdict::Wire(NIC)),
        (Ip4::new([10, 240, 255, 255]), Verdict::Wire(NIC)),
    ] {
        assert_eq!(
            from_a_pod(&node, &udp((A, 4000), (dst, 80))).0,
            verdict,
            "{dst:?}"
        );
    }
}

#[test]
fn every_wrong_source_is_dropped_and_counted() {
    let node = node(1000);
    let good = tcp((A, 4000), (B, 80), SYN);
    let mut foreign_mac = good.clone();
    foreign_mac.bytes[11] ^= 1;
    let mut ipv6 = good.clone();
    ipv6.bytes[12..14].copy_from_slice(&[0x86, 0xdd]);
    let tagged = Frame {
        vlan_tag: true,
        ..good.clone()
    };
    let cases = [
        (tagged, DropReason::EtherType),
        (tcp((B, 4000), (VNET, 80), SYN), DropReason::SourceAddress),
        (foreign_mac, DropReason::SourceMac),
        (ipv6, DropReason::EtherType),
        (Frame::new(&good.bytes[..20]), DropReason::Malformed),
    ];
    for (frame, reason) in cases {
        assert_eq!(from_a_pod(&node, &frame).0, Verdict::Drop(reason));
        assert!(
            node.drops.borrow().contains_key(&reason.index()),
            "{reason:?}"
        );
    }
    assert_eq!(counted(&node, Path::Dropped), 5);
    assert_eq!(
        send(&node, NIC, &good, NOW).0,
        Verdict::Drop(DropReason::UnknownVeth)
    );
}

#[test]
fn the_wireservers_secrets_are_out_of_reach_also_in_fragments_and_behind_options() {
    let node = node(1000);
    for port in [80, 32_526] {
        let (verdict, _) = from_a_pod(&node, &tcp((A, 4000), (WIRESERVER, port), SYN));
        assert_eq!(
            verdict,
            Verdict::Drop(DropReason::Wireserver),
            "port {port}"
        );
    }
    let dns = tcp((A, 4000), (WIRESERVER, 53), SYN);
    for (what, at, value) in [
        ("first fragment", 20, 0x20),
        ("later fragment", 21, 3),
        ("options", 14, 0x46),
    ] {
        let mut hidden = dns.clone();
        hidden.bytes[at] = value;
        assert_eq!(
            from_a_pod(&node, &hidden).0,
            Verdict::Drop(DropReason::Wireserver),
            "{what}"
        );
    }
    let (verdict, frame) = from_a_pod(&node, &dns);
    assert_eq!(
        (verdict, ends(&frame).0),
        (Verdict::Wire(NIC), (A, 4000)),
        "DNS over TCP, with the pod's address"
    );
    assert_eq!(
        from_a_pod(&node, &udp((A, 4000), (WIRESERVER, 53))).0,
        Verdict::Wire(NIC)
    );
}

#[test]
fn doubt_goes_to_the_stack() {
    let node = node(1000);
    let good = tcp((A, 4000), (VNET, 80), ACK);
    for (what, at, value) in [
        ("TTL 1", 22, 1),
        ("options", 14, 0x46),
        ("fragment", 20, 0x20),
        ("SCTP", 23, 132),
        ("a total length beyond the frame", 16, 0xff),
        ("a broadcast frame", 0, 0xff),
    ] {
        let mut odd = good.clone();
        odd.bytes[at] = value;
        let (verdict, left) = from_a_pod(&node, &odd);
        assert_eq!((verdict, left.bytes), (Verdict::Stack, odd.bytes), "{what}");
    }
    assert_eq!(
        from_a_pod(&node, &tcp((A, 4000), (SERVICE, 80), SYN)).0,
        Verdict::Stack,
        "a Service"
    );
    assert_eq!(
        from_a_pod(&node, &tcp((A, 4000), (PRIMARY, 80), SYN)).0,
        Verdict::Stack,
        "the node"
    );
}

#[test]
fn a_packet_beyond_the_mtu_goes_to_the_stack_and_a_super_packet_does_not() {
    let node = node(1000);
    let mut big = tcp((A, 4000), (VNET, 80), ACK);
    big.bytes.resize(14 + 1501, 0);
    assert_eq!(from_a_pod(&node, &big).0, Verdict::Stack);
    big.bytes.resize(14 + 1500, 0);
    assert_eq!(from_a_pod(&node, &big).0, Verdict::Wire(NIC));
    big.bytes.resize(60_000, 0);
    big.gso_size = 1460;
    assert_eq!(from_a_pod(&node, &big).0, Verdict::Wire(NIC));
    big.gso_size = 1461;
    assert_eq!(from_a_pod(&node, &big).0, Verdict::Stack);
}

#[test]
fn what_the_stack_delivered_is_answered_through_the_stack() {
    let node = node(1000);
    // kube-proxy has sent A's request for a ClusterIP to B.
    let mut request = tcp((A, 4000), (B, 80), SYN);
    assert_eq!(to_pod(&mut request, &node, VETH_B, || NOW), Verdict::Stack);
    let mut answer = tcp((B, 80), (A, 4000), SYN | ACK);
    answer.bytes[..12].copy_from_slice(&[host_mac(11).octets(), mac(11).octets()].concat());
    assert_eq!(send(&node, VETH_B, &answer, NOW).0, Verdict::Stack);
    assert_eq!(known(&node, (B, 80), (A, 4000)), Some(FlowFlags::VIA_STACK));
}

#[test]
fn what_the_stack_sent_to_the_wire_is_answered_through_the_stack() {
    let node = node(1000);
    let mut request = tcp((A, 4000), (VNET, 80), SYN);
    assert_eq!(to_wire(&mut request, &node, || NOW), Verdict::Stack);
    assert_eq!(
        receive(&node, &tcp((VNET, 80), (A, 4000), SYN | ACK), NOW).0,
        Verdict::Stack
    );
}

#[test]
fn a_fast_packet_teaches_the_wire_nothing_and_loses_its_mark() {
    let node = node(1000);
    let (_, mut frame) = from_a_pod(&node, &tcp((A, 4000), (VNET, 80), SYN));
    assert_eq!(to_wire(&mut frame, &node, || NOW), Verdict::Stack);
    assert_eq!(frame.mark, 0);
    assert_eq!(known(&node, (A, 4000), (VNET, 80)), None);
}

#[test]
fn what_the_node_itself_sends_is_not_remembered() {
    let node = node(1000);
    let mut probe = tcp((PRIMARY, 4000), (A, 80), SYN);
    assert_eq!(to_pod(&mut probe, &node, VETH_A, || NOW), Verdict::Stack);
    assert!(node.flows.borrow().is_empty());
}

#[test]
fn a_pod_that_is_called_from_the_internet_answers_with_its_own_address() {
    let node = node(1000);
    assert_eq!(
        receive(&node, &tcp((INTERNET, 5000), (A, 80), SYN), NOW).0,
        Verdict::Peer(VETH_A)
    );
    let (verdict, answer) = from_a_pod(&node, &tcp((A, 80), (INTERNET, 5000), SYN | ACK));
    assert_eq!((verdict, ends(&answer).0), (Verdict::Wire(NIC), (A, 80)));
    assert!(node.bindings.borrow().is_empty());
}

#[test]
fn arp_is_answered_with_the_host_veths_address() {
    let node = node(1000);
    let mut request = vec![0xff; 6];
    request.extend(mac(10).octets());
    request.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    request.extend(mac(10).octets());
    request.extend(A.octets());
    request.extend([0; 6]);
    request.extend(VNET.octets());
    let (verdict, reply) = from_a_pod(&node, &Frame::new(request.clone()));
    assert_eq!(verdict, Verdict::Reply(VETH_A));
    let mut expected = [mac(10).octets(), host_mac(10).octets()].concat();
    expected.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 2]);
    expected.extend(host_mac(10).octets());
    expected.extend(VNET.octets());
    expected.extend(mac(10).octets());
    expected.extend(A.octets());
    assert_eq!(reply.bytes, expected);

    request[31] ^= 1;
    assert_eq!(
        from_a_pod(&node, &Frame::new(request)).0,
        Verdict::Drop(DropReason::ArpSender)
    );
}

#[test]
fn what_the_pod_would_answer_through_the_stack_comes_in_through_the_stack() {
    let node = node(1000);
    // A private range without `serviceCidrs`, on-premises for example.
    let onprem = Ip4::new([10, 9, 0, 1]);
    assert_eq!(
        receive(&node, &tcp((onprem, 4000), (A, 80), SYN), NOW).0,
        Verdict::Stack
    );
    assert_eq!(
        receive(&node, &tcp((onprem, 4000), (A, 80), ACK), NOW).0,
        Verdict::Stack
    );
    assert_eq!(
        from_a_pod(&node, &tcp((A, 80), (onprem, 4000), SYN | ACK)).0,
        Verdict::Stack
    );
}

#[test]
fn a_tagged_frame_from_the_wire_is_the_stacks() {
    let tagged = Frame {
        vlan_tag: true,
        ..tcp((VNET, 80), (A, 4000), ACK)
    };
    assert_eq!(receive(&node(1000), &tagged, NOW).0, Verdict::Stack);
}

#[test]
fn a_foreign_mark_is_not_taken_for_ours() {
    let node = node(1000);
    let mut frame = Frame {
        mark: MARK | 1,
        ..tcp((A, 4000), (VNET, 80), SYN)
    };
    to_wire(&mut frame, &node, || NOW);
    assert_eq!(frame.mark, MARK | 1, "left alone");
    assert_eq!(
        known(&node, (A, 4000), (VNET, 80)),
        Some(FlowFlags::VIA_STACK),
        "and from the stack"
    );
}

#[test]
fn a_connection_from_the_internet_that_cannot_be_remembered_takes_the_stack() {
    let mut node = node(1000);
    node.flow_limit = 0;
    let opens = tcp((INTERNET, 5000), (A, 80), SYN);
    assert_eq!(receive(&node, &opens, NOW).0, Verdict::Stack);
}

#[test]
fn a_half_closed_flow_keeps_its_side_for_an_hour_and_a_closed_one_for_ten_seconds() {
    let node = node(1000);
    let expired = |after: u32| {
        let flow = node.flows.borrow().values().copied().next().unwrap();
        datapath::flow_expired(&flow, proto::TCP, Seconds(NOW.0 + after))
    };
    to_wire(&mut tcp((A, 4000), (VNET, 80), SYN), &node, || NOW);
    receive(&node, &tcp((VNET, 80), (A, 4000), SYN | ACK), NOW);
    assert!(!expired(120) && expired(121), "nobody has answered that");
    to_wire(&mut tcp((A, 4000), (VNET, 80), ACK), &node, || NOW);
    assert!(!expired(86_400));
    to_wire(&mut tcp((A, 4000), (VNET, 80), FIN | ACK), &node, || NOW);
    to_wire(&mut tcp((A, 4000), (VNET, 80), FIN | ACK), &node, || NOW);
    assert!(!expired(3600) && expired(3601), "one end has closed");
    receive(&node, &tcp((VNET, 80), (A, 4000), FIN | ACK), NOW);
    assert!(!expired(10) && expired(11), "both have");
    to_wire(&mut tcp((A, 4000), (VNET, 80), SYN), &node, || NOW);
    assert!(!expired(120), "and the ports are used again");
    to_wire(&mut tcp((A, 4000), (VNET, 80), ACK), &node, || NOW);
    assert!(!expired(86_400));
}

#[test]
fn a_reset_that_nobody_believes_leaves_the_flow_with_the_stack() {
    let node = node(1000);
    let (mine, remote) = ((A, 40_000), (VNET, 80));
    to_wire(&mut tcp(mine, remote, SYN), &node, || NOW);
    receive(&node, &tcp(remote, mine, RST), NOW);
    receive(&node, &tcp(remote, mine, ACK), NOW);
    let key = flow_key(
        (A, Port::from_u16(40_000)),
        (VNET, Port::from_u16(80)),
        proto::TCP,
    );
    let flow = *node.flows.borrow().get(&key).unwrap();
    assert!(!datapath::is_closed(&flow));
    assert!(!datapath::flow_expired(
        &flow,
        proto::TCP,
        Seconds(NOW.0 + 100)
    ));
    receive(&node, &tcp(remote, mine, RST), NOW);
    let flow = *node.flows.borrow().get(&key).unwrap();
    assert!(datapath::is_closed(&flow), "a second one is believed again");
}

#[test]
fn a_question_and_its_answer_are_forgotten_sooner_than_a_conversation() {
    let node = node(1000);
    let (mine, remote) = ((A, 40_000), (VNET, 53));
    let key = flow_key(
        (A, Port::from_u16(40_000)),
        (VNET, Port::from_u16(53)),
        proto::UDP,
    );
    let expires = |after: u32| {
        let flow = *node.flows.borrow().get(&key).unwrap();
        datapath::flow_expired(&flow, proto::UDP, Seconds(flow.last_seen + after))
    };
    to_wire(&mut udp(mine, remote), &node, || NOW);
    receive(&node, &udp(remote, mine), NOW);
    assert!(!expires(30) && expires(31));
    to_wire(&mut udp(mine, remote), &node, || Seconds(NOW.0 + 3));
    assert!(!expires(180) && expires(181));
}

#[test]
fn what_the_kernel_gets_of_a_pods_ipv4_says_that_its_source_is_checked() {
    let node = node(1000);
    let service = udp((A, 4000), (SERVICE, 80));
    let mut options = tcp((A, 4000), (VNET, 80), SYN);
    options.bytes[14] = 0x46;
    for frame in [service, options] {
        let (verdict, left) = from_a_pod(&node, &frame);
        assert_eq!((verdict, left.priority), (Verdict::Stack, SOURCE_CHECKED));
    }
    for fast in [
        tcp((A, 4000), (B, 80), SYN),
        tcp((A, 4000), (VNET, 80), SYN),
    ] {
        let (verdict, left) = from_a_pod(&node, &fast);
        assert!(verdict != Verdict::Stack && left.priority == 0);
    }
}
