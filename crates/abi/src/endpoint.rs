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
    /// Reserved, zero.
    pub reserved: u32,
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
    /// Reserved, zero.
    pub reserved: u32,
}
