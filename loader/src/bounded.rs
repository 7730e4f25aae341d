//! How is another program run that may hang? By `timeout`, which ends it.

use std::ffi::OsStr;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::libc;

/// Seconds that a program may take.
const PATIENCE: u64 = 5;
/// What `timeout` ends with when it had to end the program …
const HANGS: i32 = 124;
/// … by SIGKILL, if it still lives then …
const KILLED: i32 = 128 + libc::SIGKILL;
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
pub(crate) fn within(seconds: u64, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("timeout");
    let seconds = seconds.to_string();
    command.args(["--kill-after=1", &seconds]).arg(program);
    command
}

/// Whether such a program had to be ended after so many seconds. One that does not listen is killed, and GNU's `timeout` with it; one
/// that somebody else kills did not take that long.
pub(crate) fn hangs(ended: ExitStatus, took: Duration, seconds: u64) -> bool {
    let is_killed = ended.signal() == Some(libc::SIGKILL) || ended.code() == Some(KILLED);
    ended.code() == Some(HANGS) || (is_killed && took >= Duration::from_secs(seconds))
}

/// What such a program prints.
pub(crate) fn run(program: &'static str, arguments: &[&str]) -> Result<String, RunError> {
    let start = |source| RunError::Start { program, source };
    let began = Instant::now();
    let done = bounded(program).args(arguments).output().map_err(start)?;
    match done.status.code() {
        Some(0) => Ok(String::from_utf8_lossy(&done.stdout).into_owned()),
        Some(NOT_FOUND) => Err(start(io::ErrorKind::NotFound.into())),
        _ if hangs(done.status, began.elapsed(), PATIENCE) => Err(RunError::Hangs { program }),
        _ => {
            let why = String::from_utf8_lossy(&done.stderr).trim().to_owned();
            Err(RunError::Failed { program, why })
        }
    }
}
