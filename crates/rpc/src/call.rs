//! How a call of a plug-in went, told to the loader for its metrics.

use std::io::{self, Write as _};
use std::net::Shutdown;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use serde::{Deserialize, Serialize};

use crate::Request;

/// A call that is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallReport {
    /// Name of the plug-in.
    pub plugin: String,
    /// `ADD`, for example.
    pub verb: String,
    /// How long it took, microseconds.
    pub total_us: u64,
    /// How it failed.
    pub error: Option<CallFailure>,
}

/// How a call failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallFailure {
    /// The CNI code.
    pub code: u32,
    /// The step.
    pub step: String,
}

/// Tells the loader at `socket`, and waits for nobody: neither for a loader that is busy nor for its answer. The kernel keeps
/// what is told until the loader reads it.
pub fn tell(socket: &Path, report: CallReport) -> io::Result<()> {
    let report = serde_json::to_vec(&Request::Report(report))?;
    let mut stream = connect_at_once(socket)?;
    stream.write_all(&report)?;
    stream.shutdown(Shutdown::Write)
}

/// std's own waits for a loader that accepts no more.
fn connect_at_once(path: &Path) -> io::Result<UnixStream> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let stream = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect(stream.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(stream.into())
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::net::UnixListener;

    use super::*;

    fn report(number: u64) -> CallReport {
        CallReport {
            plugin: "azure-vnet".into(),
            verb: "ADD".into(),
            total_us: number,
            error: None,
        }
    }

    #[test]
    fn a_report_waits_for_a_loader_that_is_busy_but_nobody_waits_for_the_loader() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("loader.sock");
        assert!(tell(&path, report(0)).is_err(), "nobody is there");
        let listener = UnixListener::bind(&path).unwrap();
        // A loader that accepts nothing: at some point the queue is full, and that is an error, not a wait.
        let told = (1..100_000).take_while(|number| tell(&path, report(*number)).is_ok());
        assert!(told.count() >= 100);
        let mut text = String::new();
        let (mut first, _) = listener.accept().unwrap();
        first.read_to_string(&mut text).unwrap();
        let Request::Report(read) = serde_json::from_str(&text).unwrap() else {
            panic!("{text}")
        };
        assert_eq!(read, report(1));
        drop(listener);
        assert!(tell(&path, report(0)).is_err(), "nobody is there any more");
    }
}
