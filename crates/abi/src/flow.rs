//! Flows whose side of the road is known: map `flows`.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{Ip4, Port};

/// Key of `flows`: both ends of a flow in a normalised order, so that both directions find one entry.
///
/// `low` is the end whose (address, port) is numerically smaller. ICMP echo carries its identifier in both ports.
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
pub struct FlowKey {
    /// Address of the smaller end.
    pub low: Ip4,
    /// Address of the greater end.
    pub high: Ip4,
    /// Port of the smaller end.
    pub low_port: Port,
    /// Port of the greater end.
    pub high_port: Port,
    /// IP protocol number.
    pub proto: u8,
    zero: u8,
    zeros: u16,
}

impl FlowKey {
    /// From both ends, in their normalised order.
    #[inline(always)]
    pub const fn new(low: (Ip4, Port), high: (Ip4, Port), proto: u8) -> Self {
        Self {
            low: low.0,
            high: high.0,
            low_port: low.1,
            high_port: high.1,
            proto,
            zero: 0,
            zeros: 0,
        }
    }
}

/// Value of `flows`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, PartialEq, Eq)]
#[repr(C)]
pub struct Flow {
    #[cfg(feature = "next-layout")]
    padding: [u8; 8],
    /// What is known of the flow.
    pub flags: FlowFlags,
    zero: u8,
    zeros: u16,
    /// Time of the last packet seen, seconds of [`crate::Ticks`], at most one second old.
    pub last_seen: u32,
}

impl Flow {
    /// A flow seen at `last_seen`.
    #[inline(always)]
    pub const fn new(flags: FlowFlags, last_seen: u32) -> Self {
        Self {
            #[cfg(feature = "next-layout")]
            padding: [0; 8],
            flags,
            zero: 0,
            zeros: 0,
            last_seen,
        }
    }
}

/// What is known of a [`Flow`].
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, PartialEq, Eq)]
#[repr(C)]
pub struct FlowFlags {
    bits: u8,
}

impl FlowFlags {
    /// Nothing.
    pub const NONE: Self = Self { bits: 0 };
    /// Netfilter of this node owns the flow: both directions go through the stack.
    pub const VIA_STACK: Self = Self { bits: 1 };
    /// The remote end opened the flow to the pod's own address: the answer keeps the pod's address.
    pub const INBOUND: Self = Self { bits: 2 };
    /// TCP: the low end has sent FIN.
    pub const FIN_FROM_LOW: Self = Self { bits: 4 };
    /// TCP: the high end has sent FIN.
    pub const FIN_FROM_HIGH: Self = Self { bits: 8 };
    /// TCP: RST was seen.
    pub const RESET: Self = Self { bits: 16 };
    /// TCP: a segment has come after RST, so somebody did not believe it.
    pub const DOUBTED: Self = Self { bits: 32 };
    /// UDP and ICMP: packets were seen in more than one second.
    pub const LASTING: Self = Self { bits: 64 };
    /// TCP: a segment has come that is neither SYN nor RST, so somebody has answered.
    pub const ANSWERED: Self = Self { bits: 128 };
    /// Everything that tells of an end.
    pub const CLOSING: Self = Self {
        bits: 4 | 8 | 16 | 32,
    };

    /// True when every flag of `other` is set.
    #[inline(always)]
    pub const fn contains(self, other: Self) -> bool {
        self.bits & other.bits == other.bits
    }

    /// True when any flag of `other` is set.
    #[inline(always)]
    pub const fn intersects(self, other: Self) -> bool {
        self.bits & other.bits != 0
    }

    /// Both sets of flags.
    #[inline(always)]
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self {
            bits: self.bits | other.bits,
        }
    }

    /// The flags that are not in `other`.
    #[inline(always)]
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self {
            bits: self.bits & !other.bits,
        }
    }
}
