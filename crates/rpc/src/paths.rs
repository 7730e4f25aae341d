//! The run directory, `/run/azure-vnet/`: what lies where.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Root of all run-time state, mode 0700.
pub const RUN_DIRECTORY: &str = "/run/azure-vnet";
/// The loader's configuration.
pub const LOADER_CONFIG: &str = "/etc/azure-vnet/loader.yaml";

/// Paths below the run directory.
#[derive(Clone, Debug)]
pub struct RunDirectory {
    root: PathBuf,
}

impl Default for RunDirectory {
    fn default() -> Self {
        Self::at(RUN_DIRECTORY)
    }
}

/// The directory of locks in it.
pub(crate) const LOCKS: &str = "locks";

impl RunDirectory {
    /// A run directory elsewhere, for tests of the file formats.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The loader's socket, mode 0600.
    pub fn socket(&self) -> PathBuf {
        self.root.join("loader.sock")
    }

    /// One [`crate::Endpoint`] record per attachment, `<key>.json`; `<key>.deleted` is a tombstone for the loader.
    pub fn endpoints(&self) -> PathBuf {
        self.root.join("endpoints")
    }

    /// Kernel locks, one per attachment.
    pub fn locks(&self) -> PathBuf {
        self.root.join(LOCKS)
    }

    /// The IPAM plug-in's files.
    pub fn ipam(&self) -> PathBuf {
        self.root.join("ipam")
    }

    /// One [`crate::Lease`] per address that is given, named after it.
    pub fn leases(&self) -> PathBuf {
        self.ipam().join("leases")
    }

    /// The same leases by owner.
    pub fn owners(&self) -> PathBuf {
        self.ipam().join("owners")
    }

    /// When addresses were given back: `<address>@<ms>`.
    pub fn released(&self) -> PathBuf {
        self.ipam().join("released")
    }

    /// Azure's state of networks and endpoints.
    pub fn azure_network(&self) -> PathBuf {
        self.root.with_file_name("azure-vnet.json")
    }

    /// Azure's state of addresses.
    pub fn azure_ipam(&self) -> PathBuf {
        self.root.with_file_name("azure-vnet-ipam.json")
    }

    /// Where these two are kept as Azure's plug-ins left them, once their addresses are taken over.
    pub fn originals(&self) -> PathBuf {
        self.root.join("original")
    }

    /// Whether the file at `path` is one of those that are kept: then it may be replaced.
    pub fn is_kept(&self, path: &Path) -> bool {
        let identity = |path: &Path| {
            let found = fs::metadata(path).ok()?;
            Some((found.dev(), found.ino()))
        };
        let kept = path.file_name().map(|name| self.originals().join(name));
        let kept = kept.and_then(|kept| identity(&kept));
        kept.is_some() && kept == identity(path)
    }

    /// The cache of the NIC's pools, written by the loader, read by the IPAM plug-in: [`crate::Pools`].
    pub fn pools(&self) -> PathBuf {
        self.ipam().join("pools.json")
    }
}
