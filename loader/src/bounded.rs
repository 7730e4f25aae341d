//! How is another program run that may hang? By `timeout`, which ends it.

use std::process::{Command, Stdio};

/// Seconds that a program may take.
const PATIENCE: &str = "5";
/// What `timeout` ends with when it had to end the program …
pub(crate) const HANGS: i32 = 124;
/// … and when there is none.
pub(crate) const NOT_FOUND: i32 = 127;

/// A program that is ended when it hangs.
pub(crate) fn bounded(program: &str) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=1", PATIENCE, program]);
    command.stdin(Stdio::null());
    command
}
