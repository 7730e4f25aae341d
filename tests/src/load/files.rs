//! A descriptor table for one thread: the limit of open files is counted per table.

use anyhow::{Context as _, Result};
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::close;

/// Gives the calling thread an empty descriptor table, standard streams apart. What it opens is its own, and closes when
/// it ends; what others have opened is not there.
pub(super) fn own_files() -> Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context("raise the limit of open files")?;
    unshare(CloneFlags::CLONE_FILES).context("unshare the descriptors")?;
    let numbers: Vec<i32> = std::fs::read_dir("/proc/thread-self/fd")
        .context("list the descriptors")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    for number in numbers.into_iter().filter(|number| *number > 2) {
        // One of them was the listing itself.
        close(number).unwrap_or_default();
    }
    Ok(())
}
