//! What holds for every packet.
#![cfg(test)]

mod support;

use abi::IfIndex;
use datapath::model::Frame;
use datapath::{Verdict, from_pod, from_wire, replace, to_pod, to_wire};
use proptest::prelude::*;
use support::*;

/// The checksum of RFC 1071, from scratch.
fn checksum(words: &[u16]) -> u16 {
    let sum: u32 = words.iter().copied().map(u32::from).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap()
}

/// Frames that begin like IPv4 from pod A or like anything else, of any length.
fn any_frame() -> impl Strategy<Value = Frame> {
    let shaped =
        (prop::collection::vec(any::<u8>(), 0..120), 0_usize..80).prop_map(|(noise, from)| {
            let mut bytes = tcp((A, 4000), (INTERNET, 443), SYN).bytes;
            for (at, byte) in noise.into_iter().enumerate() {
                if let Some(place) = bytes.get_mut(from + at) {
                    *place = byte;
                }
            }
            bytes
        });
    let bytes = prop_oneof![prop::collection::vec(any::<u8>(), 0..200), shaped];
    (bytes, any::<u32>(), prop_oneof![Just(0), any::<u32>()]).prop_map(|(bytes, mark, gso_size)| {
        Frame {
            mark,
            gso_size: gso_size % 70_000,
            ..Frame::new(bytes)
        }
    })
}

proptest! {
    #[test]
    fn an_incremental_checksum_is_the_checksum_from_scratch(
        words in prop::collection::vec(any::<u16>(), 2..20),
        to in any::<[u8; 4]>(),
    ) {
        let mut changed = words.clone();
        let [a, b] = [words[0].to_be_bytes(), words[1].to_be_bytes()];
        changed[0] = u16::from_be_bytes([to[0], to[1]]);
        changed[1] = u16::from_be_bytes([to[2], to[3]]);
        let incremental = replace(checksum(&words).to_be_bytes(), [a[0], a[1], b[0], b[1]], to);
        let fresh = checksum(&changed);
        // The two zeros of one's complement stand for the same sum, and only for the sum zero.
        let same = u16::from_be_bytes(incremental) == fresh;
        prop_assert!(same || (changed.iter().all(|word| *word == 0) || fresh == 0 || fresh == 0xffff));
    }

    #[test]
    fn no_frame_makes_any_program_panic(frame in any_frame()) {
        let node = node(1000);
        from_pod(&mut frame.clone(), &node, VETH_A, || NOW);
        from_wire(&mut frame.clone(), &node, || NOW);
        to_pod(&mut frame.clone(), &node, VETH_A, || NOW);
        to_wire(&mut { frame }, &node, || NOW);
    }

    #[test]
    fn what_is_left_to_the_stack_is_left_as_it_was(frame in any_frame()) {
        let node = node(3);
        let mut sent = frame.clone();
        if from_pod(&mut sent, &node, VETH_A, || NOW) == Verdict::Stack {
            prop_assert_eq!(&sent.bytes, &frame.bytes);
        }
        let mut received = frame.clone();
        if from_wire(&mut received, &node, || NOW) == Verdict::Stack {
            prop_assert_eq!(&received.bytes, &frame.bytes);
        }
    }

    #[test]
    fn nothing_with_a_foreign_source_leaves_a_pod(frame in any_frame()) {
        let node = node(1000);
        let own = frame.bytes.get(6..12) == Some(&mac(10).octets()[..])
            && (frame.bytes.get(12..14) == Some(&[8, 6][..]) || frame.bytes.get(26..30) == Some(&A.octets()[..]));
        let verdict = from_pod(&mut { frame }, &node, VETH_A, || NOW);
        prop_assert!(own || matches!(verdict, Verdict::Drop(_)), "{:?}", verdict);
    }

    #[test]
    fn every_connection_comes_back_to_the_pod_and_port_that_opened_it(
        opened in prop::collection::btree_set((1_u16.., 0_u8..3), 1..60),
        ports in 1_u16..400,
    ) {
        let node = node(ports);
        let mut on_wire = std::collections::BTreeMap::new();
        for (port, remote) in opened {
            let remote = abi::Ip4::new([203, 0, 113, remote]);
            let (verdict, frame) = from_a_pod(&node, &tcp((A, port), (remote, 443), SYN));
            if verdict == Verdict::Wire(NIC) {
                let clash = on_wire.insert(ends(&frame), (port, remote));
                prop_assert_eq!(clash, None, "two connections look the same on the wire");
            } else {
                prop_assert_eq!(verdict, Verdict::Stack);
            }
        }
        for ((src, dst), (port, remote)) in on_wire {
            let (verdict, frame) = receive(&node, &tcp(dst, src, SYN | ACK), NOW);
            prop_assert_eq!(verdict, Verdict::Peer(VETH_A));
            prop_assert_eq!(ends(&frame), ((remote, 443), (A, port)));
        }
    }

    #[test]
    fn an_unknown_veth_sends_nothing(frame in any_frame(), index in 1000_u32..) {
        let verdict = from_pod(&mut { frame }, &node(1000), IfIndex::new(index), || NOW);
        prop_assert!(matches!(verdict, Verdict::Drop(_)));
    }
}
