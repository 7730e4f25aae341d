//! Which calls have ended since some moment, by the lock files that they removed or closed.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use crate::lock::LockError;

/// Sees every call that lets go a [`crate::lock::Lock`] in a directory, or dies under it, without a clock, before anybody else can have
/// that lock: the kernel tells of a file's removal before there can be another one of that name, and of the end of one that stays,
/// open for writing, before it gives the lock on it away (`__fput` in Linux's `fs/file_table.c`). Who only looks opens it for
/// reading.
pub(crate) struct Ended {
    inotify: Inotify,
    names: BTreeSet<OsString>,
    /// There were more than the kernel remembers (`fs.inotify.max_queued_events`).
    overflowed: bool,
}

impl Ended {
    /// From now on.
    pub(crate) fn watch(locks: &Path) -> Result<Self, LockError> {
        let flags = InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC;
        let inotify = Inotify::init(flags).and_then(|inotify| {
            let told = AddWatchFlags::IN_DELETE | AddWatchFlags::IN_CLOSE_WRITE;
            inotify.add_watch(locks, told | AddWatchFlags::IN_ONLYDIR)?;
            Ok(inotify)
        });
        let failed = |errno: Errno| {
            let is_used_up = matches!(errno, Errno::EMFILE | Errno::ENOSPC);
            let (path, source) = (locks.to_owned(), errno.into());
            if is_used_up {
                LockError::Watch { path, source }
            } else {
                LockError::io("watch", locks, source)
            }
        };
        Ok(Self {
            inotify: inotify.map_err(failed)?,
            names: BTreeSet::new(),
            overflowed: false,
        })
    }

    /// Whether a call under the lock with this file name may have ended since. Whoever asks under that lock himself knows
    /// about all before him.
    pub(crate) fn includes(&mut self, name: &str) -> bool {
        loop {
            match self.inotify.read_events() {
                Ok(events) => {
                    for event in events {
                        self.overflowed |= event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW);
                        self.names.extend(event.name);
                    }
                }
                Err(Errno::EAGAIN) => break,
                Err(Errno::EINTR) => {}
                // Unknown is as good as yes: the next GC sees more.
                Err(_) => {
                    self.overflowed = true;
                    break;
                }
            }
        }
        self.overflowed || self.names.contains(OsStr::new(name))
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::time::Duration;

    use super::*;
    use crate::deadline::Deadline;
    use crate::lock::Lock;

    #[test]
    fn calls_that_end_are_seen_and_those_before_are_not() {
        let locks = tempfile::tempdir().unwrap();
        let patience = || Deadline::after(Duration::from_secs(1)).spare(Duration::from_secs(1));
        let acquire = |name: &str| Lock::acquire(&locks.path().join(name), patience()).unwrap();
        drop(acquire("before"));
        let (at_work, mut killed) = (acquire("at work"), acquire("killed"));
        killed.write_draft(b"draft").unwrap();
        let stays = Lock::acquire_permanent(&locks.path().join("stays"), patience()).unwrap();
        let looked_at = locks.path().join("looked at");
        drop(File::create(&looked_at).unwrap());
        let letting_go = locks.path().join("letting go");
        let still_open = File::create(&letting_go).unwrap();
        still_open.lock().unwrap();
        let mut ended = Ended::watch(locks.path()).unwrap();
        assert!(!ended.includes("at work"));
        // Between the two steps of letting go another call has the lock already.
        fs::remove_file(&letting_go).unwrap();
        let next = acquire("letting go");
        assert!(ended.includes("letting go"));
        drop((next, still_open));
        drop(at_work);
        drop(acquire("since"));
        drop(killed);
        drop(stays);
        drop(File::open(&looked_at).unwrap());
        let names = ["before", "at work", "since", "killed", "stays", "looked at"];
        assert_eq!(
            names.map(|name| ended.includes(name)),
            [false, true, true, true, true, false]
        );
    }
}
