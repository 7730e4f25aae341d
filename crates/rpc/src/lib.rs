//! What the CNI binaries, `vnetctl` and the loader say to each other.
//!
//! One request per connection on a unix stream socket: the client writes one JSON document and shuts its writing side
//! down, the server answers with one JSON document and closes. End of stream is the frame. The socket is mode 0600 and
//! the loader checks `SO_PEERCRED` for uid 0.

pub mod azure;
mod call;
mod client;
mod endpoint;
mod flock;
mod lease;
mod message;
mod paths;
mod pool;
mod routed;
mod state;
mod told;
mod utc;
mod view;

pub use call::{CallFailure, CallReport, tell};
pub use client::{CallError, call, connect_within};
pub use endpoint::{BadMac, Endpoint, Key, MacAddr};
pub use flock::{lock_holder, lock_within};
pub use lease::{COOL_DOWN_MS, Lease, NetnsId, leases, netns_lives};
pub use message::{
    Attached, ClassView, Classified, ConfigView, Counted, DestinationView, GuardView, NodeView,
    PodView, PoolView, Refusal, Reply, Request, Status, TableView,
};
pub use paths::{LOADER_CONFIG, RUN_DIRECTORY, RunDirectory};
pub use pool::{Interface, Pools, Subnet};
pub use routed::routed;
pub use state::{
    StateError, boot_id, read_json, remove_durably, replace, write_json, write_synced,
};
pub use told::{Nic, ToldInterface, ToldSubnet, judge};
pub use utc::utc;
pub use view::View;
