//! A kernel lock on a file, waited for no longer than somebody can wait.

use std::fs::{File, TryLockError};
use std::io;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

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
