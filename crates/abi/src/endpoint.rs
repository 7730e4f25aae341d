//! A pod's attachment, seen from its address (`pods`) and from its host veth (`veths`).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{IfIndex, Ip4, Mac};

/// Index of a pod in `stats`, below [`crate::MAX_PODS`].
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
pub struct Slot {
    slot: u16,
}

impl Slot {
    /// From a number below [`crate::MAX_PODS`].
    #[inline(always)]
    pub const fn new(slot: u16) -> Self {
        Self { slot }
    }

    /// The number.
    #[inline(always)]
    pub const fn get(self) -> u16 {
        self.slot
    }

    /// Index into a map with one entry per pod.
    #[inline(always)]
    pub const fn index(self) -> u32 {
        self.slot as u32
    }
}

/// Switches of an attachment. Entries that an older loader wrote have none.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, PartialEq, Eq)]
#[repr(C)]
pub struct EndpointFlags {
    bits: u32,
}

impl EndpointFlags {
    /// No switch is on.
    pub const NONE: Self = Self { bits: 0 };
    /// Packets between this pod and other pods of the node cross the fabric, whose access lists see them then.
    pub const TUNNEL: Self = Self { bits: 1 };

    /// True when every switch of `other` is on.
    #[inline(always)]
    pub const fn contains(self, other: Self) -> bool {
        self.bits & other.bits == other.bits
    }
}

/// Value of `pods`, keyed by the pod's [`Ip4`].
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, PartialEq, Eq)]
#[repr(C)]
pub struct Pod {
    /// The host veth, which `bpf_redirect_peer` takes.
    pub ifindex: IfIndex,
    /// The pod's Ethernet address.
    pub mac: Mac,
    /// The host veth's Ethernet address.
    pub host_mac: Mac,
    /// Index into `stats`.
    pub slot: Slot,
    /// Changes when the address is given to another pod; bindings of an older generation are dead.
    pub generation: u16,
    /// What is special about the attachment.
    pub flags: EndpointFlags,
}

impl Pod {
    /// No pod.
    pub const NONE: Self = Self {
        ifindex: IfIndex::NONE,
        mac: Mac::new([0; 6]),
        host_mac: Mac::new([0; 6]),
        slot: Slot::new(0),
        generation: 0,
        flags: EndpointFlags::NONE,
    };
}

/// Value of `veths`, keyed by the host veth's [`IfIndex`].
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, PartialEq, Eq)]
#[repr(C)]
pub struct Veth {
    /// The only source address that the pod may use.
    pub addr: Ip4,
    /// The only source Ethernet address that the pod may use.
    pub mac: Mac,
    /// The host veth's Ethernet address: the answer to every ARP request of the pod.
    pub host_mac: Mac,
    /// Index into `stats`.
    pub slot: Slot,
    /// The same as in [`Pod`].
    pub generation: u16,
    /// The same as in [`Pod`].
    pub flags: EndpointFlags,
}
