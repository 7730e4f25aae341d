//! What the programs keep of their look-ups, each CPU for itself: found by an index instead of by a hash table, and without
//! touching memory that another CPU writes.
//!
//! An entry holds the [`crate::Config::epoch`] of its look-up; a later one makes it worthless.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{ClassEntry, Flow, FlowKey, IfIndex, Ip4, Pod, Veth};

/// Value of `peer_cache`: who has an address, so that most packets need neither the look-up in `pods` nor the walk through
/// `dst4`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, PartialEq, Eq)]
#[repr(C)]
pub struct CachedPeer {
    /// The address.
    pub addr: Ip4,
    /// The epoch of the look-up.
    pub epoch: u32,
    /// What `dst4` said, unless the address is a pod's.
    pub class: ClassEntry,
    /// What `pods` said; with interface 0, nothing.
    pub pod: Pod,
}

impl CachedPeer {
    /// Entries of `peer_cache`: a node's pods, and as many addresses that they talk to.
    pub const CAPACITY: u32 = 1 << Self::BITS;
    const BITS: u32 = 10;

    /// Where an address is kept, if it is.
    #[inline(always)]
    pub const fn index(addr: Ip4) -> u32 {
        scatter(addr.to_bits(), Self::BITS)
    }
}

/// Value of `veth_cache`: what `veths` says of a host veth.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, PartialEq, Eq)]
#[repr(C)]
pub struct CachedVeth {
    /// The host veth.
    pub ifindex: IfIndex,
    /// The epoch of the look-up.
    pub epoch: u32,
    /// What `veths` said.
    pub veth: Veth,
}

impl CachedVeth {
    /// Entries of `veth_cache`.
    pub const CAPACITY: u32 = 256;

    /// Where the veth is kept, if it is.
    #[inline(always)]
    pub const fn index(ifindex: IfIndex) -> u32 {
        ifindex.get() % Self::CAPACITY
    }
}

/// Value of `flow_cache`: a flow that the stack owns, as this CPU has seen it last. It counts for the second of its
/// `last_seen` only.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, PartialEq, Eq)]
#[repr(C)]
pub struct CachedFlow {
    /// Which flow.
    pub key: FlowKey,
    /// The epoch of the look-up.
    pub epoch: u32,
    /// What `flows` said.
    pub flow: Flow,
}

impl CachedFlow {
    /// Entries of `flow_cache`: flows that one CPU has on its hands within a second.
    pub const CAPACITY: u32 = 1 << Self::BITS;
    const BITS: u32 = 10;

    /// Where a flow is kept, if it is.
    #[inline(always)]
    pub const fn index(key: &FlowKey) -> u32 {
        let ports = (key.low_port.get() as u32) << 16 | key.high_port.get() as u32;
        scatter(key.low.to_bits() ^ key.high.to_bits() ^ ports, Self::BITS)
    }
}

/// Fibonacci hashing into `bits` bits: neighbours differ in their low bits only.
#[inline(always)]
const fn scatter(word: u32, bits: u32) -> u32 {
    word.wrapping_mul(0x9e37_79b1) >> (u32::BITS - bits)
}
