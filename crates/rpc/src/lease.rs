//! Who has which address: the IPAM plug-in's files, as others may read them.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;
use nix::errno::Errno;
use nix::sys::statfs::{NSFS_MAGIC, statfs};
use serde::{Deserialize, Serialize};

use crate::{Key, RunDirectory, View, read_json};

/// How long a released address rests, milliseconds: peers may still have connections, ARP and conntrack entries for it.
pub const COOL_DOWN_MS: u64 = 30_000;

/// An address in somebody's hands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Whose. Without interface name: a pod's that Azure's plug-in made.
    #[serde(flatten)]
    pub key: Key,
    /// The address.
    pub ip: Ipv4Addr,
    /// Prefix length of the subnet.
    pub prefix: u8,
    /// The subnet's gateway.
    pub gateway: Ipv4Addr,
    /// The boot during which it was given.
    pub boot_id: String,
    /// The pod's network namespace; empty when nobody told.
    #[serde(default)]
    pub netns: String,
    /// Which namespace that was: a process may get the number of a dead one, and with it the path. Of older leases it is not known.
    #[serde(default)]
    pub netns_id: Option<NetnsId>,
    /// The main plug-in for which it was given, if that is known.
    #[serde(default)]
    pub plugin: String,
    /// From where the plug-in that gave it saw the node.
    #[serde(default)]
    pub view: View,
}

impl Lease {
    /// The address with its subnet's prefix length.
    pub fn address(&self) -> Ipv4Net {
        Ipv4Net::new(self.ip, self.prefix).unwrap_or_else(|_too_long| self.ip.into())
    }

    /// Whether the pod's network namespace is there; `None` when that cannot be told.
    pub fn lives(&self) -> Option<bool> {
        match (netns_lives(&self.netns), self.netns_id) {
            (Some(true), Some(then)) => NetnsId::at(&self.netns).map(|now| now == then),
            (lives, _) => lives,
        }
    }

    /// Whether Azure's plug-in has given it. Its address is known by the container only.
    pub fn is_taken_over(&self) -> bool {
        self.key.ifname.is_empty()
    }
}

/// A namespace's identity as long as it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetnsId {
    device: u64,
    inode: u64,
}

impl NetnsId {
    /// Of the one that `path` leads to.
    pub fn at(path: &str) -> Option<Self> {
        let found = fs::metadata(path).ok()?;
        (netns_lives(path) == Some(true)).then(|| Self {
            device: found.dev(),
            inode: found.ino(),
        })
    }
}

/// Every address that is given, and to whom, as far as that can be read: of a lease that is damaged the owner's own file says
/// the same.
pub fn leases(run: &RunDirectory) -> Vec<(Ipv4Addr, Option<Lease>)> {
    let mut given: Vec<(Ipv4Addr, Option<Lease>)> = files(&run.leases())
        .filter_map(|path| {
            let address = path.file_name()?.to_str()?.parse().ok()?;
            Some((address, read_json(&path).ok()))
        })
        .collect();
    if given.iter().any(|(_, lease)| lease.is_none()) {
        let owners: Vec<Lease> = files(&run.owners())
            .filter_map(|path| read_json(&path).ok())
            .collect();
        for (address, lease) in given.iter_mut().filter(|(_, lease)| lease.is_none()) {
            *lease = owners.iter().find(|owner| owner.ip == *address).cloned();
        }
    }
    given.sort_by_key(|(address, _)| *address);
    given
}

fn files(directory: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    entries.filter_map(|entry| Some(entry.ok()?.path()))
}

/// Whether there is a namespace at `path`; `None` when that cannot be told. A pod that is gone leaves nothing, or a plain file.
pub fn netns_lives(path: &str) -> Option<bool> {
    if path.is_empty() {
        return None;
    }
    match statfs(path) {
        Ok(found) => Some(found.filesystem_type() == NSFS_MAGIC),
        Err(Errno::ENOENT | Errno::ENOTDIR) => Some(false),
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A process gets the number of one that is dead.
    #[test]
    fn another_namespace_at_the_same_path_is_not_the_pods() {
        let path = "/proc/self/ns/net";
        let lease = |netns_id: Option<NetnsId>| Lease {
            key: Key {
                network: "azure".into(),
                container_id: "c1".into(),
                ifname: "eth0".into(),
            },
            ip: Ipv4Addr::new(10, 240, 0, 5),
            prefix: 16,
            gateway: Ipv4Addr::new(10, 240, 0, 1),
            boot_id: String::new(),
            netns: path.into(),
            netns_id,
            plugin: String::new(),
            view: View::default(),
        };
        assert_eq!(lease(None).lives(), Some(true), "an older lease");
        let then = NetnsId::at(path).unwrap();
        assert_eq!(lease(Some(then)).lives(), Some(true));
        let other = NetnsId::at("/proc/self/ns/pid");
        assert_ne!(other, Some(then));
        assert_eq!(lease(other).lives(), Some(false));
    }

    #[test]
    fn a_namespace_lives_as_long_as_its_path_leads_to_one() {
        assert_eq!(netns_lives("/proc/self/ns/net"), Some(true));
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(netns_lives(file.path().to_str().unwrap()), Some(false));
        assert_eq!(netns_lives("/nowhere/x"), Some(false));
        assert_eq!(netns_lives(""), None);
    }
}
