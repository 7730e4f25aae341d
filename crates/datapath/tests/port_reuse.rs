//! Source NAT: who gets a port again, when and whose it was.
#![cfg(test)]

mod support;

use abi::{Binding, BindingState, Port, proto};
use datapath::{Seconds, Verdict, binding_expired};
use support::*;

#[test]
fn an_expired_binding_is_taken_over() {
    let node = node(1);
    open(&node, 40_000);
    let later = Seconds(NOW.0 + 61);
    let syn = tcp((A, 40_001), (INTERNET, 443), SYN);
    assert_eq!(
        send(&node, VETH_A, &syn, NOW).0,
        Verdict::Stack,
        "not yet: a SYN has 60 s"
    );
    node.flows.borrow_mut().clear();
    assert_eq!(send(&node, VETH_A, &syn, later).0, Verdict::Wire(NIC));
}

/// Whether another connection gets the only port `after` seconds after the pod sent `closing` and the remote `answer`.
fn gets_the_port(closing: &[u8], answer: &[u8], after: u32) -> bool {
    let node = node(1);
    let nat_port = open(&node, 40_000);
    receive(
        &node,
        &tcp((INTERNET, 443), (PRIMARY, nat_port), SYN | ACK),
        NOW,
    );
    for flags in closing {
        from_a_pod(&node, &tcp((A, 40_000), (INTERNET, 443), *flags));
    }
    for flags in answer {
        receive(
            &node,
            &tcp((INTERNET, 443), (PRIMARY, nat_port), *flags),
            NOW,
        );
    }
    let syn = tcp((A, 40_001), (INTERNET, 443), SYN);
    send(&node, VETH_A, &syn, Seconds(NOW.0 + after)).0 == Verdict::Wire(NIC)
}

#[test]
fn a_closed_connections_port_is_taken_over_after_a_second_and_a_half_closed_ones_is_not() {
    for (closing, answer) in [
        (&[RST][..], &[][..]),
        (&[FIN | ACK], &[FIN | ACK]),
        (&[], &[RST]),
    ] {
        assert!(!gets_the_port(closing, answer, 1), "{closing:?} {answer:?}");
        assert!(gets_the_port(closing, answer, 2), "{closing:?} {answer:?}");
    }
    for (closing, answer) in [(&[FIN | ACK][..], &[][..]), (&[], &[FIN | ACK])] {
        assert!(
            !gets_the_port(closing, answer, 119),
            "{closing:?} {answer:?}"
        );
        assert!(
            gets_the_port(closing, answer, 121),
            "{closing:?} {answer:?}"
        );
    }
}

/// As long as the remote end may be in TIME-WAIT; RST leaves nothing there.
#[test]
fn the_port_of_a_connection_that_both_ends_closed_rests_for_a_minute() {
    for (state, rest) in [(BindingState::Closed, 60), (BindingState::Reset, 10)] {
        let binding = Binding::new(A, Port::from_u16(40_000), 1, state, NOW.0);
        let expired = |after| binding_expired(&binding, proto::TCP, Seconds(NOW.0 + after));
        assert!(!expired(rest) && expired(rest + 1), "{state:?}");
    }
}

#[test]
fn a_free_port_is_preferred_to_a_closed_connections() {
    let node = node(2);
    let first = open(&node, 40_000);
    from_a_pod(&node, &tcp((A, 40_000), (INTERNET, 443), RST));
    let later = Seconds(NOW.0 + 5);
    let (_, frame) = send(
        &node,
        VETH_A,
        &tcp((A, 40_001), (INTERNET, 443), SYN),
        later,
    );
    assert_ne!(ends(&frame).0.1, first);
}

#[test]
fn a_port_that_the_pod_uses_again_is_a_new_connection() {
    let node = node(1);
    let nat_port = open(&node, 40_000);
    receive(
        &node,
        &tcp((INTERNET, 443), (PRIMARY, nat_port), SYN | ACK),
        NOW,
    );
    from_a_pod(&node, &tcp((A, 40_000), (INTERNET, 443), FIN | ACK));
    open(&node, 40_000);
    receive(
        &node,
        &tcp((INTERNET, 443), (PRIMARY, nat_port), SYN | ACK),
        NOW,
    );
    let syn = tcp((A, 40_001), (INTERNET, 443), SYN);
    assert_eq!(
        send(&node, VETH_A, &syn, Seconds(NOW.0 + 7000)).0,
        Verdict::Stack,
        "established for two hours"
    );
}
