//! Counters: per pod and path in `stats`, per reason in `drops`. Both maps hold one value per CPU.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::Slot;

/// Value of `stats` and `drops`.
#[derive(
    Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout, PartialEq, Eq,
)]
#[repr(C)]
pub struct Counter {
    /// Packets; a GSO super-packet counts as one.
    pub packets: u64,
    /// Bytes, Ethernet header included.
    pub bytes: u64,
}

/// The way that a packet took, seen from one pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Path {
    /// Sent to a pod of this node by `bpf_redirect_peer`.
    ToPod = 0,
    /// Sent to the wire with the pod's own source address.
    ToVnet = 1,
    /// Sent to the wire with the primary address as source.
    ToInternet = 2,
    /// Sent, and left to the kernel.
    ToStack = 3,
    /// Sent, and dropped; `drops` says why.
    Dropped = 4,
    /// Received from a pod of this node by `bpf_redirect_peer`.
    FromPod = 5,
    /// Received from the wire, addressed to the pod.
    FromVnet = 6,
    /// Received from the wire, addressed to the primary address.
    FromInternet = 7,
    /// Received through the kernel.
    FromStack = 8,
}

impl Path {
    /// Every path, in the order of their numbers.
    pub const ALL: [Self; 9] = [
        Self::ToPod,
        Self::ToVnet,
        Self::ToInternet,
        Self::ToStack,
        Self::Dropped,
        Self::FromPod,
        Self::FromVnet,
        Self::FromInternet,
        Self::FromStack,
    ];

    /// Entries of `stats` per pod; the rest is reserved.
    pub const STRIDE: u32 = 16;

    /// The word that operators see.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ToPod => "to_pod",
            Self::ToVnet => "to_vnet",
            Self::ToInternet => "to_internet",
            Self::ToStack => "to_stack",
            Self::Dropped => "dropped",
            Self::FromPod => "from_pod",
            Self::FromVnet => "from_vnet",
            Self::FromInternet => "from_internet",
            Self::FromStack => "from_stack",
        }
    }

    /// Index into `stats` of this path for the pod with `slot`.
    #[inline(always)]
    pub const fn index(self, slot: Slot) -> u32 {
        slot.get() as u32 * Self::STRIDE + self as u32
    }
}
