//! Addresses, ports and interface indexes. Byte order is in the type.

use core::fmt;
use core::net::Ipv4Addr;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// An IPv4 address, octets in network byte order.
///
/// Aligned to four bytes so that the BPF back end loads and compares it as one word.
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
#[repr(C, align(4))]
pub struct Ip4 {
    octets: [u8; 4],
}

impl Ip4 {
    /// 0.0.0.0.
    pub const UNSPECIFIED: Self = Self::new([0; 4]);

    /// From octets in network byte order.
    #[inline(always)]
    pub const fn new(octets: [u8; 4]) -> Self {
        Self { octets }
    }

    /// Octets in network byte order.
    #[inline(always)]
    pub const fn octets(self) -> [u8; 4] {
        self.octets
    }

    /// The address as an integer whose numeric order is the address order (host byte order).
    #[inline(always)]
    pub const fn to_bits(self) -> u32 {
        u32::from_be_bytes(self.octets)
    }
}

impl From<Ipv4Addr> for Ip4 {
    fn from(addr: Ipv4Addr) -> Self {
        Self::new(addr.octets())
    }
}

impl From<Ip4> for Ipv4Addr {
    fn from(addr: Ip4) -> Self {
        Self::from(addr.octets)
    }
}

impl fmt::Display for Ip4 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ipv4Addr::from(*self).fmt(f)
    }
}

/// A TCP or UDP port, or an ICMP echo identifier, in network byte order.
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
#[repr(C, align(2))]
pub struct Port {
    be: [u8; 2],
}

impl Port {
    /// No port: the remote end of an ICMP echo flow.
    pub const NONE: Self = Self::new([0; 2]);

    /// From two bytes in network byte order.
    #[inline(always)]
    pub const fn new(be: [u8; 2]) -> Self {
        Self { be }
    }

    /// From a number in host byte order.
    #[inline(always)]
    pub const fn from_u16(port: u16) -> Self {
        Self::new(port.to_be_bytes())
    }

    /// Two bytes in network byte order.
    #[inline(always)]
    pub const fn bytes(self) -> [u8; 2] {
        self.be
    }

    /// The number in host byte order.
    #[inline(always)]
    pub const fn get(self) -> u16 {
        u16::from_be_bytes(self.be)
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

/// An Ethernet address.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, PartialEq, Eq, Hash)]
#[repr(C, align(2))]
pub struct Mac {
    octets: [u8; 6],
}

impl Mac {
    /// The broadcast address ff:ff:ff:ff:ff:ff.
    pub const BROADCAST: Self = Self::new([0xff; 6]);

    /// From six octets in transmission order.
    #[inline(always)]
    pub const fn new(octets: [u8; 6]) -> Self {
        Self { octets }
    }

    /// Six octets in transmission order.
    #[inline(always)]
    pub const fn octets(self) -> [u8; 6] {
        self.octets
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.octets;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// A network interface index in the node's network namespace, host byte order; 0 is no interface.
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
pub struct IfIndex {
    index: u32,
}

impl IfIndex {
    /// No interface.
    pub const NONE: Self = Self::new(0);

    /// From the kernel's number.
    #[inline(always)]
    pub const fn new(index: u32) -> Self {
        Self { index }
    }

    /// The kernel's number.
    #[inline(always)]
    pub const fn get(self) -> u32 {
        self.index
    }
}

impl fmt::Display for IfIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.index.fmt(f)
    }
}
