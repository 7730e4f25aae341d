//! What must hold for whole flows, whatever happened before: both directions take one side, NAT there and back changes
//! nothing, and any bytes get a right verdict.
#![cfg(test)]

#[path = "support/case.rs"]
mod case;
mod support;

use abi::{ConfigFlags, EndpointFlags, Ip4};
use case::Hook;
use datapath::model::{Frame, Memory};
use datapath::{Seconds, Verdict, to_pod, to_wire};
use etherparse::PacketBuilder;
use proptest::prelude::*;
use support::*;

/// What may happen to a flow between pod A and the other end.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// The pod sends a segment with these flags.
    Sent(u8),
    /// The other end does.
    Received(u8),
    /// The kernel hands the pod a segment: it owns the flow.
    ToPod(u8),
    /// The kernel sends the pod's segment to the wire.
    ToWire(u8),
    /// Time passes.
    Wait(u32),
    /// The flow table gets full, or has room again.
    Full(bool),
}

fn flags() -> impl Strategy<Value = u8> {
    prop::sample::select(vec![SYN, SYN | ACK, ACK, FIN | ACK, RST, RST | ACK])
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => flags().prop_map(Event::Sent),
        4 => flags().prop_map(Event::Received),
        2 => flags().prop_map(Event::ToPod),
        2 => flags().prop_map(Event::ToWire),
        1 => (0_u32..10_000).prop_map(Event::Wait),
        1 => any::<bool>().prop_map(Event::Full),
    ]
}

const POD: End = (A, 4000);

fn is_local(other: End) -> bool {
    other.0 == B
}

/// Whether the pod's segment goes past the stack.
fn leaves_fast(node: &Memory, other: End, flags: u8, now: Seconds) -> bool {
    send(node, VETH_A, &tcp(POD, other, flags), now).0 != Verdict::Stack
}

/// Whether the other end's does.
fn comes_fast(node: &Memory, other: End, flags: u8, now: Seconds) -> bool {
    let mut frame = tcp(other, POD, flags);
    if !is_local(other) {
        return receive(node, &frame, now).0 != Verdict::Stack;
    }
    frame.bytes[..12].copy_from_slice(&[host_mac(11).octets(), mac(11).octets()].concat());
    send(node, VETH_B, &frame, now).0 != Verdict::Stack
}

fn happen(node: &mut Memory, other: End, event: Event, now: &mut Seconds) {
    match event {
        Event::Sent(flags) => drop(leaves_fast(node, other, flags, *now)),
        Event::Received(flags) => drop(comes_fast(node, other, flags, *now)),
        Event::ToPod(flags) => {
            to_pod(&mut tcp(other, POD, flags), node, VETH_A, || *now);
        }
        Event::ToWire(flags) => {
            to_wire(&mut tcp(POD, other, flags), node, || *now);
        }
        Event::Wait(seconds) => now.0 += seconds,
        Event::Full(full) => {
            let config = node.config.as_mut().unwrap();
            config.flags = config.flags.set(ConfigFlags::FLOWS_FULL, full);
        }
    }
}

/// A TCP segment, a datagram or a ping of a pod with this payload, and the answer to it.
fn exchange(kind: u8, src: End, dst: End, payload: &[u8]) -> Frame {
    let (from, to) = (mac(10).octets(), host_mac(10).octets());
    let step = PacketBuilder::ethernet2(from, to).ipv4(src.0.octets(), dst.0.octets(), 64);
    let mut bytes = Vec::new();
    let done = match kind {
        0 => step
            .tcp(src.1, dst.1, 1, 1000)
            .syn()
            .write(&mut bytes, payload),
        1 => step.udp(src.1, dst.1).write(&mut bytes, payload),
        2 => step
            .icmpv4_echo_request(src.1, 1)
            .write(&mut bytes, payload),
        _ => step.icmpv4_echo_reply(src.1, 1).write(&mut bytes, payload),
    };
    done.unwrap();
    Frame::new(bytes)
}

fn payload_of<'a>(frame: &'a Frame, sent: &[u8]) -> &'a [u8] {
    &frame.bytes[frame.bytes.len() - sent.len()..]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn both_directions_of_a_flow_take_one_side_whatever_happened(
        events in prop::collection::vec(event(), 0..40),
        local in any::<bool>(),
        tunnel in any::<bool>(),
        room in prop_oneof![Just(0), Just(usize::MAX)],
        next in prop::sample::select(vec![ACK, FIN | ACK]),
    ) {
        let other = if local { (B, 80) } else { (VNET, 80) };
        let mut node = node(1000);
        node.flow_limit = room;
        if tunnel {
            node.pods.get_mut(&B).unwrap().flags = EndpointFlags::TUNNEL;
            node.veths.get_mut(&VETH_B).unwrap().flags = EndpointFlags::TUNNEL;
        }
        let mut now = NOW;
        for event in events {
            happen(&mut node, other, event, &mut now);
            let leaves = leaves_fast(&node.clone(), other, next, now);
            let comes = comes_fast(&node.clone(), other, next, now);
            prop_assert_eq!(leaves, comes, "{:?}", event);
        }
    }

    #[test]
    fn nat_there_and_back_changes_neither_payload_nor_ends(
        kind in 0_u8..3,
        port in 1_u16..,
        remote_port in 1_u16..,
        remote in any::<[u8; 3]>(),
        payload in prop::collection::vec(any::<u8>(), 1..200),
        answer in prop::collection::vec(any::<u8>(), 1..200),
        ports in 1_u16..2000,
    ) {
        let node = node(ports);
        let echo = kind == 2;
        let server = (Ip4::new([203, remote[0], remote[1], remote[2]]), if echo { port } else { remote_port });
        let (verdict, out) = from_a_pod(&node, &exchange(kind, (A, port), server, &payload));
        prop_assert_eq!(verdict, Verdict::Wire(NIC));
        // `ends` recomputes every checksum from scratch.
        let (seen, dst) = ends(&out);
        prop_assert_eq!(seen.0, PRIMARY);
        prop_assert_eq!(dst.0, server.0);
        prop_assert!(echo || dst == server);
        prop_assert_eq!(payload_of(&out, &payload), &payload[..]);

        let reply = if echo { exchange(3, (server.0, seen.1), seen, &answer) } else { exchange(kind, server, seen, &answer) };
        let (verdict, back) = receive(&node, &reply, NOW);
        prop_assert_eq!(verdict, Verdict::Peer(VETH_A));
        prop_assert_eq!(ends(&back), (server, (A, port)));
        prop_assert_eq!(payload_of(&back, &answer), &answer[..]);
    }

    #[test]
    fn any_bytes_on_any_tables_get_a_right_verdict_from_every_hook(
        choices in any::<[u8; case::CHOICES]>(),
        noise in prop::collection::vec(any::<u8>(), 0..120),
        at in 0_usize..90,
        shape in 0_usize..6,
    ) {
        let mut bytes = match shape {
            0 => Vec::new(),
            1 => tcp((A, 4000), (INTERNET, 443), SYN).bytes,
            2 => udp((INTERNET, 443), (PRIMARY, 1024)).bytes,
            3 => ping(A, VNET, 7).bytes,
            4 => frag_needed(VNET, &tcp((PRIMARY, 1024), (INTERNET, 443), ACK), 28).bytes,
            _ => tcp((A, 4000), (B, 80), ACK).bytes,
        };
        let end = bytes.len().max(at);
        bytes.resize(end, 0);
        for (place, byte) in bytes.iter_mut().skip(at).zip(&noise) {
            *place = *byte;
        }
        if shape == 0 {
            bytes.extend(&noise);
        }
        let input = [&choices[..], &bytes].concat();
        for hook in Hook::ALL {
            case::run(hook, &input);
        }
    }
}

/// The instrument works: a flow that only one direction knows is found out.
#[test]
fn a_flow_with_two_sides_would_be_noticed() {
    let node = node(1000);
    let other = (VNET, 80);
    to_wire(&mut tcp(POD, other, ACK), &node, || NOW);
    assert!(!leaves_fast(&node, other, ACK, NOW));
    node.flows.borrow_mut().clear();
    assert!(comes_fast(&node, other, ACK, NOW));
}
