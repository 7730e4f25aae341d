//! One loader per node.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::PathBuf;
use std::time::Duration;

use rpc::{RunDirectory, lock_holder, lock_within};

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
    #[error(
        "another azure-vnet-loader runs on this node ({} holds {path}); stop it first",
        holder.map_or_else(|| "it".to_owned(), |pid| format!("process {pid}"))
    )]
    Held { path: PathBuf, holder: Option<u32> },
    #[error(
        "{path} was removed while it was waited for; start azure-vnet-loader again, unless it was uninstalled"
    )]
    Gone { path: PathBuf },
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
            Ok(true) => {
                let lock = Self { path, file };
                // Who held it may have taken the file away while we waited: `vnetctl uninstall` does.
                if lock.is_found() {
                    Ok(lock)
                } else {
                    Err(LockError::Gone { path: lock.path })
                }
            }
            Ok(false) => Err(LockError::Held {
                path,
                holder: lock_holder(&file),
            }),
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

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    const A_WHILE: Duration = Duration::from_secs(20);

    /// Whether somebody waits for the lock on `file`.
    fn is_waited_for(file: &File) -> bool {
        let waiter = format!(":{} ", file.metadata().unwrap().ino());
        let locks = fs::read_to_string("/proc/locks").unwrap();
        let mut locks = locks.lines();
        locks.any(|line| line.contains("->") && line.contains(&waiter))
    }

    /// What a second loader gets whose wait ends after the first has done this.
    fn second(first: impl FnOnce(&Lock)) -> Result<Lock, LockError> {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDirectory::at(dir.path());
        let held = Lock::acquire(&run, Duration::ZERO).unwrap();
        thread::scope(|scope| {
            let waits = scope.spawn(|| Lock::acquire(&run, A_WHILE));
            while !is_waited_for(&held.file) {
                thread::yield_now();
            }
            first(&held);
            drop(held);
            waits.join().unwrap()
        })
    }

    #[test]
    fn a_lock_that_is_let_go_in_time_is_had() {
        second(|_| {}).unwrap();
    }

    #[test]
    fn a_lock_that_is_not_let_go_is_somebody_elses() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDirectory::at(dir.path());
        let _held = Lock::acquire(&run, Duration::ZERO).unwrap();
        for patience in [Duration::ZERO, Duration::from_millis(20)] {
            let refused = Lock::acquire(&run, patience).unwrap_err();
            let own = std::process::id();
            assert!(matches!(refused, LockError::Held { holder: Some(pid), .. } if pid == own));
            let holds = format!("process {own} holds ");
            assert!(refused.to_string().contains(&holds), "{refused}");
        }
    }

    /// As `vnetctl uninstall` ends.
    #[test]
    fn a_lock_whose_file_is_taken_away_meanwhile_is_nobodys() {
        let refused = second(|held| fs::remove_file(&held.path).unwrap());
        assert!(matches!(refused, Err(LockError::Gone { .. })));
    }
}
