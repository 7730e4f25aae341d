//! Fragments: the pod's own go through the stack, and with them the rest of their flow, except answers to flows from
//! outside; of these, and of answers to SNATed traffic, the later fragments go where the first one went.
#![cfg(test)]

mod support;

use abi::{FlowFlags, Ip4};
use datapath::model::{Frame, Memory};
use datapath::{Seconds, Verdict};
use support::*;

/// Sends a small datagram to the Internet; the fragments of the large answer to it.
fn answer(node: &Memory) -> Vec<Frame> {
    let (_, sent) = from_a_pod(node, &udp((A, 40_000), (INTERNET, 53)));
    let nat_port = ends(&sent).0.1;
    fragments(&long_udp((INTERNET, 53), (PRIMARY, nat_port)), 800)
}

#[test]
fn the_fragments_of_an_answer_reach_the_pod_and_make_the_answer() {
    let node = node(1000);
    let received: Vec<Frame> = answer(&node)
        .iter()
        .map(|fragment| {
            let (verdict, frame) = receive(&node, fragment, NOW);
            assert_eq!(verdict, Verdict::Peer(VETH_A));
            frame
        })
        .collect();
    assert_eq!(received.len(), 3);
    assert_eq!(ends(&reassemble(&received)), ((INTERNET, 53), (A, 40_000)));
}

#[test]
fn a_fragment_that_comes_before_the_first_or_too_late_is_left_to_the_stack() {
    let node = node(1000);
    let fragments = answer(&node);
    assert_eq!(receive(&node, &fragments[1], NOW).0, Verdict::Stack);
    assert_eq!(receive(&node, &fragments[0], NOW).0, Verdict::Peer(VETH_A));
    let late = Seconds(NOW.0 + 31);
    assert_eq!(receive(&node, &fragments[1], late).0, Verdict::Stack);
}

#[test]
fn a_datagram_of_the_nodes_own_with_the_same_number_takes_the_entry_away() {
    let node = node(1000);
    let ours = answer(&node);
    receive(&node, &ours[0], NOW);
    let theirs = fragments(&long_udp((INTERNET, 53), (PRIMARY, 60_000)), 800);
    assert_eq!(receive(&node, &theirs[0], NOW).0, Verdict::Stack);
    assert_eq!(receive(&node, &theirs[1], NOW).0, Verdict::Stack);
}

#[test]
fn a_released_pods_fragments_go_to_nobody() {
    let mut node = node(1000);
    let fragments = answer(&node);
    receive(&node, &fragments[0], NOW);
    add_pod(&mut node, A, VETH_A, 10, 2);
    assert_eq!(receive(&node, &fragments[1], NOW).0, Verdict::Stack);
}

#[test]
fn after_a_fragmented_datagram_the_whole_flow_uses_the_kernels_port() {
    let node = node(1000);
    let small = udp((A, 40_000), (INTERNET, 53));
    let (_, sent) = from_a_pod(&node, &small);
    let large = fragments(&long_udp((A, 40_000), (INTERNET, 53)), 800);
    for fragment in &large {
        assert_eq!(from_a_pod(&node, fragment).0, Verdict::Stack);
    }
    assert_eq!(from_a_pod(&node, &small).0, Verdict::Stack);
    assert_eq!(
        known_of(&node, (A, 40_000), (INTERNET, 53), abi::proto::UDP),
        Some(FlowFlags::VIA_STACK)
    );
    let late_answer = udp((INTERNET, 53), (PRIMARY, ends(&sent).0.1));
    assert_eq!(
        receive(&node, &late_answer, NOW).0,
        Verdict::Peer(VETH_A),
        "to the port before"
    );
}

#[test]
fn fragments_to_a_pods_own_address_go_through_the_stack() {
    let node = node(1000);
    for fragment in fragments(&long_udp((VNET, 53), (A, 40_000)), 800) {
        assert_eq!(receive(&node, &fragment, NOW).0, Verdict::Stack);
    }
}

/// The fragments of A's large answer to a datagram that came from the Internet to A's own address.
fn answer_from_a(node: &Memory) -> Vec<Frame> {
    receive(node, &udp((INTERNET, 5000), (A, 53)), NOW);
    fragments(&long_udp((A, 53), (INTERNET, 5000)), 800)
}

#[test]
fn a_fragmented_answer_to_a_flow_from_outside_keeps_the_pods_address_and_so_does_the_rest_of_the_flow()
 {
    let node = node(1000);
    let sent: Vec<Frame> = answer_from_a(&node)
        .iter()
        .map(|fragment| {
            let (verdict, frame) = from_a_pod(&node, fragment);
            assert_eq!(verdict, Verdict::Wire(NIC));
            frame
        })
        .collect();
    assert_eq!(ends(&reassemble(&sent)), ((A, 53), (INTERNET, 5000)));
    let (verdict, small) = from_a_pod(&node, &udp((A, 53), (INTERNET, 5000)));
    assert_eq!((verdict, ends(&small).0), (Verdict::Wire(NIC), (A, 53)));
}

#[test]
fn a_pods_fragment_follows_none_that_went_elsewhere_that_is_too_old_or_that_another_pod_sent() {
    let mut node = node(1000);
    let answer = answer_from_a(&node);
    assert_eq!(from_a_pod(&node, &answer[0]).0, Verdict::Wire(NIC));
    let elsewhere = fragments(&long_udp((A, 53), (Ip4::new([203, 0, 113, 99]), 5000)), 800);
    assert_eq!(from_a_pod(&node, &elsewhere[1]).0, Verdict::Stack);
    let late = Seconds(NOW.0 + 31);
    assert_eq!(send(&node, VETH_A, &answer[1], late).0, Verdict::Stack);
    add_pod(&mut node, A, VETH_A, 10, 2);
    assert_eq!(from_a_pod(&node, &answer[1]).0, Verdict::Stack);
}

#[test]
fn a_pods_datagram_that_the_kernel_translates_takes_the_entry_away() {
    let node = node(1000);
    let answer = answer_from_a(&node);
    assert_eq!(from_a_pod(&node, &answer[0]).0, Verdict::Wire(NIC));
    // The same number, and another flow to the same host.
    let question = fragments(&long_udp((A, 40_000), (INTERNET, 53)), 800);
    assert_eq!(from_a_pod(&node, &question[0]).0, Verdict::Stack);
    assert_eq!(from_a_pod(&node, &question[1]).0, Verdict::Stack);
}
