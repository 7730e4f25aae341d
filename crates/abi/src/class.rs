//! What may happen to a packet because of its destination: the values of map `dst4`.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

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
    reserved: [u8; RESERVED],
}

const RESERVED: usize = if cfg!(feature = "next-layout") { 7 } else { 3 };

impl ClassEntry {
    /// The entry that says `class`.
    pub const fn new(class: Class) -> Self {
        Self {
            class: class as u8,
            reserved: [0; RESERVED],
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
