//! Packets between pods of one node when one of them is in a tunnel mode.
#![cfg(test)]

mod support;

use abi::{EndpointFlags, Ip4, Path, TUNNEL_MARK};
use datapath::model::{Frame, Memory};
use datapath::{Verdict, to_pod, to_wire};
use support::*;

/// A node on which these pods are in a tunnel mode.
fn tunnelled(pods: &[Ip4]) -> Memory {
    let mut node = node(1000);
    for addr in pods {
        let pod = node.pods.get_mut(addr).unwrap();
        pod.flags = EndpointFlags::TUNNEL;
        node.veths.get_mut(&pod.ifindex).unwrap().flags = EndpointFlags::TUNNEL;
    }
    node
}

/// What the kernel finds when it looks the way up.
fn to_gateway(frame: &Frame) -> bool {
    frame.mark & TUNNEL_MARK != 0
}

#[test]
fn either_ends_mode_sends_both_directions_to_the_gateway() {
    for pods in [&[A][..], &[B], &[A, B]] {
        let node = tunnelled(pods);
        let (verdict, request) = from_a_pod(&node, &tcp((A, 4000), (B, 80), SYN));
        assert_eq!(verdict, Verdict::Wire(NIC), "{pods:?}");
        assert!(to_gateway(&request));
        assert_eq!(ends(&request), ((A, 4000), (B, 80)));
        assert_eq!((ttl(&request), counted(&node, Path::ToVnet)), (63, 1));
        let mut answer = tcp((B, 80), (A, 4000), SYN | ACK);
        answer.bytes[..12].copy_from_slice(&[host_mac(11).octets(), mac(11).octets()].concat());
        let (verdict, answer) = send(&node, VETH_B, &answer, NOW);
        assert_eq!(verdict, Verdict::Wire(NIC), "{pods:?}");
        assert!(to_gateway(&answer));
    }
    let (verdict, frame) = from_a_pod(&tunnelled(&[]), &tcp((A, 4000), (B, 80), SYN));
    assert_eq!((verdict, frame.mark), (Verdict::Peer(VETH_B), 0));
}

#[test]
fn what_comes_back_from_the_fabric_goes_to_the_pod_without_a_trace() {
    let node = tunnelled(&[A, B]);
    let (_, mut sent) = from_a_pod(&node, &tcp((A, 4000), (B, 80), SYN));
    assert_eq!(to_wire(&mut sent, &node, || NOW), Verdict::Stack);
    assert_eq!(sent.mark, 0, "no mark leaves the node");
    assert_eq!(known(&node, (A, 4000), (B, 80)), None);
    let (verdict, received) = receive(&node, &sent, NOW);
    assert_eq!(verdict, Verdict::Peer(VETH_B));
    assert_eq!(ends(&received), ((A, 4000), (B, 80)));
}

#[test]
fn what_is_left_to_the_stack_is_marked_so_that_it_crosses_the_fabric() {
    let node = tunnelled(&[B]);
    let mut fragment = udp((A, 4000), (B, 80));
    fragment.bytes[20] = 0x20;
    let mut sctp = tcp((A, 4000), (B, 80), ACK);
    sctp.bytes[23] = 132;
    let mut last_hop = tcp((A, 4000), (B, 80), ACK);
    last_hop.bytes[22] = 1;
    let big = Frame {
        gso_size: 1480,
        ..tcp((A, 4000), (B, 80), ACK)
    };
    for frame in [fragment, sctp, last_hop, big] {
        let (verdict, left) = from_a_pod(&node, &frame);
        assert_eq!((verdict, left.mark), (Verdict::Stack, TUNNEL_MARK));
        assert_eq!(left.bytes, frame.bytes);
    }
}

#[test]
fn a_flow_that_the_stack_translated_stays_with_the_stack() {
    let node = tunnelled(&[A, B]);
    // A talks to B through a Service: the kernel hands B the request.
    let mut request = tcp((A, 4000), (B, 80), SYN);
    assert_eq!(to_pod(&mut request, &node, VETH_B, || NOW), Verdict::Stack);
    let mut answer = tcp((B, 80), (A, 4000), SYN | ACK);
    answer.bytes[..12].copy_from_slice(&[host_mac(11).octets(), mac(11).octets()].concat());
    let (verdict, answer) = send(&node, VETH_B, &answer, NOW);
    // The loader's rules take the mark off, because the kernel knows that it translated.
    assert_eq!((verdict, answer.mark), (Verdict::Stack, TUNNEL_MARK));
}
