//! Every decision about a packet, as pure functions.
//!
//! The four entry points [`from_pod()`], [`to_pod()`], [`from_wire()`] and [`to_wire()`] take a [`Packet`] (read and write
//! bytes), [`Tables`] (look-ups) and the time, and return a [`Verdict`]; [`xdp_guard()`] only looks at [`Bytes`] and drops. They are compiled twice: into the BPF programs,
//! where a packet is an skb and the tables are maps, and on the host, where both are plain memory (feature `model`).
//! The agreement test runs both on the same frames and compares verdicts, bytes and table changes.
//!
//! Rules: no allocation, no clocks, no maps, no `unsafe`. Everything is inlined into one function per program, so that
//! the verifier sees straight code. Offsets are constant: a packet with IP options goes to the stack before anything
//! behind the IP header is looked at.
#![no_std]
#![forbid(unsafe_code)]
#![expect(
    clippy::trivially_copy_pass_by_ref,
    clippy::unnecessary_wraps,
    reason = "everything is inlined into one function per program, and verdicts have one shape"
)]

#[cfg(feature = "model")]
extern crate std;

mod arp;
mod binding;
mod checksum;
mod expiry;
mod flow;
mod forward;
mod fragment;
mod from_pod;
mod from_wire;
mod guard;
mod hash;
mod headers;
mod icmp_error;
#[cfg(feature = "model")]
pub mod model;
mod packet;
mod ports;
mod search;
mod snat;
mod tables;
mod to_pod;
mod to_wire;
mod translate;
mod verdict;

pub use checksum::{Word, replace};
pub use expiry::{Seconds, binding_expired, flow_expired, is_closed};
pub use flow::flow_key;
pub use from_pod::from_pod;
pub use from_wire::from_wire;
pub use guard::xdp_guard;
pub use packet::{Bytes, ChecksumKind, Packet};
pub use ports::CANDIDATES;
pub use tables::{Peer, Tables};
pub use to_pod::to_pod;
pub use to_wire::to_wire;
pub use verdict::Verdict;
