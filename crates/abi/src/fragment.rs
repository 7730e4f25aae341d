//! Datagrams whose later fragments follow the first one, which alone has ports: map `fragments`.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::Ip4;

/// Key of `fragments`: what all fragments of a datagram share (RFC 791 §3.2), but for the destination.
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

/// Value of `fragments`: where the datagram's first fragment went.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, PartialEq, Eq)]
#[repr(C)]
pub struct Fragment {
    /// Of an answer that came from the wire, the pod; of a pod's datagram that leaves untranslated, its destination.
    pub to: Ip4,
    /// The generation of the pod that receives or sends it.
    pub generation: u16,
    zeros: u16,
    /// Time of the first fragment, seconds of [`crate::Ticks`].
    pub seen: u32,
}

impl Fragment {
    /// A datagram to `to` whose first fragment came at `seen`, in seconds.
    #[inline(always)]
    pub const fn new(to: Ip4, generation: u16, seen: u32) -> Self {
        Self {
            to,
            generation,
            zeros: 0,
            seen,
        }
    }
}
