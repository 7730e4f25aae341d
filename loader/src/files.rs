//! When has a configuration file changed?
//!
//! Directories are watched, not files: editors and kubelet replace a file, or a link on the way to it, by renaming. A
//! directory that is not there yet is noticed in the one above it.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{sleep, timeout};
use tracing::warn;

/// Whoever writes has finished after this long without another change …
const QUIET: Duration = Duration::from_millis(100);
/// … or is not waited for any longer.
const PATIENCE: Duration = Duration::from_millis(500);
/// Some changes raise no event: a mount, a link's target that is written in place.
const ANYWAY: Duration = Duration::from_secs(30);
/// Without inotify, which the system gives to each user a limited number of times.
const POLL: Duration = Duration::from_millis(500);

/// Watches directories.
#[derive(Debug)]
pub(crate) struct Files {
    directories: Vec<PathBuf>,
    inotify: Option<AsyncFd<Events>>,
}

impl Files {
    /// Watches these directories, and the ones above them.
    pub(crate) fn watch(directories: &[&Path]) -> Self {
        let above = directories
            .iter()
            .filter_map(|directory| directory.parent());
        let mut all: Vec<PathBuf> = above
            .chain(directories.iter().copied())
            .map(Path::to_owned)
            .collect();
        all.sort();
        all.dedup();
        let inotify = Events::new();
        let files = Self {
            directories: all,
            inotify: inotify
                .inspect_err(|error| {
                    warn!(%error, "watch the configuration with inotify: looking twice a second instead (fs.inotify.max_user_instances)");
                })
                .ok(),
        };
        files.arm();
        files
    }

    /// Waits for a change, or long enough for one that nobody tells. A change that comes while the caller reads the files
    /// is told at the next call.
    pub(crate) async fn changed(&self) {
        let Some(inotify) = &self.inotify else {
            return sleep(POLL).await;
        };
        if timeout(ANYWAY, drain(inotify)).await.is_ok() {
            let settled = async { while timeout(QUIET, drain(inotify)).await.is_ok() {} };
            // Out of patience is as good as settled.
            let _settled = timeout(PATIENCE, settled).await;
        }
        self.arm();
    }

    /// Watching a directory twice is watching it once, so directories that were made meanwhile are simply added.
    fn arm(&self) {
        let Some(inotify) = &self.inotify else { return };
        let events = AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVE
            | AddWatchFlags::IN_ONLYDIR;
        for directory in &self.directories {
            match inotify.get_ref().0.add_watch(directory, events) {
                Ok(_) | Err(Errno::ENOENT | Errno::ENOTDIR) => {}
                Err(error) => warn!(%error, directory = %directory.display(), "watch a directory"),
            }
        }
    }
}

/// nix's type, as tokio wants it.
#[derive(Debug)]
struct Events(Inotify);

impl AsRawFd for Events {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Events {
    fn new() -> io::Result<AsyncFd<Self>> {
        let events = Self(Inotify::init(
            InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC,
        )?);
        // SAFETY: `events` owns its descriptor, which therefore is open, and always the same, while the AsyncFd has it.
        let registered = unsafe { AsyncFd::register_with_interest(events, Interest::READABLE) };
        registered.map_err(Into::into)
    }
}

/// Waits for events and takes them all.
async fn drain(inotify: &AsyncFd<Events>) {
    loop {
        let Ok(mut ready) = inotify.readable().await else {
            // Only when the runtime shuts down.
            return std::future::pending().await;
        };
        let read = ready.try_io(|inotify| inotify.get_ref().0.read_events().map_err(Into::into));
        // A full queue is an event, too, and errors are as good as one: the caller looks at everything.
        if read.is_ok() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    }

    #[test]
    fn changes_of_every_shape_are_noticed() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("masq");
        let file = directory.join("ip-masq-agent");
        let runtime = runtime();
        let _entered = runtime.enter();
        let files = Files::watch(&[&directory]);
        let noticed = |what: &str, change: &dyn Fn()| {
            change();
            let soon = Duration::from_secs(5);
            let changed = runtime.block_on(async { timeout(soon, files.changed()).await });
            assert!(changed.is_ok(), "{what}");
        };
        noticed("the directory is made", &|| {
            fs::create_dir(&directory).unwrap();
        });
        noticed("a file is written", &|| fs::write(&file, "a").unwrap());
        noticed("it is written again", &|| fs::write(&file, "b").unwrap());
        noticed("it is replaced", &|| {
            fs::write(root.path().join("new"), "c").unwrap();
            fs::rename(root.path().join("new"), &file).unwrap();
        });
        noticed("it is removed", &|| fs::remove_file(&file).unwrap());
        noticed("kubelet's link is swapped", &|| {
            symlink("..2026", directory.join("..tmp")).unwrap();
            fs::rename(directory.join("..tmp"), directory.join("..data")).unwrap();
        });
        noticed("the directory goes", &|| {
            fs::remove_dir_all(&directory).unwrap();
        });
        noticed("and comes again", &|| fs::create_dir(&directory).unwrap());
        noticed("with a file", &|| fs::write(&file, "d").unwrap());
    }

    #[test]
    fn silence_is_no_change() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("masq");
        fs::create_dir(&directory).unwrap();
        let runtime = runtime();
        let _entered = runtime.enter();
        let files = Files::watch(&[&directory]);
        let waited =
            runtime.block_on(async { timeout(Duration::from_millis(300), files.changed()).await });
        assert!(waited.is_err());
    }
}
