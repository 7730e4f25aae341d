//! How is another program run that may hang? By `timeout`, which ends it.

use std::ffi::OsStr;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitStatus, Stdio};

use nix::libc;

/// Seconds that a program may take.
const PATIENCE: &str = "5";
/// What `timeout` ends with when it had to end the program …
const HANGS: i32 = 124;
/// … and when there is none.
pub(crate) const NOT_FOUND: i32 = 127;

/// A program does not do what it was to do.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It cannot be started.
    #[error("run {program}: {source}")]
    Start {
        /// Which.
        program: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// It was ended.
    #[error("{program}: it hangs")]
    Hangs {
        /// Which.
        program: &'static str,
    },
    /// It fails.
    #[error("{program}: {why}")]
    Failed {
        /// Which.
        program: &'static str,
        /// What it said.
        why: String,
    },
}

/// A program that is ended when it hangs.
pub(crate) fn bounded(program: &str) -> Command {
    let mut command = within(PATIENCE, program);
    command.stdin(Stdio::null());
    command
}

/// The same after so many seconds.
pub(crate) fn within(seconds: &str, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=1", seconds]).arg(program);
    command
}

/// Whether such a program had to be ended. One that does not listen is killed, and `timeout` with it.
pub(crate) fn hangs(ended: ExitStatus) -> bool {
    ended.code() == Some(HANGS) || ended.signal() == Some(libc::SIGKILL)
}

/// What such a program prints.
pub(crate) fn run(program: &'static str, arguments: &[&str]) -> Result<String, RunError> {
    let start = |source| RunError::Start { program, source };
    let done = bounded(program).args(arguments).output().map_err(start)?;
    match done.status.code() {
        Some(0) => Ok(String::from_utf8_lossy(&done.stdout).into_owned()),
        Some(NOT_FOUND) => Err(start(io::ErrorKind::NotFound.into())),
        _ if hangs(done.status) => Err(RunError::Hangs { program }),
        _ => {
            let why = String::from_utf8_lossy(&done.stderr).trim().to_owned();
            Err(RunError::Failed { program, why })
        }
    }
}
