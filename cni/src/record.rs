//! Endpoint records: what CNI has made, one file per attachment in the run directory.
//!
//! The loader reads the same files as [`rpc::Endpoint`]; what it does not know is ours: the configuration at ADD, which DEL
//! falls back to when the current one is broken, and what the result said.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use rpc::{Endpoint, Key, RunDirectory, StateError, read_json, remove_durably, write_json};
use serde::{Deserialize, Serialize};

use netconf::{Address, Dns, Interface, Success};

/// An attachment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    #[serde(flatten)]
    pub(crate) endpoint: Endpoint,
    /// Bytes.
    pub(crate) mtu: u32,
    /// The routing table of an interface that is not its pod's first, which a rule leads to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) own_table: Option<u32>,
    /// As the IPAM plug-in said.
    pub(crate) dns: Dns,
    /// Standard input of ADD.
    pub(crate) netconf: String,
}

impl Record {
    /// What ADD prints.
    pub(crate) fn result(&self) -> Success {
        let endpoint = &self.endpoint;
        let gateway = Some(endpoint.gateway).filter(|gateway| *gateway != Ipv4Addr::UNSPECIFIED);
        Success {
            interfaces: vec![
                Interface {
                    name: endpoint.key.ifname.clone(),
                    mac: endpoint.mac,
                    sandbox: Some(endpoint.netns.clone()),
                    mtu: self.mtu,
                },
                Interface {
                    name: endpoint.host_ifname.clone(),
                    mac: endpoint.host_mac,
                    sandbox: None,
                    mtu: self.mtu,
                },
            ],
            addresses: vec![Address {
                address: endpoint.address,
                gateway,
            }],
            dns: self.dns.clone(),
        }
    }
}

/// The records of this node.
#[derive(Debug)]
pub(crate) struct Records {
    directory: PathBuf,
    boot_id: String,
}

impl Records {
    /// Opens the store of `run` and makes its directories.
    pub(crate) fn open(run: &RunDirectory) -> Result<Self, StateError> {
        let directory = run.endpoints();
        make_directory(&directory)?;
        make_directory(&run.locks())?;
        Ok(Self {
            directory,
            boot_id: rpc::boot_id()?,
        })
    }

    /// This boot.
    pub(crate) fn boot_id(&self) -> &str {
        &self.boot_id
    }

    /// The record of `key`. One of another boot describes nothing that still exists; one that is damaged tells nothing.
    pub(crate) fn get(&self, key: &Key) -> Result<Option<Record>, StateError> {
        self.load(&self.path(key))
    }

    /// Tells of a record that is damaged; none is fine.
    pub(crate) fn require_whole(&self, key: &Key) -> Result<(), StateError> {
        match read_json::<Record>(&self.path(key)) {
            Err(error @ StateError::Damaged { .. }) => Err(error),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Every readable record of this boot.
    pub(crate) fn all(&self) -> Result<Vec<Record>, StateError> {
        let error = |source| StateError::io("list", &self.directory, source);
        let mut records = Vec::new();
        for entry in fs::read_dir(&self.directory).map_err(error)? {
            let path = entry.map_err(error)?.path();
            if path
                .extension()
                .is_some_and(|extension| extension == "json")
            {
                records.extend(self.load(&path)?);
            }
        }
        Ok(records)
    }

    /// The attachments that have a record, readable or not. One whose name is too long to be read off the file's is only known
    /// by its record; what keeps those from being read is told beside the others.
    pub(crate) fn keys(&self) -> Result<(BTreeSet<Key>, Vec<StateError>), StateError> {
        let error = |source| StateError::io("list", &self.directory, source);
        let (mut keys, mut unreadable) = (BTreeSet::new(), Vec::new());
        for entry in fs::read_dir(&self.directory).map_err(error)? {
            let path = entry.map_err(error)?.path();
            let is_record = path.extension().is_some_and(|found| found == "json");
            let name = path.file_stem().and_then(OsStr::to_str);
            match name.filter(|_| is_record).map(Key::of_file_name) {
                None => {}
                Some(Some(key)) => drop(keys.insert(key)),
                Some(None) => match read_json::<Record>(&path) {
                    Ok(record) if record.endpoint.boot_id == self.boot_id => {
                        keys.insert(record.endpoint.key);
                    }
                    Ok(_) => {}
                    Err(error) if error.is_not_found() => {}
                    Err(error) => unreadable.push(error),
                },
            }
        }
        Ok((keys, unreadable))
    }

    /// Whether there is a file for `key`, readable or not.
    pub(crate) fn has(&self, key: &Key) -> Result<bool, StateError> {
        let path = self.path(key);
        fs::exists(&path).map_err(|source| StateError::io("look at", &path, source))
    }

    /// Removes what calls on `key` that were killed have left half-written. Under the attachment's lock.
    pub(crate) fn sweep(&self, key: &Key) -> Result<(), StateError> {
        let error = |source| StateError::io("list", &self.directory, source);
        let begin = format!("{}.", key.file_name());
        for entry in fs::read_dir(&self.directory).map_err(error)? {
            let entry = entry.map_err(error)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let writer = name
                .strip_prefix(&begin)
                .and_then(|rest| rest.strip_suffix(".tmp"));
            if writer.is_some_and(|pid| pid.bytes().all(|byte| byte.is_ascii_digit())) {
                remove_durably(&entry.path())?;
            }
        }
        Ok(())
    }

    /// Writes a record.
    pub(crate) fn put(&self, record: &Record) -> Result<(), StateError> {
        write_json(&self.path(&record.endpoint.key), record)
    }

    /// Removes a record; none is fine.
    pub(crate) fn remove(&self, key: &Key) -> Result<(), StateError> {
        remove_durably(&self.path(key))
    }

    /// Turns a record into a tombstone: the loader takes it out of the maps when it is back.
    pub(crate) fn bury(&self, record: &Record) -> Result<(), StateError> {
        let path = self.path(&record.endpoint.key);
        write_json(&path.with_extension("deleted"), record)?;
        remove_durably(&path)
    }

    fn load(&self, path: &Path) -> Result<Option<Record>, StateError> {
        match read_json::<Record>(path) {
            Ok(record) => Ok(Some(record).filter(|record| record.endpoint.boot_id == self.boot_id)),
            Err(StateError::Damaged { .. }) => Ok(None),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn path(&self, key: &Key) -> PathBuf {
        self.directory.join(format!("{}.json", key.file_name()))
    }
}

/// Makes a state directory that only root can read.
pub(crate) fn make_directory(path: &Path) -> Result<(), StateError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| StateError::io("make", path, source))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(ifname: &str, boot_id: &str) -> Record {
        let json = serde_json::json!({
            "network": "azure", "container_id": "c1", "ifname": ifname, "boot_id": boot_id,
            "netns": "/n", "pod_namespace": "ns", "pod_name": "web", "mode": "bridge",
            "host_ifname": "azv0", "host_ifindex": 7, "host_mac": "02:00:00:00:00:01", "mac": "02:00:00:00:00:02",
            "address": "10.240.0.5/16", "gateway": "10.240.0.1", "mtu": 1500, "dns": {}, "netconf": "{}",
        });
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn a_record_is_read_back_by_us_and_by_the_loader_until_it_is_buried() {
        let directory = tempfile::tempdir().unwrap();
        let run = RunDirectory::at(directory.path());
        let records = Records::open(&run).unwrap();
        // The interface name's dot must not be taken for the file's suffix.
        let record = record("eth0.7", records.boot_id());
        let key = &record.endpoint.key;
        records.put(&record).unwrap();
        assert_eq!(records.get(key).unwrap().as_ref(), Some(&record));
        assert_eq!(records.all().unwrap(), std::slice::from_ref(&record));

        records.bury(&record).unwrap();
        assert_eq!(records.get(key).unwrap(), None);
        let tombstone = run.endpoints().join("azure:c1:eth0.7.deleted");
        assert_eq!(read_json::<Endpoint>(&tombstone).unwrap(), record.endpoint);
    }

    #[test]
    fn a_record_of_another_boot_or_a_damaged_one_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let run = RunDirectory::at(directory.path());
        let records = Records::open(&run).unwrap();
        let record = record("eth0", "another");
        records.put(&record).unwrap();
        assert_eq!(records.get(&record.endpoint.key).unwrap(), None);
        fs::write(run.endpoints().join("azure:c1:eth0.json"), "x").unwrap();
        assert_eq!(records.get(&record.endpoint.key).unwrap(), None);
        assert_eq!(records.all().unwrap(), []);
    }
}
