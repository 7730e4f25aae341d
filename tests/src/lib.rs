//! The lab: a simulated Azure virtual network in network and mount namespaces of one machine.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! let lab = lab::Lab::new().nodes(2).build()?;
//! lab.node(1).start_loader()?;
//! let web = lab.node(1).add_pod("web")?;
//! let seen = web.tcp(lab.inet().addr(), 8080)?.peer_ip();
//! assert_eq!(seen, lab.node(1).addr());
//! # Ok(())
//! # }
//! ```
//!
//! Nothing of it is connected to the machine's own interfaces, and all of it, held by descriptors and by
//! children with a parent-death signal, vanishes with the process, even with SIGKILL.

mod bulk;
mod capture;
mod cgroup;
mod conntrack;
mod conversation;
mod counters;
mod damage;
mod dns;
mod dump;
mod echo;
mod fabric;
pub mod frame;
mod http;
pub mod ipv4;
pub mod keep;
mod lab;
pub mod libcni;
mod load;
mod loader;
mod log;
mod namespace;
mod neighbours;
mod node;
mod outside;
mod paths;
mod ping;
mod platform;
mod plugin;
mod pod;
mod probe;
mod process;
mod proxy;
mod reap;
mod root;
mod rules;
mod scrape;
mod service;
mod snapshot;
mod stream;
mod trail;
mod vnet;
mod wait;

pub use bulk::{at_once, percentiles};
pub use capture::{Capture, Sender};
pub use conntrack::Tracked;
pub use conversation::Conversation;
pub use damage::damage_is_mended;
pub use echo::{Client, EchoServer, Transport};
pub use fabric::Fabric;
pub use http::Response;
pub use ipv4::Ipv4;
pub use lab::{AZURE_CONFLIST, Lab, LabBuilder, NARROW};
pub use load::{Asked, ConnectClose, ConnectCloseServer, Held, HoldServer, Ratio};
pub use loader::Loader;
pub use namespace::Namespace;
pub use neighbours::{NODE_LOCAL_DNS, NodeLocalDns};
pub use node::{CONFLIST, Node};
pub use outside::{ECHO_PORTS, Outside};
pub use paths::paths_during;
pub use platform::{IMDS, Platform, WIRESERVER, Wireserver};
pub use pod::Pod;
pub use probe::{Paced, Probe, Within};
pub use process::{Finished, Process};
pub use proxy::{Proxy, Service};
pub use scrape::{METRICS_ON, METRICS_PORT, Scrape};
pub use snapshot::{Diff, Snapshot};
pub use stream::{Stream, StreamReport};
pub use trail::Trail;
pub use vnet::{GATEWAY, Mac, Nic, SUBNET, VIRTUAL_MAC};
pub use wait::{Deadline, Stop, eventually, pass};
