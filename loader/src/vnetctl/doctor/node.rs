//! What the checks look at, read once.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use abi::Config;
use hooks::{Abi, Pins};
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use rpc::{Endpoint, Pools, RunDirectory, Status, boot_id, connect_within, read_json};
use serde_json::Value;

use crate::foreign::{Chain, LookError, everything};
use crate::nic::ifname;
use crate::reconcile::endpoints;
use crate::validate::CONFLISTS;
use crate::vnetctl::pinned::Pinned;
use crate::vnetctl::status;

/// How long a loader whose queue is full may take to let us in: only to see which process it is.
const PATIENCE: Duration = Duration::from_secs(2);

/// A node as it is at this moment.
pub(crate) struct Node {
    pub(in crate::vnetctl) run: RunDirectory,
    pub(in crate::vnetctl) pins: Pins,
    /// What the loader says, or why it says nothing.
    pub(in crate::vnetctl) status: Result<Status, String>,
    /// The loader's process.
    pub(in crate::vnetctl) loader: Option<i32>,
    /// The pinned maps; `None` when there are none.
    pub(in crate::vnetctl) pinned: Option<Pinned>,
    pub(in crate::vnetctl) records: Vec<Endpoint>,
    /// The pools that the loader has read in this boot.
    pub(in crate::vnetctl) pools: Option<Pools>,
    /// The runtime's configurations, in its order.
    pub(in crate::vnetctl) conflists: Vec<Conflist>,
    /// Netfilter's chains, or why they cannot be read.
    pub(super) ruleset: Result<Vec<Chain>, LookError>,
}

/// A file of the runtime's.
pub(in crate::vnetctl) struct Conflist {
    pub(in crate::vnetctl) path: PathBuf,
    pub(in crate::vnetctl) text: String,
    /// `type` of each plug-in.
    pub(in crate::vnetctl) plugins: Vec<String>,
    /// `ipam.type` of each.
    pub(in crate::vnetctl) ipam: Vec<String>,
}

impl Node {
    pub(crate) fn look() -> Self {
        let run = RunDirectory::default();
        let socket = connect_within(&run.socket(), PATIENCE).ok();
        let peer = socket.and_then(|socket| getsockopt(&socket, PeerCredentials).ok());
        let boot = boot_id().unwrap_or_default();
        let pools = read_json::<Pools>(&run.pools()).ok();
        Self {
            status: status::get().map_err(|error| crate::report::one_line(&error)),
            loader: peer.map(|peer| peer.pid()).filter(|pid| *pid > 0),
            pinned: Pinned::open().ok(),
            records: endpoints(&run),
            pools: pools.filter(|pools| pools.boot_id == boot),
            conflists: conflists(Path::new(CONFLISTS)),
            ruleset: everything(),
            pins: Pins::default(),
            run,
        }
    }

    /// What the programs go by; `None` until a loader has told them.
    pub(in crate::vnetctl) fn config(&self) -> Option<Config> {
        let Abi(config) = self.pinned.as_ref()?.maps.config.get(&0, 0).ok()?;
        (config.nic.get() != 0).then_some(config)
    }

    /// Name of the NIC.
    pub(in crate::vnetctl) fn nic(&self) -> Option<String> {
        ifname(self.config()?.nic.get())
    }

    /// Addresses of this node's pods.
    pub(in crate::vnetctl) fn pods(&self) -> impl Iterator<Item = Ipv4Addr> {
        self.records.iter().map(|record| record.address.addr())
    }

    /// The conflist that names us.
    pub(in crate::vnetctl) fn ours(&self) -> Option<&Conflist> {
        self.conflists.iter().find(|conflist| conflist.is_ours())
    }
}

impl Conflist {
    pub(in crate::vnetctl) fn is_ours(&self) -> bool {
        self.plugins.iter().any(|name| name == netconf::MAIN_PLUGIN)
    }
}

/// Those that runtimes take, in the order of their names.
fn conflists(folder: &Path) -> Vec<Conflist> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut paths: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    let is_read = |path: &PathBuf| {
        let extension = path.extension().and_then(|extension| extension.to_str());
        extension.is_some_and(|extension| ["conf", "conflist", "json"].contains(&extension))
    };
    paths.retain(is_read);
    paths.sort();
    paths.into_iter().map(conflist).collect()
}

fn conflist(path: PathBuf) -> Conflist {
    let text = fs::read_to_string(&path).unwrap_or_default();
    let list: Value = serde_json::from_str(&text).unwrap_or_default();
    let plugins = list.get("plugins").and_then(Value::as_array).cloned();
    // A file with one plug-in has no list.
    let plugins = plugins.unwrap_or_else(|| vec![list]);
    let types = |pointer: &str| {
        let named = plugins
            .iter()
            .filter_map(|plugin| plugin.pointer(pointer)?.as_str());
        named.map(str::to_owned).collect()
    };
    Conflist {
        plugins: types("/type"),
        ipam: types("/ipam/type"),
        path,
        text,
    }
}
