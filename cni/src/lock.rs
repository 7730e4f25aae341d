//! Kernel locks on files: given back by the kernel when their holder dies, never held for the whole node.
//!
//! A lock file exists while an operation is under way. Its content is the operation's draft, so that whoever gets the
//! lock after a crash knows what to take away; a crash of the machine takes everything away, so nothing is synced.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::error::code;

/// A lock could not be had or kept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LockError {
    #[error("{doing} the lock {path}: {source}; check the directory's file system")]
    Io {
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("wait for the lock {path}: another call held it for {} s; try again, `lsof {path}` shows the holder", limit.as_secs())]
    Busy { path: PathBuf, limit: Duration },
}

impl LockError {
    /// The CNI code.
    pub(crate) fn code(&self) -> u32 {
        match self {
            Self::Io { .. } => code::IO,
            Self::Busy { .. } => code::TRY_AGAIN,
        }
    }
}

/// A held lock. Dropping it removes the file and lets go; a file with a draft stays.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
    path: PathBuf,
    draft: Vec<u8>,
    permanent: bool,
}

impl Lock {
    /// Like [`Lock::acquire`], with a file that is never removed: for a lock that many wait for.
    pub(crate) fn acquire_permanent(path: &Path, limit: Duration) -> Result<Self, LockError> {
        let mut lock = Self::acquire(path, limit)?;
        lock.permanent = true;
        Ok(lock)
    }

    /// Waits for the lock on `path`, at most `limit`; the file is made when it is missing.
    pub(crate) fn acquire(path: &Path, limit: Duration) -> Result<Self, LockError> {
        let error = |doing| {
            move |source| LockError::Io {
                doing,
                path: path.to_owned(),
                source,
            }
        };
        let deadline = Instant::now() + limit;
        loop {
            let mut file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(path)
                .map_err(error("open"))?;
            let left = deadline.saturating_duration_since(Instant::now());
            if !wait(&file, left).map_err(error("take"))? {
                return Err(LockError::Busy {
                    path: path.to_owned(),
                    limit,
                });
            }
            if is_at(&file, path).map_err(error("look at"))? {
                let mut draft = Vec::new();
                file.read_to_end(&mut draft).map_err(error("read"))?;
                return Ok(Self {
                    file,
                    path: path.to_owned(),
                    draft,
                    permanent: false,
                });
            }
        }
    }

    /// The draft of an operation that was interrupted; empty when the one before ended as it should.
    pub(crate) fn draft(&self) -> &[u8] {
        &self.draft
    }

    /// Replaces the draft.
    pub(crate) fn write_draft(&mut self, content: &[u8]) -> Result<(), LockError> {
        self.file
            .set_len(0)
            .and_then(|()| self.file.rewind())
            .and_then(|()| self.file.write_all(content))
            .map_err(|source| LockError::Io {
                doing: "write the draft in",
                path: self.path.clone(),
                source,
            })?;
        content.clone_into(&mut self.draft);
        Ok(())
    }

    /// The operation is done, or undone.
    pub(crate) fn clear_draft(&mut self) -> Result<(), LockError> {
        self.write_draft(b"")
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if self.draft.is_empty() && !self.permanent {
            // Those who wait for this file notice that it is gone and open a new one; a file that stays is only litter.
            drop(fs::remove_file(&self.path));
        }
    }
}

/// Whether `file` is still what `path` names. The holder before us may have removed it while we waited: then this lock is
/// on a file that nobody else will ever open.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let ours = file.metadata()?;
    match fs::metadata(path) {
        Ok(there) => Ok((there.dev(), there.ino()) == (ours.dev(), ours.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether the lock was had within `limit`.
fn wait(file: &File, limit: Duration) -> io::Result<bool> {
    match file.try_lock() {
        Ok(()) => return Ok(true),
        Err(TryLockError::WouldBlock) => {}
        Err(TryLockError::Error(source)) => return Err(source),
    }
    // The kernel has no lock with a time limit. A duplicate shares the lock; the thread ends with the process.
    let duplicate = file.try_clone()?;
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || sender.send(duplicate.lock()));
    match receiver.recv_timeout(limit) {
        Ok(locked) => locked.map(|()| true),
        Err(_late) => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(50);

    #[test]
    fn a_held_lock_makes_others_wait_and_then_give_up_with_try_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let held = Lock::acquire(&path, SOON).unwrap();
        let error = Lock::acquire(&path, SOON).unwrap_err();
        assert_eq!(error.code(), code::TRY_AGAIN);
        drop(held);
        Lock::acquire(&path, SOON).unwrap();
    }

    #[test]
    fn a_draft_survives_its_writer_and_a_file_without_one_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let mut lock = Lock::acquire(&path, SOON).unwrap();
        lock.write_draft(b"a long draft").unwrap();
        lock.write_draft(b"short").unwrap();
        drop(lock);
        let mut lock = Lock::acquire(&path, SOON).unwrap();
        assert_eq!(lock.draft(), b"short");
        lock.clear_draft().unwrap();
        drop(lock);
        assert!(!path.exists());
    }

    /// The unlink race: of many who lock, do and remove, never two are inside at once.
    #[test]
    fn removing_the_file_never_lets_two_in() {
        use std::sync::atomic::{AtomicU32, Ordering};
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let inside = AtomicU32::new(0);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let _lock = Lock::acquire(&path, Duration::from_secs(20)).unwrap();
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        (0..20).for_each(|_| thread::yield_now());
                        inside.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
    }
}
