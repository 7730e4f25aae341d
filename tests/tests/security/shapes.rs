//! TCP segments in every disguise that a pod can give them.

use std::net::Ipv4Addr;

use fastrand::Rng;
use lab::{Ipv4, WIRESERVER, ipv4};

use crate::Ends;

const PROTECTED: [u16; 2] = [80, 32_526];
const OPTIONS: [&[u8]; 7] = [
    &[],
    &[],
    &[1, 1, 1, 0],
    &[7, 7, 4, 0, 0, 0, 0, 0],
    &[68, 8, 5, 0, 0, 0, 0, 0],
    &[148, 4, 0, 0],
    &[131, 7, 4, 168, 63, 129, 16, 0],
];
const SIZES: [usize; 4] = [8, 16, 24, 40];

/// The frames of one TCP segment to a protected port of the wireserver, disguised at random.
pub(crate) fn disguised(rng: &mut Rng, e: &Ends) -> Vec<Vec<u8>> {
    let flags = *pick(rng, &[2, 2, 2, 16, 18, 4, 1, 24, 0, 0xff]);
    let port = *pick(rng, &PROTECTED);
    let data = vec![rng.u8(..); rng.usize(..64)];
    let from = (e.own, *pick(rng, &[80, 53, 4000, 65_535]));
    let segment = Ipv4 {
        id: rng.u16(..),
        ttl: *pick(rng, &[64, 64, 2, 1, 255, 0]),
        fragment: *pick(rng, &[0, ipv4::DF, 0x8000]),
        options: pick(rng, &OPTIONS).to_vec(),
        ..Ipv4::tcp(from, (WIRESERVER, port), flags, &data)
    };
    let packets = match rng.u8(..6) {
        0 | 1 => vec![segment],
        2 => segment.fragments(*pick(rng, &SIZES)),
        3 => hidden_port(rng, &segment, port),
        4 => vec![tunnelled(rng, e, &segment)],
        _ => vec![lying(rng, segment)],
    };
    let mut frames: Vec<_> = packets.iter().map(|packet| e.frame(packet)).collect();
    if rng.bool() {
        rng.shuffle(&mut frames);
    }
    if let Some(first) = frames.first().cloned().filter(|_| rng.u8(..4) == 0) {
        frames.push(first);
    }
    for frame in &mut frames {
        disguise_frame(rng, frame);
    }
    frames
}

/// Fragments of a segment to another port, and one that would put the protected port over it.
fn hidden_port(rng: &mut Rng, segment: &Ipv4, port: u16) -> Vec<Ipv4> {
    let mut decoy = segment.clone();
    decoy.payload.splice(2..4, 53_u16.to_be_bytes());
    let mut parts = decoy.fragments(*pick(rng, &SIZES));
    let mut over = segment.part(0, *pick(rng, &SIZES));
    over.fragment |= ipv4::MF;
    over.payload.splice(2..4, port.to_be_bytes());
    parts.insert(rng.usize(..=parts.len()), over);
    parts
}

/// The segment inside another packet to the wireserver, the neighbour or the node.
fn tunnelled(rng: &mut Rng, e: &Ends, segment: &Ipv4) -> Ipv4 {
    let to: Ipv4Addr = *pick(rng, &[WIRESERVER, e.neighbour, e.node]);
    let bytes = segment.bytes();
    match rng.u8(..3) {
        0 => Ipv4::new(e.own, to, 4, &bytes),
        1 => Ipv4::new(e.own, to, 47, &[&[0, 0, 8, 0][..], &bytes].concat()),
        _ => Ipv4::udp(
            (e.own, 4000),
            (to, 4789),
            &[&[8, 0, 0, 0, 0, 0, 1, 0][..], &e.frame(segment)].concat(),
        ),
    }
}

/// A segment that is cut short, or whose TCP header lies.
fn lying(rng: &mut Rng, mut segment: Ipv4) -> Ipv4 {
    if rng.bool() {
        segment.payload.truncate(rng.usize(1..20));
    } else {
        segment.payload.splice(12..13, [rng.u8(..)]);
    }
    segment
}

/// Lies about lengths and about the frame.
fn disguise_frame(rng: &mut Rng, frame: &mut Vec<u8>) {
    match rng.u8(..12) {
        0 => frame.extend(vec![rng.u8(..); rng.usize(1..100)]),
        1 => resize(frame, *pick(rng, &[0, 20, 24, 39, 65_535])),
        2 => {
            let tag = pick(rng, &[[0x81, 0, 0, 0], [0x81, 0, 0, 5], [0x88, 0xa8, 0, 5]]);
            frame.splice(12..12, *tag);
        }
        3 => {
            frame.splice(0..6, *pick(rng, &[[0xff; 6], [1, 0, 0x5e, 0, 0, 1]]));
        }
        4 => {
            frame.splice(14..15, [*pick(rng, &[0x44, 0x46, 0x4f, 0x65, 0x05])]);
        }
        _ => {}
    }
}

fn resize(frame: &mut Vec<u8>, total: u16) {
    frame.splice(16..18, total.to_be_bytes());
    frame.splice(24..26, [0; 2]);
    let sum = lab::frame::checksum(frame.get(14..34).unwrap_or_default());
    frame.splice(24..26, sum.to_be_bytes());
}

fn pick<'a, T>(rng: &mut Rng, from: &'a [T]) -> &'a T {
    rng.choice(from).expect("nothing is picked from nothing")
}
