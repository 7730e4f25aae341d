//! One loader per node.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::PathBuf;
use std::time::Duration;

use rpc::{RunDirectory, lock_within};

/// The loader's lock. Held until the process ends; the kernel releases it even after kill -9.
#[derive(Debug)]
pub(crate) struct Lock {
    path: PathBuf,
    file: File,
}

/// The lock cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LockError {
    #[error("make the run directory {path}: {source}")]
    Directory { path: PathBuf, source: io::Error },
    #[error("open {path}: {source}")]
    Open { path: PathBuf, source: io::Error },
    #[error("another azure-vnet-loader runs on this node (it holds {path}); stop it first")]
    Held { path: PathBuf },
    #[error("lock {path}: {source}")]
    Lock { path: PathBuf, source: io::Error },
}

impl Lock {
    /// Waits no longer than `patience` for who holds it.
    pub(crate) fn acquire(run: &RunDirectory, patience: Duration) -> Result<Self, LockError> {
        let root = run.root();
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(root)
            .map_err(|source| LockError::Directory {
                path: root.to_owned(),
                source,
            })?;
        let path = root.join("loader.lock");
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(|source| LockError::Open {
                path: path.clone(),
                source,
            })?;
        match lock_within(&file, patience) {
            Ok(true) => Ok(Self { path, file }),
            Ok(false) => Err(LockError::Held { path }),
            Err(source) => Err(LockError::Lock { path, source }),
        }
    }

    /// Whether another loader would find it: somebody may have removed the file.
    pub(crate) fn is_found(&self) -> bool {
        let identity = |file: fs::Metadata| (file.dev(), file.ino());
        let held = self.file.metadata().map(identity);
        let found = fs::metadata(&self.path).map(identity);
        matches!((held, found), (Ok(held), Ok(found)) if held == found)
    }
}
