//! What lies behind a packet's total length is not part of it.
#![cfg(test)]

mod support;

use abi::DropReason;
use datapath::Verdict;
use datapath::model::Frame;
use support::*;

/// The frame with another total length in its IP header, checksum made right.
fn resized(frame: &Frame, total: u16) -> Frame {
    let mut frame = frame.clone();
    frame.bytes[16..18].copy_from_slice(&total.to_be_bytes());
    frame.bytes[24..26].fill(0);
    let words = frame.bytes[14..34].chunks(2);
    let sum: u32 = words
        .map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])))
        .sum();
    let sum = u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
    frame.bytes[24..26].copy_from_slice(&(!sum).to_be_bytes());
    frame
}

#[test]
fn a_total_length_that_ends_inside_the_headers_is_the_stacks() {
    let node = node(1000);
    for dst in [B, VNET, INTERNET] {
        let (tcp, udp) = (
            tcp((A, 40_000), (dst, 80), SYN),
            udp((A, 40_000), (dst, 53)),
        );
        for (frame, lengths) in [(tcp, [0, 19, 20, 39]), (udp, [0, 19, 20, 27])] {
            assert_ne!(
                from_a_pod(&node, &frame).0,
                Verdict::Stack,
                "the honest one"
            );
            node.bindings.borrow_mut().clear();
            for total in lengths {
                let (verdict, after) = from_a_pod(&node, &resized(&frame, total));
                assert_eq!(verdict, Verdict::Stack, "{total} bytes to {dst:?}");
                let as_sent = resized(&frame, total).bytes;
                assert_eq!(after.bytes, as_sent, "left as it was");
            }
            assert!(
                node.bindings.borrow().is_empty(),
                "no port for what is no packet"
            );
        }
    }
    let hidden = resized(&tcp((A, 4000), (WIRESERVER, 53), SYN), 39);
    assert_eq!(
        from_a_pod(&node, &hidden).0,
        Verdict::Drop(DropReason::Wireserver)
    );
}

#[test]
fn a_big_tcp_super_packet_has_no_total_length_and_is_fast() {
    let node = node(1000);
    let mut big = resized(&tcp((A, 4000), (B, 80), ACK), 0);
    big.gso_size = 1448;
    big.bytes.resize(14 + 0xffff, 0);
    assert_eq!(from_a_pod(&node, &big).0, Verdict::Stack, "it would fit");
    big.bytes.resize(14 + 0x1_0000, 0);
    assert_eq!(from_a_pod(&node, &big).0, Verdict::Peer(VETH_B));
}
