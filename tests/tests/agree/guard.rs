//! `xdp_guard` in the kernel and on the host: the same frames are dropped for the same reasons, and none is changed.

use std::collections::BTreeMap;

use abi::pins::program;
use abi::{DropReason, Ip4};
use datapath::xdp_guard;

use crate::frames::Shaper;
use crate::kernel::Kernel;
use crate::tables::assert_same;
use crate::world::{INTERNET, PRIMARY, TUNNEL_POD, World, enter_new_namespace};

/// `XDP_DROP` and `XDP_PASS`.
const DROP: u32 = 1;
const PASS: u32 = 2;
const SOURCES: [Ip4; 5] = [
    INTERNET,
    PRIMARY,
    TUNNEL_POD,
    Ip4::new([127, 0, 0, 1]),
    Ip4::new([198, 51, 100, 7]),
];

/// All that the guard says.
pub(crate) const VERDICTS: [&str; 5] = ["pass", "malformed", "martian", "own_source", "deny_list"];

pub(crate) fn agree(frames: usize) {
    enter_new_namespace();
    let mut kernel = Kernel::load();
    let mut world = World::roomy();
    world.memory.denied = vec![(Ip4::new([198, 51, 100, 0]), 24)];
    kernel.fill(&world);
    let mut shaper = Shaper::new(0x5eed);
    let mut verdicts = BTreeMap::new();
    for done in 1..=frames {
        let mut frame = shaper.frame(program::FROM_WIRE);
        if done % 3 == 0 {
            frame.bytes[26..30].copy_from_slice(&SOURCES[done % SOURCES.len()].octets());
        }
        let ours = xdp_guard(&frame, &world.memory);
        let ran = kernel.guard_run(&frame);
        let expected = if ours.is_some() { DROP } else { PASS };
        assert_eq!(ran.return_value, expected, "{ours:?}\n{frame:02x?}");
        *verdicts
            .entry(ours.map_or("pass", DropReason::name))
            .or_insert(0) += 1;
    }
    assert_same(&kernel.maps, &world.memory);
    println!("xdp_guard  {frames} frames: {verdicts:?}");
    for verdict in VERDICTS {
        let count = verdicts.get(verdict).copied().unwrap_or(0);
        assert!(count >= 20, "too few of {verdict}: {verdicts:?}");
    }
}
