//! What may happen to a packet because of its destination: the values of map `dst4`.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::Ip4;

/// Class of a destination address. The longest matching prefix in `dst4` decides; no match is [`Class::Stack`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Class {
    /// Leave the packet to the host's kernel, which is always right.
    Stack = 0,
    /// Straight to the wire with the pod's own source address.
    Direct = 1,
    /// To the wire with the NIC's primary address as source.
    Snat = 2,
    /// Azure's 168.63.129.16: direct, with TCP ports 80 and 32526 dropped while the block is on.
    Wireserver = 3,
    /// Refused: dropped and counted.
    Deny = 4,
}

impl Class {
    /// Every class.
    pub const ALL: [Self; 5] = [
        Self::Stack,
        Self::Direct,
        Self::Snat,
        Self::Wireserver,
        Self::Deny,
    ];

    /// The word that operators see.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stack => "stack",
            Self::Direct => "direct",
            Self::Snat => "snat",
            Self::Wireserver => "wireserver",
            Self::Deny => "deny",
        }
    }
}

/// Value of `dst4`, keyed by an IPv4 prefix in network byte order.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, PartialEq, Eq)]
#[repr(C)]
pub struct ClassEntry {
    class: u8,
    reserved: [u8; 3],
}

impl ClassEntry {
    /// The entry that says `class`.
    pub const fn new(class: Class) -> Self {
        Self {
            class: class as u8,
            reserved: [0; 3],
        }
    }

    /// The class; a number that this build does not know is [`Class::Stack`].
    #[inline(always)]
    pub const fn class(self) -> Class {
        match self.class {
            1 => Class::Direct,
            2 => Class::Snat,
            3 => Class::Wireserver,
            4 => Class::Deny,
            _ => Class::Stack,
        }
    }
}

/// Value of `class_cache`, one per CPU and index: the class of an address that is no pod's of this node, so that most
/// packets need neither the look-up in `pods` nor the walk through `dst4`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, PartialEq, Eq)]
#[repr(C)]
pub struct CachedClass {
    /// The address.
    pub addr: Ip4,
    /// What `epoch` was when the address was looked up; a later one makes the entry worthless.
    pub epoch: u32,
    /// What `dst4` said.
    pub class: ClassEntry,
}

impl CachedClass {
    /// Entries of `class_cache`. Packets of one CPU go to few addresses at a time.
    pub const CAPACITY: u32 = 256;

    /// Where the class of `addr` is kept, if it is: Fibonacci hashing, because neighbours differ in their low bits only.
    #[inline(always)]
    pub const fn index(addr: Ip4) -> u32 {
        addr.to_bits().wrapping_mul(0x9e37_79b1) >> 24
    }
}
