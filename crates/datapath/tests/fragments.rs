//! Fragments: the pod's own go through the stack, and with them the rest of their flow; answers to SNATed traffic are
//! followed by what their first fragment says.
#![cfg(test)]

mod support;

use abi::FlowFlags;
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

#[test]
fn a_fragmented_answer_does_not_make_the_rest_of_a_flow_from_outside_translated() {
    let node = node(1000);
    receive(&node, &udp((INTERNET, 5000), (A, 53)), NOW);
    for fragment in fragments(&long_udp((A, 53), (INTERNET, 5000)), 800) {
        from_a_pod(&node, &fragment);
    }
    let (verdict, small) = from_a_pod(&node, &udp((A, 53), (INTERNET, 5000)));
    assert_eq!((verdict, ends(&small).0), (Verdict::Wire(NIC), (A, 53)));
}
