//! State files: one JSON document each, replaced as a whole, with a checksum, never half-written.
//!
//! A file is written as a temporary file in the same directory, synced, renamed over the old one, and the directory is
//! synced; a crash leaves the old content or the new, and at worst a temporary file that is never read. The first line
//! is the CRC-32 of the rest, so that a file that was damaged on disk is told from one that is merely old.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::paths::LOCKS;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A state file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The system refused.
    #[error("{doing} {path}: {source}; check its file system (df, df -i, mount, dmesg)")]
    Io {
        /// What was attempted.
        doing: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The file's content is damaged.
    #[error("read {path}: {why}; the file is damaged, {}", remedy(path))]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

/// What to do about a damaged file: whoever owns it makes it anew, but for what only a pod's ADD can tell.
fn remedy(path: &Path) -> &'static str {
    match path.file_name().and_then(OsStr::to_str) {
        Some("boot") => "delete it: the next call writes it anew, and addresses in use stay in use",
        Some("pools.json") => "delete it: azure-vnet-loader writes it anew within 30 s",
        // Without its draft nobody would know what a killed call has made.
        Some(_) | None if path.parent().is_some_and(|parent| parent.ends_with(LOCKS)) => {
            "delete the pod that it belongs to: its DEL takes the file away, as a reboot does"
        }
        Some(_) | None => "delete it and the pod that it belongs to",
    }
}

impl StateError {
    /// `doing` something with `path` failed.
    pub fn io(doing: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io {
            doing,
            path: path.to_owned(),
            source,
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        match self {
            Self::Io { path, .. } | Self::Damaged { path, .. } => path,
        }
    }

    /// True when the file is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// Id of this boot: what the kernel held in an earlier one is gone.
pub fn boot_id() -> Result<String, StateError> {
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    let text = fs::read_to_string(path).map_err(|source| StateError::io("read", path, source))?;
    Ok(text.trim().to_owned())
}

/// Reads what [`write_json`] wrote.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, StateError> {
    let damaged = |why: String| StateError::Damaged {
        path: path.to_owned(),
        why,
    };
    let bytes = fs::read(path).map_err(|source| StateError::io("read", path, source))?;
    let text = String::from_utf8(bytes).map_err(|error| damaged(error.to_string()))?;
    let (sum, body) = text
        .split_once('\n')
        .ok_or_else(|| damaged("no checksum line".into()))?;
    if sum != checksum(body) {
        return Err(damaged(format!(
            "checksum {} does not match {sum}",
            checksum(body)
        )));
    }
    serde_json::from_str(body).map_err(|error| damaged(error.to_string()))
}

/// Replaces `path` by `value`, all or nothing.
pub fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), StateError> {
    let body = serde_json::to_string(value).map_err(|error| StateError::Damaged {
        path: path.to_owned(),
        why: error.to_string(),
    })?;
    replace(path, format!("{}\n{body}", checksum(&body)).as_bytes())
}

/// Replaces `path` by a file that only root can read, all or nothing. What it is called until then, nobody reads: neither we
/// nor a runtime, which takes `*.conf`, `*.conflist` and `*.json`.
pub fn replace(path: &Path, content: &[u8]) -> Result<(), StateError> {
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    let written = write_synced(&temporary, content)
        .map_err(|source| StateError::io("write", &temporary, source))
        .and_then(|()| {
            fs::rename(&temporary, path).map_err(|source| StateError::io("replace", path, source))
        })
        .and_then(|()| sync_parent(path));
    if written.is_err() {
        // Best effort: the reason to report is the first failure.
        drop(fs::remove_file(&temporary));
    }
    written
}

/// Removes `path` durably; a file that is not there is success.
pub fn remove_durably(path: &Path) -> Result<(), StateError> {
    match fs::remove_file(path) {
        Ok(()) => sync_parent(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // A read-only file system refuses before it looks.
        Err(_) if matches!(path.try_exists(), Ok(false)) => Ok(()),
        Err(source) => Err(StateError::io("remove", path, source)),
    }
}

/// Writes a file that only root can read, and syncs it. Not all or nothing.
pub fn write_synced(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

fn sync_parent(path: &Path) -> Result<(), StateError> {
    let Some(parent) = path.parent() else {
        return Ok(());
    };
    File::open(parent)
        .and_then(|dir| dir.sync_all())
        .map_err(|source| StateError::io("sync", parent, source))
}

fn checksum(body: &str) -> String {
    format!("{:08x}", crc32fast::hash(body.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_nothing_else_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.json");
        write_json(&path, &vec![1, 2, 3]).unwrap();
        write_json(&path, &vec![4]).unwrap();
        assert_eq!(read_json::<Vec<u8>>(&path).unwrap(), [4]);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn every_flipped_bit_and_every_truncation_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.json");
        write_json(&path, &"value").unwrap();
        let good = fs::read(&path).unwrap();
        for at in 0..good.len() {
            fs::write(&path, &good[..at]).unwrap();
            let damaged = || {
                let read = read_json::<String>(&path);
                matches!(read, Err(StateError::Damaged { .. }))
            };
            assert!(damaged(), "truncated at {at}");
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                fs::write(&path, &bad).unwrap();
                assert!(damaged(), "bit {bit} of byte {at}");
            }
        }
    }

    /// Only a pod's own file is reason to delete a pod.
    #[test]
    fn a_damaged_file_is_named_with_what_helps() {
        let dir = tempfile::tempdir().unwrap();
        for (name, remedy) in [
            ("boot", "the next call writes it anew"),
            ("pools.json", "azure-vnet-loader writes it anew"),
            ("azure:c1:eth0.json", "and the pod that it belongs to"),
        ] {
            let path = dir.path().join(name);
            fs::write(&path, "x").unwrap();
            let text = read_json::<String>(&path).unwrap_err().to_string();
            assert!(text.contains(name) && text.contains(remedy), "{text}");
            assert_eq!(text.contains("pod"), name.starts_with("azure"), "{text}");
        }
    }

    #[test]
    fn removing_what_is_not_there_succeeds() {
        let dir = tempfile::tempdir().unwrap();
        remove_durably(&dir.path().join("none")).unwrap();
    }
}
