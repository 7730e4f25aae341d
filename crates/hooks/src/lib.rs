//! Attaches pinned programs to interfaces, and replaces, lists and removes them; opens the pinned maps; dumps over netlink.
//!
//! The one place that attaches: the CNI binary uses it for a pod's host veth, the loader for the NIC and for replacing
//! every program at start. What is attached outlives the process that attached it, and replacing the program behind it
//! is one atomic step, during which no packet is lost.

mod attach;
mod batch;
mod filter;
mod held;
mod hook;
mod link;
mod maps;
#[cfg(feature = "model")]
pub mod model;
mod netlink;
mod pins;
mod raw;
mod sys;
mod ticks;
mod xdp;

pub use attach::{AttachError, Look, Outcome, attach, has_tcx, nics, open, remove, rename, runs};
pub use batch::{BatchError, Remover, each_entry};
pub use held::Held;
pub use hook::{Hook, Mechanism};
pub use maps::{Abi, Maps, MapsError, total};
pub use netlink::dump;
pub use pins::Pins;
pub use raw::RawMap;
pub use sys::wait_for_programs;
pub use ticks::ticks;
pub use xdp::{attach_guard, detach_guard, has_guard, replace_guard};
