//! A kernel lock on a file, waited for no longer than somebody can wait.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::sys::stat::{major, minor};

/// Whether the exclusive lock on `file` (flock(2)) was had within `limit`; of zero, at once. When it was not, `file` must be closed:
/// who waited still does, and as long as `file` is open, so is what it gets.
pub fn lock_within(file: &File, limit: Duration) -> io::Result<bool> {
    match file.try_lock() {
        Ok(()) => return Ok(true),
        Err(TryLockError::WouldBlock) if limit.is_zero() => return Ok(false),
        Err(TryLockError::WouldBlock) => {}
        Err(TryLockError::Error(source)) => return Err(source),
    }
    // The kernel has no lock with a time limit. A duplicate shares the lock; the thread ends with it or with the process.
    let duplicate = file.try_clone()?;
    let (sender, receiver) = mpsc::channel();
    thread::Builder::new().spawn(move || sender.send(duplicate.lock()))?;
    match receiver.recv_timeout(limit) {
        Ok(locked) => locked.map(|()| true),
        Err(_late) => Ok(false),
    }
}

/// Who holds the lock on `file`, in a line of `man 5 proc_locks`: `1: FLOCK ADVISORY WRITE 4711 00:1a:77 0 EOF`. One in another
/// PID namespace has no number here.
pub fn lock_holder(file: &File) -> Option<u32> {
    let at = file.metadata().ok()?;
    let (device, inode) = (at.dev(), at.ino());
    let id = format!("{:02x}:{:02x}:{inode}", major(device), minor(device));
    let locks = fs::read_to_string("/proc/locks").ok()?;
    locks.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let (kind, pid, of) = (fields.next()?, fields.nth(2)?, fields.next()?);
        let pid = pid.parse().ok().filter(|pid| *pid != 0);
        pid.filter(|_| (kind, of) == ("FLOCK", id.as_str()))
    })
}
