//! The IPAM plug-in's files, below `/run/azure-vnet/ipam/`:
//!
//! | File | Says |
//! |---|---|
//! | `boot` | the boot that all the others belong to; in another one, all addresses are free |
//! | `leases/<address>` | who has the address |
//! | `owners/<hash of the attachment>` | the same, found by owner |
//! | `released/<address>@<ms>` | when the address was given back, in the name, so that one listing tells all |
//! | `lock` | the kernel lock, held for every change |
//!
//! A crash can come between any two changes. An owner is written before its lease and removed after it, so that no owner
//! file proves that there is no lease, and an owner file whose lease is missing or another's is just old. An address is free
//! exactly when it has no lease file.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rpc::{Key, Lease, StateError, read_json, remove_durably, write_json};
use serde::de::DeserializeOwned;

use super::choose::Ledger;
use crate::record::make_directory;

/// One step of an ADD or DEL; each is all or nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    WriteOwner(Lease),
    WriteLease(Lease),
    /// Forget when it was last given back.
    Unmark(Ipv4Addr),
    /// It is given back now.
    Mark(Ipv4Addr, u64),
    RemoveLease(Ipv4Addr),
    RemoveOwner(Key),
}

/// The files. Whoever has one holds the lock.
#[derive(Debug)]
pub(super) struct Store {
    root: PathBuf,
    boot_id: String,
}

impl Store {
    /// Opens the files below `root`, and clears away what another boot has left.
    pub(super) fn open(root: &Path, boot_id: &str) -> Result<Self, StateError> {
        let store = Self {
            root: root.to_owned(),
            boot_id: boot_id.to_owned(),
        };
        for directory in [store.leases_dir(), store.owners_dir(), store.released()] {
            make_directory(&directory)?;
        }
        store.sweep()?;
        if readable::<String>(&store.boot())?.as_deref() != Some(boot_id) {
            store.clear_other_boots()?;
            write_json(&store.boot(), &boot_id)?;
        }
        Ok(store)
    }

    /// This boot.
    pub(super) fn boot_id(&self) -> &str {
        &self.boot_id
    }

    /// All that the listings tell.
    pub(super) fn ledger(&self) -> Result<Ledger, StateError> {
        let mut ledger = Ledger::default();
        for name in list(&self.leases_dir())? {
            ledger.leased.extend(name.parse::<Ipv4Addr>());
        }
        for name in list(&self.released())? {
            if let Some((address, at_ms)) = parse_mark(&name) {
                let latest = ledger.released.entry(address).or_default();
                *latest = at_ms.max(*latest);
            }
        }
        Ok(ledger)
    }

    /// Everybody who has an address, as far as the files can be read, and why others cannot. Of a lease that is damaged the owner's
    /// own file says the same.
    pub(super) fn owners(&self) -> Result<(BTreeSet<Key>, Vec<StateError>), StateError> {
        let (mut owners, mut unreadable) = (BTreeSet::new(), Vec::new());
        for directory in [self.leases_dir(), self.owners_dir()] {
            for name in list(&directory)? {
                match read_json::<Lease>(&directory.join(name)) {
                    Ok(lease) => drop(owners.insert(lease.key)),
                    Err(error @ StateError::Io { .. }) if !error.is_not_found() => {
                        unreadable.push(error);
                    }
                    Err(_) => {}
                }
            }
        }
        Ok((owners, unreadable))
    }

    /// The lease of an owner.
    ///
    /// A lease file that is damaged belongs to the owner who says so; with a damaged owner file, all leases are looked at.
    pub(super) fn lease_of(&self, key: &Key) -> Result<Option<Lease>, StateError> {
        let said = match read_json::<Lease>(&self.owner(key)) {
            Ok(said) => said,
            Err(StateError::Damaged { .. }) => return self.search_lease(key),
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error),
        };
        match read_json::<Lease>(&self.lease(said.ip)) {
            Ok(lease) => Ok(Some(lease).filter(|lease| lease.key == *key)),
            Err(StateError::Damaged { .. }) => Ok(Some(said)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What Azure's plug-in has given to a container, of which it knew nothing else: several addresses may have one owner, and
    /// one owner file. Only where there is such a file all leases are looked at.
    pub(super) fn taken_over(
        &self,
        network: &str,
        container_id: &str,
    ) -> Result<Vec<Lease>, StateError> {
        let mut found = BTreeMap::new();
        for network in [network, ""] {
            let theirs = Key {
                network: network.to_owned(),
                container_id: container_id.to_owned(),
                ifname: String::new(),
            };
            let owner = self.owner(&theirs);
            if fs::exists(&owner).map_err(|source| StateError::io("look at", &owner, source))? {
                let leases = self.leases_of(&theirs)?;
                found.extend(leases.into_iter().map(|lease| (lease.ip, lease)));
                // Of a lease that is damaged the owner's own file says the same.
                found.extend(self.lease_of(&theirs)?.map(|lease| (lease.ip, lease)));
            }
        }
        Ok(found.into_values().collect())
    }

    fn search_lease(&self, key: &Key) -> Result<Option<Lease>, StateError> {
        Ok(self.leases_of(key)?.pop())
    }

    fn leases_of(&self, key: &Key) -> Result<Vec<Lease>, StateError> {
        let mut leases = Vec::new();
        for name in list(&self.leases_dir())? {
            let lease = readable::<Lease>(&self.leases_dir().join(name))?;
            leases.extend(lease.filter(|lease| lease.key == *key));
        }
        Ok(leases)
    }

    /// Does one step.
    pub(super) fn apply(&self, change: &Change) -> Result<(), StateError> {
        match change {
            Change::WriteOwner(lease) => write_json(&self.owner(&lease.key), lease),
            Change::WriteLease(lease) => write_json(&self.lease(lease.ip), lease),
            Change::Unmark(address) => {
                for name in list(&self.released())? {
                    if parse_mark(&name).is_some_and(|(marked, _)| marked == *address) {
                        remove_durably(&self.released().join(name))?;
                    }
                }
                Ok(())
            }
            Change::Mark(address, at_ms) => {
                let path = self.released().join(format!("{address}@{at_ms}"));
                File::options()
                    .write(true)
                    .create(true)
                    .truncate(true)
                    .mode(0o600)
                    .open(&path)
                    .map(drop)
                    .map_err(|source| StateError::io("write", &path, source))
            }
            Change::RemoveLease(address) => remove_durably(&self.lease(*address)),
            Change::RemoveOwner(key) => remove_durably(&self.owner(key)),
        }
    }

    /// Removes what calls that were killed have left half-written: whoever has the lock is the only writer.
    fn sweep(&self) -> Result<(), StateError> {
        for directory in [self.leases_dir(), self.owners_dir()] {
            for name in list(&directory)? {
                let path = directory.join(name);
                if path.extension().is_some_and(|found| found == "tmp") {
                    remove_durably(&path)?;
                }
            }
        }
        Ok(())
    }

    /// Addresses of another boot are free; times of another boot mean nothing. What is damaged is of this boot as soon as
    /// anything is: that was written after those of the other were cleared away, and only `boot` was lost since.
    fn clear_other_boots(&self) -> Result<(), StateError> {
        let mut files = Vec::new();
        for directory in [self.leases_dir(), self.owners_dir()] {
            for name in list(&directory)? {
                let path = directory.join(name);
                files.push((readable::<Lease>(&path)?, path));
            }
        }
        let is_ours = |lease: &Lease| lease.boot_id == self.boot_id;
        let was_cleared = files
            .iter()
            .filter_map(|(lease, _)| lease.as_ref())
            .any(is_ours);
        for (lease, path) in files {
            if !lease.map_or(was_cleared, |lease| is_ours(&lease)) {
                remove_durably(&path)?;
            }
        }
        for name in list(&self.released())? {
            remove_durably(&self.released().join(name))?;
        }
        Ok(())
    }

    fn boot(&self) -> PathBuf {
        self.root.join("boot")
    }

    fn leases_dir(&self) -> PathBuf {
        self.root.join("leases")
    }

    fn owners_dir(&self) -> PathBuf {
        self.root.join("owners")
    }

    fn released(&self) -> PathBuf {
        self.root.join("released")
    }

    fn lease(&self, address: Ipv4Addr) -> PathBuf {
        self.leases_dir().join(address.to_string())
    }

    fn owner(&self, key: &Key) -> PathBuf {
        self.owners_dir().join(key.owner_name())
    }
}

/// What is not there, or damaged, tells nothing. What the disk does not let us read may tell of an address in use.
fn readable<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StateError> {
    match read_json(path) {
        Ok(value) => Ok(Some(value)),
        Err(StateError::Damaged { .. }) => Ok(None),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

fn parse_mark(name: &str) -> Option<(Ipv4Addr, u64)> {
    let (address, at_ms) = name.split_once('@')?;
    Some((address.parse().ok()?, at_ms.parse().ok()?))
}

fn list(directory: &Path) -> Result<Vec<String>, StateError> {
    let error = |source| StateError::io("list", directory, source);
    fs::read_dir(directory)
        .map_err(error)?
        .map(|entry| {
            entry
                .map(|entry| entry.file_name().to_string_lossy().into_owned())
                .map_err(error)
        })
        .collect()
}
