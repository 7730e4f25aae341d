//! ICMP errors find their way: to the pod whose packet they quote, and from the pod to who sent the packet that it quotes.
#![cfg(test)]

mod support;

use abi::{Ip4, Path};
use datapath::Verdict;
use datapath::model::{Frame, Memory};
use support::*;

#[test]
fn fragmentation_needed_reaches_the_pod_with_the_packet_that_it_sent() {
    let router = Ip4::new([198, 51, 100, 1]);
    for quoted in [8, 28] {
        for sent in [
            tcp((A, 40_000), (INTERNET, 443), SYN),
            udp((A, 40_000), (INTERNET, 443)),
            ping(A, INTERNET, 40_000),
        ] {
            let node = node(1000);
            let (_, on_wire) = from_a_pod(&node, &sent);
            let (verdict, error) = receive(&node, &frag_needed(router, &on_wire, quoted), NOW);
            assert_eq!(verdict, Verdict::Peer(VETH_A));
            let ((src, _), (dst, _)) = ends(&error);
            assert_eq!((src, dst), (router, A));
            // The quoted packet is the pod's own again; only its IP header's TTL and checksum differ.
            let quote = &error.bytes[42..];
            assert_eq!(
                quote[12..],
                sent.bytes[26..][..quote.len() - 12],
                "{quoted} bytes of transport quoted"
            );
        }
    }
}

/// What pod A sends to the Internet, and the answer as the pod gets it and as the wire showed it.
fn exchange(node: &Memory, request: &Frame, answer: impl Fn(Ip4, u16) -> Frame) -> (Frame, Frame) {
    let (_, sent) = from_a_pod(node, request);
    let (addr, nat_port) = ends(&sent).0;
    let wire = answer(addr, nat_port);
    let (verdict, received) = receive(node, &wire, NOW);
    assert_eq!(verdict, Verdict::Peer(VETH_A));
    (received, wire)
}

#[test]
fn the_remote_finds_in_a_pods_error_what_it_has_sent() {
    let node = node(1000);
    let exchanges = [
        exchange(&node, &udp((A, 40_000), (INTERNET, 53)), |addr, port| {
            udp((INTERNET, 53), (addr, port))
        }),
        exchange(
            &node,
            &tcp((A, 40_000), (INTERNET, 443), SYN),
            |addr, port| tcp((INTERNET, 443), (addr, port), SYN | ACK),
        ),
        exchange(&node, &ping(A, INTERNET, 7), |addr, id| {
            pong(INTERNET, addr, id)
        }),
    ];
    for (received, wire) in exchanges {
        for quoted in [8, 40] {
            let error = icmp_error((A, INTERNET), &received, quoted);
            let (verdict, sent) = from_a_pod(&node, &error);
            assert_eq!(verdict, Verdict::Wire(NIC));
            assert_eq!(ends(&sent), ((PRIMARY, 0), (INTERNET, 0)));
            // All but the quoted IP header's TTL and checksum is what the remote sent.
            let quote = &sent.bytes[42..];
            assert_eq!(quote[..8], wire.bytes[14..22]);
            assert_eq!(quote[12..], wire.bytes[26..][..quote.len() - 12]);
        }
    }
    assert_eq!(counted(&node, Path::ToInternet), 3 + 6);
}

#[test]
fn a_pods_error_about_nothing_that_it_got_is_left_to_the_stack() {
    let node = node(1000);
    for (src, dst) in [(INTERNET, A), (VNET, A), (INTERNET, B)] {
        let error = icmp_error((A, INTERNET), &udp((src, 53), (dst, 40_000)), 8);
        let (verdict, left) = from_a_pod(&node, &error);
        assert_eq!((verdict, left.bytes), (Verdict::Stack, error.bytes));
    }
}

#[test]
fn an_error_about_a_connection_from_outside_keeps_the_pods_address() {
    let node = node(1000);
    let syn = tcp((INTERNET, 5000), (A, 8080), SYN);
    let (_, received) = receive(&node, &syn, NOW);
    let error = icmp_error((A, INTERNET), &received, 8);
    let (verdict, sent) = from_a_pod(&node, &error);
    assert_eq!(verdict, Verdict::Wire(NIC));
    assert_eq!(ends(&sent).0.0, A);
}

#[test]
fn padding_behind_an_error_is_not_taken_for_a_quoted_checksum() {
    let node = node(1000);
    let (_, on_wire) = from_a_pod(&node, &tcp((A, 40_000), (INTERNET, 443), SYN));
    let mut error = frag_needed(Ip4::new([198, 51, 100, 1]), &on_wire, 8);
    error.bytes.extend([0x5a; 20]);
    let (verdict, mut received) = receive(&node, &error, NOW);
    assert_eq!(verdict, Verdict::Peer(VETH_A));
    received.bytes.truncate(received.bytes.len() - 20);
    assert_eq!(ends(&received).1.0, A, "and the ICMP checksum is right");
}

#[test]
fn an_error_that_quotes_less_than_a_port_pair_is_left_to_the_stack() {
    let node = node(1000);
    let (_, on_wire) = from_a_pod(&node, &tcp((A, 40_000), (INTERNET, 443), SYN));
    let mut error = frag_needed(Ip4::new([198, 51, 100, 1]), &on_wire, 4);
    error.bytes.extend([0; 20]);
    assert_eq!(receive(&node, &error, NOW).0, Verdict::Stack);
}

#[test]
fn redirects_are_dropped_wherever_they_come_from_and_go_to() {
    let node = node(1000);
    let redirect = |src, dst| {
        let mut frame = icmp_error((src, dst), &udp((dst, 1), (INTERNET, 2)), 8);
        frame.bytes[34] = 5;
        frame
    };
    let dropped = Verdict::Drop(abi::DropReason::IcmpRedirect);
    for target in [B, VNET, INTERNET, SERVICE, PRIMARY] {
        assert_eq!(
            from_a_pod(&node, &redirect(A, target)).0,
            dropped,
            "{target}"
        );
    }
    for target in [A, PRIMARY] {
        assert_eq!(
            receive(&node, &redirect(VNET, target), NOW).0,
            dropped,
            "{target}"
        );
    }
}
