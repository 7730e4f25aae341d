//! The node's settings as the programs read them: maps `config` and `secret`, one entry each.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{IfIndex, Ip4, Mac, Ticks};

/// Value of `config[0]`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, PartialEq, Eq)]
#[repr(C)]
pub struct Config {
    /// The NIC that the fabric is behind; 0 until the loader has filled the entry.
    pub nic: IfIndex,
    /// The NIC's primary address (PIP), the source of packets after SNAT.
    pub primary: Ip4,
    /// The NIC's Ethernet address.
    pub nic_mac: Mac,
    /// The NIC's MTU in bytes, without the Ethernet header.
    pub mtu: u16,
    /// First port for SNAT, host byte order.
    pub nat_first: u16,
    /// Number of ports for SNAT; 0 turns eBPF SNAT off, so that the kernel masquerades.
    pub nat_count: u16,
    /// Bindings that one pod may hold open, so that no pod takes all ports to one remote end; beyond, the kernel masquerades.
    pub nat_quota: u16,
    /// Length of the prefix that `subnet` is, in bits.
    pub subnet_len: u16,
    /// The mark that fast packets carry, all of it, from the redirect to `to_wire`.
    pub fast_mark: u32,
    /// [`ConfigFlags`].
    pub flags: ConfigFlags,
    /// The last endpoint generation that was handed out; kept here so that it outlives the loader.
    pub generation: u32,
    /// The count in map `flows_lost` that the loader has made up for; while the map holds another one, a flow that is not
    /// in `flows` goes to the stack.
    pub flows_lost: u32,
    /// The next hop of whatever is not in `subnet`; unspecified when the node's routes are not as simple as that, so that the
    /// kernel has to be asked for the next hop of every packet.
    pub gateway: Ip4,
    /// The NIC's connected prefix, whose addresses are their own next hops.
    pub subnet: Ip4,
    /// Counts the changes of what the programs keep in their caches. Read before what is put into them: who reads an old value
    /// keeps it under an old epoch.
    pub epoch: u32,
    /// The kernel's clock.
    pub ticks: Ticks,
}

impl Config {
    /// The next hop of packets to `dst` that leave by the NIC. `None`: the kernel knows.
    #[inline(always)]
    pub const fn next_hop(&self, dst: Ip4) -> Option<Ip4> {
        if self.gateway.to_bits() == 0 {
            return None;
        }
        let hosts = match u32::MAX.checked_shr(self.subnet_len as u32) {
            Some(hosts) => hosts,
            None => 0,
        };
        if dst.to_bits() & !hosts != self.subnet.to_bits() {
            return Some(self.gateway);
        }
        // The subnet's first and last addresses are broadcasts, which are not routed (RFC 2644).
        let host = dst.to_bits() & hosts;
        if host == 0 || host == hosts {
            None
        } else {
            Some(dst)
        }
    }
}

/// Switches of [`Config`].
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, PartialEq, Eq)]
#[repr(C)]
pub struct ConfigFlags {
    bits: u32,
}

impl ConfigFlags {
    /// No switch is on.
    pub const NONE: Self = Self { bits: 0 };
    /// Drop TCP 80 and 32526 from pods to [`crate::Class::Wireserver`] addresses.
    pub const BLOCK_WIRESERVER: Self = Self { bits: 1 };
    /// `flows` is above its high-water mark: a flow that is not in it goes to the stack.
    pub const FLOWS_FULL: Self = Self { bits: 2 };
    /// `datapath: stack`: no flow begins fast. Source checks stay, and what has a binding keeps it to its end.
    pub const STACK: Self = Self { bits: 4 };

    /// True when every switch of `other` is on.
    #[inline(always)]
    pub const fn contains(self, other: Self) -> bool {
        self.bits & other.bits == other.bits
    }

    /// Both sets of switches.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self {
            bits: self.bits | other.bits,
        }
    }

    /// The same switches, but those of `other` on or off.
    #[must_use]
    pub const fn set(self, other: Self, on: bool) -> Self {
        if on {
            self.with(other)
        } else {
            Self {
                bits: self.bits & !other.bits,
            }
        }
    }
}

/// Value of `secret[0]`: the key of the SNAT port hash, random once per boot.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, PartialEq, Eq)]
#[repr(C)]
pub struct Secret {
    /// 128 bits of key.
    pub key: [u64; 2],
}
