//! Kernel locks on files: given back by the kernel when their holder dies, never held for the whole node.
//!
//! A lock file exists while an operation is under way. Its content is the operation's drafts, a line each, of which the last
//! counts, so that whoever gets the lock after a crash knows what to take away. A line is only ever appended: one that was cut
//! short is no line, and the one before still holds. A crash of the machine takes everything away, so nothing is synced.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::deadline::{Deadline, Patience};
use netconf::code;
use rpc::{lock_holder, lock_within};

/// Longer than somebody holds a lock who only looks whether it is held.
const A_LOOK: Duration = Duration::from_millis(50);

/// A lock could not be had or kept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LockError {
    #[error("{doing} the lock {path}: {source}; check its file system (df, df -i, mount, dmesg)")]
    Io {
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error(
        "watch {path} for calls that end: {source}; raise fs.inotify.max_user_instances or fs.inotify.max_user_watches, which all processes of root share"
    )]
    Watch { path: PathBuf, source: io::Error },
    #[error(
        "wait for the lock {path}: {} held it for {patience}; try again, and if it is that one again, see what it waits for",
        holder.map_or_else(|| "another call".into(), |pid| format!("process {pid}"))
    )]
    Busy {
        path: PathBuf,
        patience: Patience,
        /// As far as the kernel tells.
        holder: Option<u32>,
    },
}

impl LockError {
    pub(crate) fn io(doing: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io {
            doing,
            path: path.to_owned(),
            source,
        }
    }

    /// The CNI code.
    pub(crate) fn code(&self) -> u32 {
        match self {
            Self::Io { .. } => code::IO,
            Self::Watch { .. } | Self::Busy { .. } => code::TRY_AGAIN,
        }
    }
}

/// A held lock. Dropping it removes the file and lets go; a file with a draft stays.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
    path: PathBuf,
    /// The last one; empty when there is none.
    draft: Vec<u8>,
    /// Where the next line goes.
    end: u64,
    permanent: bool,
}

impl Lock {
    /// Like [`Lock::acquire`], with a file that is never removed: for a lock that many wait for.
    pub(crate) fn acquire_permanent(path: &Path, patience: Patience) -> Result<Self, LockError> {
        let mut lock = Self::acquire(path, patience)?;
        lock.permanent = true;
        Ok(lock)
    }

    /// The lock on `path` if nobody works under it. Who only looks, as `vnetctl` does, shares it for a moment and is waited for; who
    /// works is not, because what he has made when he ends is none of the asker's.
    pub(crate) fn try_acquire(path: &Path, deadline: &Deadline) -> Result<Option<Self>, LockError> {
        if Self::is_worked_under(path)? {
            return Ok(None);
        }
        match Self::acquire(path, deadline.spare(A_LOOK)) {
            Ok(lock) => Ok(Some(lock)),
            Err(LockError::Busy { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The draft in the file of a lock that may be another's; `None` when the file is gone.
    pub(crate) fn read_draft(path: &Path) -> Result<Option<Vec<u8>>, LockError> {
        match fs::read(path) {
            Ok(content) => Ok(Some(last_line(whole_lines(&content)).to_owned())),
            Err(absent) if absent.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(LockError::io("read", path, source)),
        }
    }

    /// Whether somebody works under the lock on `path` at this moment.
    pub(crate) fn is_worked_under(path: &Path) -> Result<bool, LockError> {
        is_held(path).map_err(|source| LockError::io("look at", path, source))
    }

    /// Waits for the lock on `path`; the file is made when it is missing.
    pub(crate) fn acquire(path: &Path, patience: Patience) -> Result<Self, LockError> {
        let error = |doing| move |source| LockError::io(doing, path, source);
        let deadline = Instant::now() + patience.limit();
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
            if !lock_within(&file, left).map_err(error("take"))? {
                return Err(LockError::Busy {
                    path: path.to_owned(),
                    patience,
                    holder: lock_holder(&file),
                });
            }
            if is_at(&file, path).map_err(error("look at"))? {
                let mut content = Vec::new();
                file.read_to_end(&mut content).map_err(error("read"))?;
                let lines = whole_lines(&content);
                if lines.len() < content.len() {
                    file.set_len(lines.len() as u64).map_err(error("mend"))?;
                }
                return Ok(Self {
                    file,
                    path: path.to_owned(),
                    draft: last_line(lines).to_owned(),
                    end: lines.len() as u64,
                    permanent: false,
                });
            }
        }
    }

    /// The draft of an operation that was interrupted; empty when the one before ended as it should.
    pub(crate) fn draft(&self) -> &[u8] {
        &self.draft
    }

    /// Replaces the draft; `content` is one line. Whoever kills us meanwhile leaves the old one or the new one.
    pub(crate) fn write_draft(&mut self, content: &[u8]) -> Result<(), LockError> {
        let line = [content, b"\n"].concat();
        self.file
            .write_all_at(&line, self.end)
            .map_err(|source| self.draft_error(source))?;
        self.end += line.len() as u64;
        content.clone_into(&mut self.draft);
        Ok(())
    }

    /// What was begun is done, or undone.
    pub(crate) fn clear_draft(&mut self) -> Result<(), LockError> {
        self.file
            .set_len(0)
            .map_err(|source| self.draft_error(source))?;
        self.end = 0;
        self.draft.clear();
        Ok(())
    }

    /// Lets go, and leaves no draft. One that cannot be emptied goes with its file: who reads it would take away what lives.
    pub(crate) fn end(mut self) -> Result<(), LockError> {
        match self.clear_draft() {
            Err(_) if fs::remove_file(&self.path).is_ok() => Ok(()),
            cleared => cleared,
        }
    }

    fn draft_error(&self, source: io::Error) -> LockError {
        LockError::io("write the draft in", &self.path, source)
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

/// `content` without the line that somebody could not finish.
fn whole_lines(content: &[u8]) -> &[u8] {
    let end = content.iter().rposition(|byte| *byte == b'\n');
    end.and_then(|end| content.get(..=end)).unwrap_or_default()
}

fn last_line(lines: &[u8]) -> &[u8] {
    lines
        .split(|byte| *byte == b'\n')
        .rfind(|line| !line.is_empty())
        .unwrap_or_default()
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

/// Whether somebody holds the lock alone.
fn is_held(path: &Path) -> io::Result<bool> {
    let file = match File::open(path) {
        Err(absent) if absent.kind() == io::ErrorKind::NotFound => return Ok(false),
        opened => opened?,
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(source)) => Err(source),
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn soon() -> Patience {
        Deadline::after(Duration::from_mins(1)).spare(Duration::from_millis(50))
    }

    /// Whether somebody waits for the lock on `file`.
    fn is_waited_for(file: &File) -> bool {
        let waiter = format!(":{} ", file.metadata().unwrap().ino());
        let locks = fs::read_to_string("/proc/locks").unwrap();
        let mut locks = locks.lines();
        locks.any(|line| line.contains("->") && line.contains(&waiter))
    }

    #[test]
    fn a_held_lock_makes_others_wait_and_then_give_up_with_try_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let held = Lock::acquire(&path, soon()).unwrap();
        let error = Lock::acquire(&path, soon()).unwrap_err();
        assert_eq!(error.code(), code::TRY_AGAIN);
        drop(held);
        Lock::acquire(&path, soon()).unwrap();
    }

    #[test]
    fn who_only_looks_at_a_lock_does_not_pass_for_a_call_at_work() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let looks = File::create(&path).unwrap();
        looks.lock_shared().unwrap();
        let deadline = Deadline::after(Duration::from_mins(1));
        assert!(Lock::try_acquire(&path, &deadline).unwrap().is_none());
        let end = thread::spawn(move || {
            while !is_waited_for(&looks) {
                thread::yield_now();
            }
            drop(looks);
        });
        assert!(Lock::try_acquire(&path, &deadline).unwrap().is_some());
        end.join().unwrap();
    }

    /// An ADD that ends in the meantime has made a pod that is younger than GC's list.
    #[test]
    fn who_works_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let works = File::create(&path).unwrap();
        works.lock().unwrap();
        let is_over = std::sync::atomic::AtomicBool::new(false);
        let is_over = &is_over;
        thread::scope(|scope| {
            scope.spawn(move || {
                while !is_over.load(std::sync::atomic::Ordering::Relaxed) && !is_waited_for(&works)
                {
                    thread::yield_now();
                }
                drop(works);
            });
            let deadline = Deadline::after(Duration::from_mins(1));
            assert!(Lock::try_acquire(&path, &deadline).unwrap().is_none());
            is_over.store(true, std::sync::atomic::Ordering::Relaxed);
        });
    }

    #[test]
    fn a_draft_survives_its_writer_and_a_file_without_one_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let mut lock = Lock::acquire(&path, soon()).unwrap();
        lock.write_draft(b"a long draft").unwrap();
        lock.write_draft(b"short").unwrap();
        drop(lock);
        let mut lock = Lock::acquire(&path, soon()).unwrap();
        assert_eq!(lock.draft(), b"short");
        lock.clear_draft().unwrap();
        drop(lock);
        assert!(!path.exists());
    }

    #[test]
    fn a_draft_that_cannot_be_emptied_goes_with_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let mut lock = Lock::acquire(&path, soon()).unwrap();
        lock.write_draft(b"draft").unwrap();
        // Opened for reading only, it cannot be cut.
        lock.file = File::open(&path).unwrap();
        lock.clear_draft().unwrap_err();
        lock.end().unwrap();
        assert!(!path.exists());
        assert_eq!(Lock::acquire(&path, soon()).unwrap().draft(), b"");
    }

    /// A writer that is killed has written any first part of its line.
    #[test]
    fn a_draft_that_is_cut_short_leaves_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let mut lock = Lock::acquire(&path, soon()).unwrap();
        lock.write_draft(b"the first draft").unwrap();
        let first = fs::read(&path).unwrap();
        lock.write_draft(b"the second").unwrap();
        drop(lock);
        let both = fs::read(&path).unwrap();
        assert!(both.starts_with(&first), "the file was never without it");
        for cut in first.len()..both.len() {
            fs::write(&path, &both[..cut]).unwrap();
            let mut lock = Lock::acquire(&path, soon()).unwrap();
            assert_eq!(lock.draft(), b"the first draft", "cut at {cut}");
            lock.write_draft(b"another").unwrap();
            drop(lock);
            assert_eq!(Lock::acquire(&path, soon()).unwrap().draft(), b"another");
        }
    }

    /// The unlink race: of many who lock, do and remove, never two are inside at once.
    #[test]
    fn removing_the_file_never_lets_two_in() {
        use std::sync::atomic::{AtomicU32, Ordering};
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let inside = AtomicU32::new(0);
        let patience = Deadline::after(Duration::from_mins(1)).spare(Duration::from_secs(20));
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let _lock = Lock::acquire(&path, patience).unwrap();
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        (0..20).for_each(|_| thread::yield_now());
                        inside.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
    }
}
