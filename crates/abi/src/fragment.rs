//! Datagrams to the primary address that arrive in fragments: map `fragments`.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::Ip4;

/// Key of `fragments`: what all fragments of a datagram to the primary address share (RFC 791 §3.2).
#[derive(
    Clone,
    Copy,
    Debug,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
)]
#[repr(C)]
pub struct FragmentKey {
    /// The sender.
    pub src: Ip4,
    /// IPv4 identification, network byte order.
    pub id: [u8; 2],
    /// IP protocol number.
    pub proto: u8,
    zero: u8,
}

impl FragmentKey {
    /// The key of the datagram that `src` numbered `id`.
    #[inline(always)]
    pub const fn new(src: Ip4, id: [u8; 2], proto: u8) -> Self {
        Self {
            src,
            id,
            proto,
            zero: 0,
        }
    }
}

/// Value of `fragments`: the pod that the datagram's first fragment was for.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, PartialEq, Eq)]
#[repr(C)]
pub struct Fragment {
    /// The pod's address.
    pub pod: Ip4,
    /// The pod's generation.
    pub generation: u16,
    zeros: u16,
    /// Time of the first fragment, seconds of `CLOCK_MONOTONIC_COARSE`.
    pub seen: u32,
}

impl Fragment {
    /// A datagram to `pod` whose first fragment came at `seen`.
    #[inline(always)]
    pub const fn new(pod: Ip4, generation: u16, seen: u32) -> Self {
        Self {
            pod,
            generation,
            zeros: 0,
            seen,
        }
    }
}
