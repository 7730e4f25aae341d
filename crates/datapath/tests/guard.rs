//! What `xdp_guard` drops and, more important, what it lets through.
#![cfg(test)]

mod support;

use abi::{DropReason, EndpointFlags, Ip4};
use datapath::model::{Frame, Memory};
use datapath::xdp_guard;
use proptest::prelude::*;
use support::*;

const OUTSIDE: Ip4 = Ip4::new([198, 51, 100, 7]);

fn from(src: Ip4) -> Frame {
    tcp((src, 443), (PRIMARY, 1024), ACK)
}

fn dropped(node: &Memory, reason: DropReason) -> u64 {
    let drops = node.drops.borrow();
    drops
        .get(&reason.index())
        .map_or(0, |counter| counter.packets)
}

#[test]
fn honest_senders_get_through() {
    let node = node(1000);
    for src in [VNET, INTERNET, WIRESERVER, Ip4::new([10, 240, 0, 1])] {
        assert_eq!(xdp_guard(&from(src), &node), None);
    }
    let arp = Frame::new([&[0xff; 12][..], &[8, 6], &[0; 28]].concat());
    assert_eq!(xdp_guard(&arp, &node), None);
    assert_eq!(xdp_guard(&Frame::new([0; 5]), &node), None);
    assert!(node.drops.borrow().is_empty());
}

#[test]
fn sources_that_no_wire_carries_are_dropped_and_counted() {
    let node = node(1000);
    let martians = [
        [0, 0, 0, 0],
        [0, 255, 255, 255],
        [127, 0, 0, 1],
        [224, 0, 0, 1],
        [239, 255, 255, 255],
        [240, 0, 0, 1],
        [255, 255, 255, 255],
    ];
    for (seen, src) in (1..).zip(martians) {
        let verdict = xdp_guard(&from(Ip4::new(src)), &node);
        assert_eq!(verdict, Some(DropReason::Martian), "{src:?}");
        assert_eq!(dropped(&node, DropReason::Martian), seen);
    }
    for src in [
        [1, 0, 0, 0],
        [126, 255, 255, 255],
        [128, 0, 0, 0],
        [223, 1, 1, 1],
    ] {
        assert_eq!(xdp_guard(&from(Ip4::new(src)), &node), None, "{src:?}");
    }
}

#[test]
fn the_nodes_own_addresses_do_not_come_from_the_wire() {
    let node = node(1000);
    for src in [PRIMARY, A, B] {
        for dst in [PRIMARY, A, B, VNET] {
            let frame = tcp((src, 443), (dst, 1024), ACK);
            let verdict = xdp_guard(&frame, &node);
            assert_eq!(verdict, Some(DropReason::OwnSource), "{src:?} {dst:?}");
        }
    }
}

#[test]
fn what_a_tunnel_mode_sent_to_the_fabric_may_come_back() {
    for tunnelled in [A, B] {
        let mut node = node(1000);
        node.pods.get_mut(&tunnelled).unwrap().flags = EndpointFlags::TUNNEL;
        for (src, dst) in [(A, B), (B, A)] {
            assert_eq!(xdp_guard(&tcp((src, 80), (dst, 80), ACK), &node), None);
        }
        // To anybody else it still cannot come.
        for dst in [PRIMARY, VNET] {
            let verdict = xdp_guard(&tcp((A, 80), (dst, 80), ACK), &node);
            assert_eq!(verdict, Some(DropReason::OwnSource));
        }
        let primary = xdp_guard(&tcp((PRIMARY, 80), (A, 80), ACK), &node);
        assert_eq!(primary, Some(DropReason::OwnSource));
    }
}

#[test]
fn headers_that_lie_are_malformed() {
    let node = node(1000);
    let good = from(VNET);
    let total = u16::try_from(good.bytes.len() - 14).unwrap();
    let with = |at: usize, value: &[u8]| {
        let mut frame = good.clone();
        frame.bytes[at..at + value.len()].copy_from_slice(value);
        frame
    };
    let cut = |len: usize| Frame::new(&good.bytes[..len]);
    let bad = [
        with(14, &[0x65]),
        with(14, &[0x44]),
        with(16, &[0, 19]),
        with(16, &(total + 1).to_be_bytes()),
        // The header is longer than its packet.
        Frame::new([&with(14, &[0x4f]).bytes[..16], &[0, 40], &good.bytes[18..]].concat()),
        cut(33),
        cut(20),
        cut(good.bytes.len() - 1),
    ];
    for frame in &bad {
        let verdict = xdp_guard(frame, &node);
        assert_eq!(verdict, Some(DropReason::Malformed), "{:02x?}", frame.bytes);
    }
    // Padding to Ethernet's 60 bytes, options and fragments are all right.
    let padded = Frame::new([&good.bytes[..], &[0; 20]].concat());
    let options = with(14, &[0x46]);
    let fragment = with(20, &[0x20, 0]);
    for frame in [padded, options, fragment] {
        assert_eq!(xdp_guard(&frame, &node), None);
    }
}

#[test]
fn the_deny_list_covers_its_prefixes_and_nothing_else() {
    let mut node = node(1000);
    node.denied = vec![(Ip4::new([198, 51, 100, 0]), 24), (INTERNET, 32)];
    for src in [OUTSIDE, INTERNET] {
        assert_eq!(xdp_guard(&from(src), &node), Some(DropReason::DenyList));
    }
    for src in [Ip4::new([198, 51, 101, 7]), Ip4::new([203, 0, 113, 11])] {
        assert_eq!(xdp_guard(&from(src), &node), None);
    }
    assert_eq!(dropped(&node, DropReason::DenyList), 2);
}

#[test]
fn until_the_loader_has_filled_the_settings_everything_passes() {
    let mut node = node(1000);
    node.config = None;
    assert_eq!(xdp_guard(&from(PRIMARY), &node), None);
}

proptest! {
    #[test]
    fn any_bytes_are_judged_and_a_drop_is_counted_once(
        bytes in prop::collection::vec(any::<u8>(), 0..120),
        ipv4 in any::<bool>(),
    ) {
        let node = node(1000);
        let mut bytes = bytes;
        if ipv4 && bytes.len() > 14 {
            bytes[12..15].copy_from_slice(&[8, 0, 0x45]);
        }
        let verdict = xdp_guard(&Frame::new(bytes), &node);
        let drops: u64 = node.drops.borrow().values().map(|counter| counter.packets).sum();
        prop_assert_eq!(drops, u64::from(verdict.is_some()));
    }

    /// What the guard drops, no honest sender needs: it is nothing that the data path would hand to a pod, but for sources
    /// that are forged.
    #[test]
    fn a_source_decides_and_not_what_it_talks_about(
        src in any::<[u8; 4]>(),
        port in any::<u16>(),
        to_pod in any::<bool>(),
    ) {
        let node = node(1000);
        let src = Ip4::new(src);
        let [first, ..] = src.octets();
        let forged = first == 0 || first == 127 || first >= 224 || [PRIMARY, A, B].contains(&src);
        let dst = if to_pod { A } else { PRIMARY };
        for frame in [tcp((src, port), (dst, port), SYN), udp((src, port), (dst, port)), ping(src, dst, port)] {
            prop_assert_eq!(xdp_guard(&frame, &node).is_some(), forged);
        }
    }
}
