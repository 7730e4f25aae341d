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
