//! The bytes that kernel and user space share: map keys and values, drop reasons, counters, pin names.
//!
//! Layouts only, no logic. Every type derives `zerocopy::IntoBytes`, so a struct with padding does not compile, and
//! every address and port is kept in network byte order inside its type, so there is no byte-order question elsewhere.
//! Once there is a release, a map whose layout changes gets the next [`Layout`], which says how the one before becomes it and how to
//! get back (docs/adr/0015-upgrades.md).
#![no_std]
#![forbid(unsafe_code)]

mod addr;
mod cache;
mod class;
mod config;
mod counter;
mod endpoint;
mod event;
mod flow;
mod fragment;
mod layout;
pub mod pins;
mod reason;
mod snat;
mod ticks;

pub use addr::{IfIndex, Ip4, Mac, Port};
pub use cache::{CachedFlow, CachedPeer, CachedVeth};
pub use class::{Class, ClassEntry};
pub use config::{Config, ConfigFlags, Secret};
pub use counter::{Counter, Path};
pub use endpoint::{EndpointFlags, Pod, Slot, Veth};
pub use event::{Event, Happening, Watch};
pub use flow::{Flow, FlowFlags, FlowKey};
pub use fragment::{Fragment, FragmentKey};
pub use layout::{Layout, Piece};
pub use reason::DropReason;
pub use snat::{Binding, BindingKey, BindingState};
pub use ticks::Ticks;

/// Version of the pin directory `v<ABI_VERSION>`: the names in it, and [`Layout`], by which builds tell each other what the maps
/// in it look like. It changes only with those.
pub const ABI_VERSION: u32 = 1;

/// IP protocol numbers that the data path understands (IANA "Protocol Numbers").
pub mod proto {
    /// Internet Control Message Protocol, RFC 792.
    pub const ICMP: u8 = 1;
    /// Transmission Control Protocol, RFC 9293.
    pub const TCP: u8 = 6;
    /// User Datagram Protocol, RFC 768.
    pub const UDP: u8 = 17;
}

/// Bit of the mark of packets between pods of one node that shall cross the fabric. The loader's routing rule for it leads
/// to the gateway, for the kernel's packets and for `bpf_redirect_neigh`, which looks routes up with the mark.
///
/// Taken by none of those whom the mark of fast packets avoids (see the loader's settings).
pub const TUNNEL_MARK: u32 = 0x20;

/// `skb->priority` of what `from_pod` leaves to the kernel of a pod's IPv4 packets: their source is checked, so the nft table `azure-vnet`,
/// which checks it where the programs are gone, need not look their route up. A veth clears the field of what comes out of a pod
/// (`____dev_forward_skb`), and `ip_forward` writes another one, so nobody else makes it or sees it.
pub const SOURCE_CHECKED: u32 = 0x617a_0001;

/// Most entries of `pods` and `veths`: 250 pods of a node, with room for twice that and stale ones.
pub const MAX_PODS: u32 = 1024;
/// Most prefixes in `dst4`.
pub const MAX_CLASSES: u32 = 4096;
/// Most prefixes in `deny`.
pub const MAX_DENIED: u32 = 4096;
/// Most tracked flows in `flows`, unless configured otherwise.
pub const MAX_FLOWS: u32 = 262_144;
/// Most fragmented datagrams on their way in, in `fragments`; the oldest makes room.
pub const MAX_FRAGMENTS: u32 = 4096;
/// Most SNAT bindings in `snat`, unless configured otherwise.
pub const MAX_BINDINGS: u32 = 262_144;
