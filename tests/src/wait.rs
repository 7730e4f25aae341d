//! How does the lab wait? For a descriptor or a condition, with a deadline, and never by sleeping.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll, ppoll};

/// The moment after which waiting is an error.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(Instant);

impl Deadline {
    /// So much time from now, times `LAB_PATIENCE`: a machine that is emulated in software needs more.
    pub fn after(time: Duration) -> Self {
        static PATIENCE: LazyLock<u32> = LazyLock::new(|| {
            let factor = std::env::var("LAB_PATIENCE").ok();
            factor.and_then(|factor| factor.parse().ok()).unwrap_or(1)
        });
        Self(Instant::now() + time * *PATIENCE)
    }

    /// The time that is left; zero when the deadline has passed.
    pub fn remaining(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// Whether no time is left.
    pub fn passed(self) -> bool {
        self.remaining().is_zero()
    }

    /// Rounded up, so that a poll does not spin through the last millisecond.
    fn poll_timeout(self) -> PollTimeout {
        match self.remaining() {
            Duration::ZERO => PollTimeout::ZERO,
            left => {
                PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
            }
        }
    }
}

/// Waits until one of the descriptors is ready and says which ones are (also on hang-up or error).
/// All are false when the deadline passed first; no deadline waits for ever.
pub(crate) fn ready(
    fds: &[(BorrowedFd<'_>, PollFlags)],
    deadline: Option<Deadline>,
) -> io::Result<Vec<bool>> {
    let mut polled: Vec<_> = fds
        .iter()
        .map(|(fd, flags)| PollFd::new(*fd, *flags))
        .collect();
    loop {
        let timeout = deadline.map_or(PollTimeout::NONE, Deadline::poll_timeout);
        match poll(&mut polled, timeout) {
            Ok(_) => break,
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(polled
        .iter()
        .map(|fd| fd.revents().is_none_or(|events| !events.is_empty()))
        .collect())
}

/// Waits until `fd` can be read without blocking; false when the deadline passed first.
pub(crate) fn readable(fd: &impl AsFd, deadline: Deadline) -> io::Result<bool> {
    let states = ready(&[(fd.as_fd(), PollFlags::POLLIN)], Some(deadline))?;
    Ok(states.contains(&true))
}

/// [`readable`], where a millisecond is a long time.
pub(crate) fn readable_within(fd: &impl AsFd, limit: Duration) -> io::Result<bool> {
    let mut polled = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    Ok(ppoll(&mut polled, Some(limit.into()), None)? > 0)
}

/// Asks every ten milliseconds until there is an answer; `None` when `limit` passed first. For what cannot be waited for.
pub fn eventually<T>(limit: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Deadline::after(limit);
    loop {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        if deadline.passed() {
            return None;
        }
        pass(Duration::from_millis(10));
    }
}

/// Lets so much time pass, for a test in which the moment is what is tried. To wait for something, wait for that.
pub fn pass(time: Duration) {
    // Interrupted by a signal, it is over early.
    let _nothing = ppoll(&mut [], Some(time.into()), None);
}

/// Locks also after a test thread panicked while it held the lock: the dump still has to be printed.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tells a load to end when it goes away, whatever goes wrong meanwhile: a scope waits for its threads before it passes a
/// panic on.
#[derive(Debug)]
pub struct Stop<'a>(pub &'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
