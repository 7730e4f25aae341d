//! From where a process sees the node: what one that sees it from elsewhere does not see may be there nevertheless.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use serde::{Deserialize, Serialize};

/// A process's namespaces, by inode; 0 when that is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// Network.
    pub net: u64,
    /// Mounts.
    pub mounts: u64,
    /// Processes.
    pub pids: u64,
}

impl View {
    /// That of the calling thread.
    pub fn here() -> Self {
        let inode = |kind: &str| {
            fs::metadata(format!("/proc/thread-self/ns/{kind}")).map_or(0, |found| found.ino())
        };
        Self {
            net: inode("net"),
            mounts: inode("mnt"),
            pids: inode("pid"),
        }
    }
}
