//! What was in the files of living attachments? An endpoint record or a lease that somebody removes or damages is written
//! again as it was, for as long as its pod lives.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rpc::{Endpoint, RunDirectory, StateError, read_json, write_synced};
use serde_json::Value;
use tracing::{error, warn};

use crate::reconcile;

/// What a file that is written again is called until it is whole.
const BESIDE: &str = "again.tmp";

/// The files, as they were last seen whole.
#[derive(Debug, Default)]
pub(crate) struct Keepsakes(BTreeMap<PathBuf, Keepsake>);

#[derive(Debug)]
struct Keepsake {
    owner: Owner,
    stamp: Stamp,
    bytes: Vec<u8>,
    /// Why it could not be written again the last time.
    stuck: Option<String>,
}

/// The pod that a file is about: its address and its host veth's index.
type Owner = (Ipv4Addr, u32);

/// Tells a file from what it is after it was written or replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    inode: u64,
    changed: (i64, i64),
    bytes: u64,
}

impl Stamp {
    /// Of the file as it is now.
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        let file = fs::metadata(path)?;
        Ok(Self {
            inode: file.ino(),
            changed: (file.ctime(), file.ctime_nsec()),
            bytes: file.len(),
        })
    }
}

impl Keepsakes {
    /// Remembers what is whole and not known yet, and takes away what a loader that was killed has left half-written. Of leases
    /// and owners the IPAM plug-in does that.
    pub(crate) fn find(&mut self, run: &RunDirectory, lives: impl Fn(Owner) -> bool) {
        for path in reconcile::files(&run.endpoints(), "tmp") {
            if path.to_string_lossy().ends_with(BESIDE) {
                drop(fs::remove_file(&path));
            }
        }
        for path in reconcile::files(&run.endpoints(), "json") {
            if !self.0.contains_key(&path)
                && let Ok(endpoint) = read_json::<Endpoint>(&path)
                && lives(owner_of(&endpoint))
            {
                self.learn(run, &endpoint);
            }
        }
    }

    /// Writes again what is gone or damaged while its pod lives, and forgets the rest. Returns the paths of the former.
    pub(crate) fn keep(&mut self, lives: impl Fn(Owner) -> bool) -> Vec<PathBuf> {
        let mut restored = Vec::new();
        self.0.retain(|path, keepsake| {
            if keepsake.is_untouched(path) {
                return true;
            }
            if !lives(keepsake.owner) {
                return false;
            }
            let looked = keepsake.look(path);
            let stuck = looked.as_ref().err().map(ToString::to_string);
            let before = std::mem::replace(&mut keepsake.stuck, stuck);
            match looked {
                Ok(false) => {}
                Ok(true) => {
                    warn!(path = %path.display(), "was gone or damaged, and its pod lives: written again");
                    crate::repairs::Repair::File.count();
                    restored.push(path.clone());
                }
                // Tried again every few seconds.
                Err(_) if keepsake.stuck == before => {}
                Err(error) => error!(%error, path = %path.display(), "write it again"),
            }
            true
        });
        restored
    }

    /// Remembers the files of an attachment.
    pub(crate) fn learn(&mut self, run: &RunDirectory, endpoint: &Endpoint) {
        let owner = owner_of(endpoint);
        let record = format!("{}.json", endpoint.key.file_name());
        self.remember(run.endpoints().join(record), owner);
        self.remember(run.leases().join(owner.0.to_string()), owner);
        // Without it DEL would not find the lease.
        self.remember(run.owners().join(endpoint.key.owner_name()), owner);
    }

    /// Pods with another IPAM have no lease.
    fn remember(&mut self, path: PathBuf, owner: Owner) {
        if let Some((stamp, bytes)) = whole(&path) {
            let keepsake = Keepsake {
                owner,
                stamp,
                bytes,
                stuck: None,
            };
            self.0.insert(path, keepsake);
        }
    }
}

fn owner_of(endpoint: &Endpoint) -> Owner {
    (endpoint.address.addr(), endpoint.host_ifindex)
}

impl Keepsake {
    fn is_untouched(&self, path: &Path) -> bool {
        Stamp::of(path).is_ok_and(|stamp| stamp == self.stamp)
    }

    /// `true`: it had to be written again.
    fn look(&mut self, path: &Path) -> io::Result<bool> {
        if let Some((stamp, bytes)) = whole(path) {
            (self.stamp, self.bytes) = (stamp, bytes);
            return Ok(false);
        }
        self.write(path)?;
        self.stamp = Stamp::of(path)?;
        Ok(true)
    }

    fn write(&self, path: &Path) -> io::Result<()> {
        if let Some(directory) = path.parent() {
            let mut builder = fs::DirBuilder::new();
            builder.recursive(true).mode(0o700).create(directory)?;
        }
        let beside = path.with_extension(BESIDE);
        let written = self.write_beside(&beside, path);
        // There is none after a rename.
        drop(fs::remove_file(&beside));
        written
    }

    fn write_beside(&self, beside: &Path, path: &Path) -> io::Result<()> {
        write_synced(beside, &self.bytes)?;
        // Never over what came meanwhile.
        let is_damaged = matches!(read_json::<Value>(path), Err(StateError::Damaged { .. }));
        if is_damaged {
            return fs::rename(beside, path);
        }
        fs::hard_link(beside, path)
    }
}

fn whole(path: &Path) -> Option<(Stamp, Vec<u8>)> {
    let stamp = Stamp::of(path).ok()?;
    read_json::<Value>(path).ok()?;
    Some((stamp, fs::read(path).ok()?))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use rpc::write_json;
    use serde_json::json;

    use super::*;

    const OWNER: Owner = (Ipv4Addr::new(10, 240, 1, 10), 7);

    fn node() -> (tempfile::TempDir, RunDirectory, PathBuf, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let run = RunDirectory::at(root.path());
        fs::create_dir_all(run.endpoints()).unwrap();
        fs::create_dir_all(run.leases()).unwrap();
        fs::create_dir_all(run.owners()).unwrap();
        let record = run.endpoints().join("azure:1:eth0.json");
        let mac = "02:00:00:00:00:01";
        let endpoint = json!({
            "network": "azure", "container_id": "1", "ifname": "eth0", "boot_id": "b", "netns": "", "pod_namespace": "",
            "pod_name": "", "host_ifname": "azv1", "host_ifindex": 7, "host_mac": mac, "mac": mac,
            "address": "10.240.1.10/16", "gateway": "10.240.0.1", "beyond": "what the loader knows",
        });
        write_json(&record, &endpoint).unwrap();
        let lease = run.leases().join("10.240.1.10");
        write_json(&lease, &json!({"ip": "10.240.1.10"})).unwrap();
        (root, run, record, lease)
    }

    #[test]
    fn what_is_removed_or_damaged_is_written_again_as_it_was_while_its_pod_lives() {
        let (_root, run, record, lease) = node();
        let mut keepsakes = Keepsakes::default();
        keepsakes.find(&run, |owner| owner == OWNER);
        let before = [&record, &lease].map(|path| fs::read(path).unwrap());
        fs::remove_file(&record).unwrap();
        fs::write(&lease, "rubbish").unwrap();
        let restored = keepsakes.keep(|owner| owner == OWNER);
        assert_eq!(restored, [record.clone(), lease.clone()]);
        assert_eq!(
            [&record, &lease].map(|path| fs::read(path).unwrap()),
            before
        );
        assert!(keepsakes.keep(|owner| owner == OWNER).is_empty());
        fs::remove_dir_all(run.endpoints()).unwrap();
        assert_eq!(keepsakes.keep(|owner| owner == OWNER), [record]);
        let left = fs::read_dir(run.leases()).unwrap().count();
        assert_eq!(left, 1, "no draft stays");
    }

    /// A disk that is full stays so for longer than a look takes.
    #[test]
    fn what_cannot_be_written_is_told_once_until_the_reason_changes() {
        let (_root, run, record, _lease) = node();
        let mut keepsakes = Keepsakes::default();
        keepsakes.find(&run, |_| true);
        fs::remove_file(&record).unwrap();
        let draft = record.with_extension("again.tmp");
        fs::create_dir(&draft).unwrap();
        let mut told =
            |times: usize| lines(|| (0..times).for_each(|_| drop(keepsakes.keep(|_| true))));
        let first = told(3);
        assert_eq!(first.len(), 1, "{first:?}");
        assert!(first[0].contains("directory"), "{first:?}");
        fs::remove_dir(&draft).unwrap();
        fs::remove_dir_all(run.endpoints()).unwrap();
        fs::write(run.endpoints(), "").unwrap();
        let other = told(3);
        assert_eq!(other.len(), 1, "{other:?}");
        fs::remove_file(run.endpoints()).unwrap();
        assert!(told(3).concat().contains("written again"));
        assert!(record.exists());
    }

    #[test]
    fn a_full_disk_and_a_loader_that_was_killed_leave_no_draft() {
        let (_root, run, record, _lease) = node();
        let mut keepsakes = Keepsakes::default();
        keepsakes.find(&run, |_| true);
        fs::remove_file(&record).unwrap();
        let draft = record.with_extension(BESIDE);
        std::os::unix::fs::symlink("/dev/full", &draft).unwrap();
        assert!(keepsakes.keep(|_| true).is_empty());
        assert!(draft.symlink_metadata().is_err(), "it stays");
        assert_eq!(keepsakes.keep(|_| true), [record]);

        let others = run.endpoints().join("azure:1:eth0.77.tmp");
        for half in [&draft, &others] {
            fs::write(half, "half").unwrap();
        }
        Keepsakes::default().find(&run, |_| true);
        assert!(!draft.exists() && others.exists(), "a plug-in's stays");
    }

    /// What `work` logs.
    fn lines(work: impl FnOnce()) -> Vec<String> {
        let log = tempfile::NamedTempFile::new().unwrap();
        let told = tracing_subscriber::fmt()
            .with_writer(Mutex::new(log.reopen().unwrap()))
            .finish();
        tracing::subscriber::with_default(told, work);
        let text = fs::read_to_string(&log).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn the_index_by_which_del_finds_the_lease_is_written_again_too() {
        let (_root, run, record, _lease) = node();
        let key = read_json::<Endpoint>(&record).unwrap().key;
        let index = run.owners().join(key.owner_name());
        write_json(&index, &json!({"ip": "10.240.1.10"})).unwrap();
        let mut keepsakes = Keepsakes::default();
        keepsakes.find(&run, |_| true);
        fs::remove_dir_all(run.ipam()).unwrap();
        assert_eq!(keepsakes.keep(|_| true).len(), 2);
        assert!(index.exists());
    }

    #[test]
    fn what_was_changed_with_a_checksum_stays_and_a_dead_pods_files_may_go() {
        let (_root, run, record, lease) = node();
        let mut keepsakes = Keepsakes::default();
        keepsakes.find(&run, |_| true);
        write_json(
            &lease,
            &json!({"ip": "10.240.1.10", "netns": "/run/netns/moved"}),
        )
        .unwrap();
        let moved = fs::read(&lease).unwrap();
        assert!(keepsakes.keep(|_| true).is_empty());
        fs::remove_file(&lease).unwrap();
        keepsakes.keep(|_| true);
        assert_eq!(fs::read(&lease).unwrap(), moved);
        fs::remove_file(&lease).unwrap();
        fs::remove_file(&record).unwrap();
        assert!(keepsakes.keep(|_| false).is_empty());
        assert!(!lease.exists() && !record.exists());
    }
}
