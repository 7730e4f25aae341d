//! Source NAT: who gets a port again, when and whose it was.
#![cfg(test)]

mod support;

use abi::{Binding, BindingState, ConfigFlags, Port, proto};
use datapath::model::Memory;
use datapath::{Seconds, Verdict, binding_expired, to_pod};
use proptest::prelude::*;
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
        let gets_the_port = |after| gets_the_port(closing, answer, after);
        assert!(!gets_the_port(240), "{closing:?} {answer:?}");
        assert!(gets_the_port(241), "{closing:?} {answer:?}");
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
fn a_port_that_two_cpus_take_over_at_once_is_one_flows() {
    let node = node(1);
    let closed = |node: &Memory| {
        from_a_pod(node, &tcp((A, 40_000), (INTERNET, 443), SYN));
        from_a_pod(node, &tcp((A, 40_000), (INTERNET, 443), RST));
        *node.bindings.borrow().values().next().unwrap()
    };
    let rival = closed(&node);
    node.rival.set(Some(rival));
    let syn = tcp((A, 40_001), (INTERNET, 443), SYN);
    let later = Seconds(NOW.0 + 2);
    assert_eq!(send(&node, VETH_A, &syn, later).0, Verdict::Stack);
    assert_eq!(node.bindings.borrow().values().next(), Some(&rival));
    node.flows.borrow_mut().clear();
    assert_eq!(
        send(&node, VETH_A, &syn, later).0,
        Verdict::Wire(NIC),
        "nobody is faster"
    );
}

#[test]
fn a_late_fin_of_a_connection_does_not_shorten_the_next_one_on_its_port() {
    let node = node(1);
    let nat = (PRIMARY, open(&node, 40_000));
    from_a_pod(&node, &tcp((A, 40_000), (INTERNET, 443), RST));
    open(&node, 40_000);
    for flags in [FIN | ACK, SYN | ACK] {
        receive(&node, &tcp((INTERNET, 443), nat, flags), NOW);
    }
    let binding = *node.bindings.borrow().values().next().unwrap();
    assert_eq!(binding.state(), BindingState::Established);
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

/// What may happen to the connections of one pod to one server.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// The pod sends from one of four ports.
    Sent(u16, u8),
    /// The server sends to the port that it heard of last.
    Received(u8),
    /// The server opens a connection to one of the four ports: to the pod's own address, or through a translation of the kernel's.
    Opened(u16, bool),
    Wait(u32),
    /// Whether new flows take the stack: a full table, or the setting.
    Full(ConfigFlags, bool),
    /// What the pod may hold open.
    Share(u16),
}

fn event() -> impl Strategy<Value = Event> {
    let flags = || prop::sample::select(vec![SYN, SYN | ACK, ACK, FIN | ACK, RST]);
    let full = prop::sample::select(vec![ConfigFlags::FLOWS_FULL, ConfigFlags::STACK]);
    prop_oneof![
        6 => (0_u16..4, flags()).prop_map(|(port, flags)| Event::Sent(port, flags)),
        4 => prop::sample::select(vec![SYN | ACK, ACK, FIN | ACK, RST]).prop_map(Event::Received),
        2 => (0_u16..4, any::<bool>()).prop_map(|(port, own)| Event::Opened(port, own)),
        1 => (0_u32..200).prop_map(Event::Wait),
        1 => (full, any::<bool>()).prop_map(|(flag, is_full)| Event::Full(flag, is_full)),
        1 => (0_u16..4).prop_map(Event::Share),
    ]
}

/// As whose a segment leaves; `None`: the kernel's to choose.
fn leaves_by(node: &Memory, port: u16, flags: u8, now: Seconds) -> Option<End> {
    let frame = tcp((A, 40_000 + port), (INTERNET, 443), flags);
    let (verdict, sent) = send(node, VETH_A, &frame, now);
    (verdict != Verdict::Stack).then(|| ends(&sent).0)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// The remote end knows a connection by the end that its SYN came from, or went to.
    #[test]
    fn what_follows_a_syn_or_its_answer_leaves_as_that_did(
        events in prop::collection::vec(event(), 0..60),
        // Where nothing can be remembered, a SYN that is sent again may not find its binding behind a candidate that became free.
        (room, ports) in prop_oneof![Just((0, 1)), (1_u16..6).prop_map(|ports| (usize::MAX, ports))],
    ) {
        let mut node = node(ports);
        node.flow_limit = room;
        let (mut now, mut heard) = (NOW, 1024);
        for event in events {
            match event {
                Event::Sent(port, flags) => {
                    let left = leaves_by(&node, port, flags, now);
                    heard = left.filter(|end| end.0 == PRIMARY).map_or(heard, |end| end.1);
                    if flags & SYN != 0 {
                        let next = leaves_by(&node.clone(), port, ACK, now);
                        prop_assert_eq!(left, next, "{:?}", event);
                    }
                }
                Event::Received(flags) => {
                    receive(&node, &tcp((INTERNET, 443), (PRIMARY, heard), flags), now);
                }
                Event::Opened(port, own) => {
                    let mut syn = tcp((INTERNET, 443), (A, 40_000 + port), SYN);
                    if own {
                        receive(&node, &syn, now);
                    } else {
                        to_pod(&mut syn, &node, VETH_A, || now);
                    }
                }
                Event::Wait(seconds) => now.0 += seconds,
                Event::Full(flag, is_full) => {
                    let config = node.config.as_mut().unwrap();
                    config.flags = config.flags.set(flag, is_full);
                }
                Event::Share(quota) => node.config.as_mut().unwrap().nat_quota = quota,
            }
        }
    }
}
