//! The pod's network namespace: opened without trusting the path, entered in a thread of its own.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::thread;

use nix::libc;
use nix::sched::{CloneFlags, setns};
use nix::sys::statfs::{NSFS_MAGIC, fstatfs};

use netconf::code;

nix::ioctl_none_bad!(
    /// `NS_GET_NSTYPE` of `linux/nsfs.h`: the `CLONE_NEW…` flag of a namespace.
    namespace_type,
    nix::request_code_none!(0xb7, 0x3)
);

/// The namespace cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NetnsError {
    #[error("open CNI_NETNS {path}: {source}; the runtime must make the namespace first")]
    Open { path: String, source: io::Error },
    #[error("open CNI_NETNS {path}: it is no network namespace; the runtime must pass one")]
    NotANetns { path: String },
    #[error(
        "use CNI_NETNS {path}: it is the plug-in's own network namespace; the runtime must pass the pod's"
    )]
    Own { path: String },
    #[error("enter the network namespace {path}: {source}; the plug-in needs CAP_SYS_ADMIN")]
    Enter { path: String, source: io::Error },
}

impl NetnsError {
    /// The CNI code.
    pub(crate) fn code(&self) -> u32 {
        match self {
            Self::Open { .. } | Self::NotANetns { .. } | Self::Own { .. } => code::NETNS,
            Self::Enter { .. } => code::KERNEL,
        }
    }
}

/// An open network namespace that is not ours.
#[derive(Debug)]
pub(crate) struct Netns {
    file: File,
    path: String,
}

impl Netns {
    /// Opens `path` if it is another network namespace than the caller's.
    pub(crate) fn open(path: &str) -> Result<Self, NetnsError> {
        let open_error = |source| NetnsError::Open {
            path: path.to_owned(),
            source,
        };
        // O_PATH: whatever the path is, a FIFO or a device, opening it does nothing. Only a namespace is really opened.
        let place = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_PATH)
            .open(path)
            .map_err(open_error)?;
        let file_system = fstatfs(&place).map_err(|errno| open_error(errno.into()))?;
        if file_system.filesystem_type() != NSFS_MAGIC {
            return Err(NetnsError::NotANetns {
                path: path.to_owned(),
            });
        }
        let file =
            File::open(format!("/proc/self/fd/{}", place.as_raw_fd())).map_err(open_error)?;
        // SAFETY: the ioctl takes no argument and the descriptor is open.
        let kind = unsafe { namespace_type(file.as_raw_fd()) };
        if kind != Ok(libc::CLONE_NEWNET) {
            return Err(NetnsError::NotANetns {
                path: path.to_owned(),
            });
        }
        let theirs = file.metadata().map_err(open_error)?;
        let ours = fs::metadata("/proc/self/ns/net").map_err(open_error)?;
        if (theirs.dev(), theirs.ino()) == (ours.dev(), ours.ino()) {
            return Err(NetnsError::Own {
                path: path.to_owned(),
            });
        }
        Ok(Self {
            file,
            path: path.to_owned(),
        })
    }

    /// Runs `work` inside. The thread that enters never leaves again, it ends, so that this one stays where it is.
    pub(crate) fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
        let error = |source| NetnsError::Enter {
            path: self.path.clone(),
            source,
        };
        thread::scope(|scope| {
            let inside = thread::Builder::new()
                .spawn_scoped(scope, || {
                    setns(&self.file, CloneFlags::CLONE_NEWNET)?;
                    Ok(work())
                })
                .map_err(error)?;
            inside
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
                .map_err(error)
        })
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_foreign_network_namespace_is_refused_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let [file, fifo, dangling] = ["file", "fifo", "dangling"].map(|name| dir.path().join(name));
        fs::write(&file, "").unwrap();
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        std::os::unix::fs::symlink("/nowhere", &dangling).unwrap();
        for path in [
            file.to_str().unwrap(),
            fifo.to_str().unwrap(),
            dangling.to_str().unwrap(),
            dir.path().to_str().unwrap(),
            "/dev/null",
            "/proc/self/ns/mnt",
            "/proc/self/ns/net",
            "/nowhere",
        ] {
            let error = Netns::open(path).unwrap_err();
            assert_eq!(error.code(), code::NETNS, "{path}");
            assert!(error.to_string().contains(path), "{error}");
        }
    }
}
