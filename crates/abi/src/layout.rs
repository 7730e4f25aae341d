//! What a map looks like: noted in map `layouts` for the builds before and after this one.
//!
//! A build knows its own layouts and how those before them become them. A build that came before knows nothing of later ones; so
//! they leave behind, with the map, how to get back.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

#[cfg(feature = "next-layout")]
use crate::pins::map;

/// Value of `layouts`. Never changes within an [`crate::ABI_VERSION`].
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, PartialEq, Eq)]
#[repr(C)]
pub struct Layout {
    /// Counts the layouts of one map, from 1. Another meaning of the same bytes is another layout, too.
    pub revision: u32,
    /// Size of a key of the revision before; 0 when there is no way from it and to it.
    pub key_before: u16,
    /// Size of a value of the revision before.
    pub value_before: u16,
    /// What the keys of both revisions have in common; the other bytes are zero.
    pub key: [Piece; Self::PIECES],
    /// What the values of both revisions have in common; the other bytes are zero, which must mean what the revision before
    /// meant by not having them.
    pub value: [Piece; Self::PIECES],
}

/// Bytes that are in both of two revisions, each perhaps elsewhere.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, PartialEq, Eq)]
#[repr(C)]
pub struct Piece {
    /// Where they begin in the revision before.
    pub before: u16,
    /// Where they begin in this one.
    pub now: u16,
    /// How many they are; 0 for none.
    pub len: u16,
}

impl Piece {
    /// No bytes.
    pub const NONE: Self = Self::new(0, 0, 0);

    /// `len` bytes.
    pub const fn new(before: u16, now: u16, len: u16) -> Self {
        Self { before, now, len }
    }
}

impl Layout {
    /// As many pieces as a key or a value can be cut into.
    pub const PIECES: usize = 16;

    /// A layout that has none before it.
    pub const FIRST: Self = Self {
        revision: 1,
        key_before: 0,
        value_before: 0,
        key: [Piece::NONE; Self::PIECES],
        value: [Piece::NONE; Self::PIECES],
    };

    /// The layout of a map in this build.
    pub fn of(name: &str) -> Self {
        match name {
            #[cfg(feature = "next-layout")]
            map::FLOWS => next::padded(16, 8, Piece::new(0, 8, 8)),
            #[cfg(feature = "next-layout")]
            map::SNAT => next::padded(12, 16, Piece::new(0, 0, 16)),
            #[cfg(feature = "next-layout")]
            map::DST4 => next::padded(8, 4, Piece::new(0, 0, 4)),
            #[cfg(feature = "next-layout")]
            map::PEER_CACHE | map::FLOW_CACHE => Self {
                revision: 2,
                ..Self::FIRST
            },
            _ => Self::FIRST,
        }
    }
}

#[cfg(feature = "next-layout")]
mod next {
    use super::{Layout, Piece};

    /// The second revision of a map whose values only differ in their padding.
    pub(super) fn padded(key: u16, value: u16, kept: Piece) -> Layout {
        let mut layout = Layout {
            revision: 2,
            key_before: key,
            value_before: value,
            ..Layout::FIRST
        };
        layout.key[0] = Piece::new(0, 0, key);
        layout.value[0] = kept;
        layout
    }
}
