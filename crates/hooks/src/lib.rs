//! Attaches pinned programs to interfaces with pinned TCX links, and heals, replaces, lists and removes them; opens
//! the pinned maps.
//!
//! The one place that attaches: the CNI binary uses it for a pod's host veth, the loader for the NIC and for replacing
//! every program at start. A link is pinned in bpffs, so that it outlives the process that made it; replacing the
//! program behind a link is one atomic `BPF_LINK_UPDATE`, during which no packet is lost.

mod attach;
mod maps;
mod pins;

pub use attach::{AttachError, Hook, Outcome, attach, open, pinned, remove, runs};
pub use maps::{Abi, Maps, MapsError, total};
pub use pins::Pins;
