//! How does the loader get a CPU at once, on a node whose pods use them all?

use rustix::process::{getpriority_process, setpriority_process};
use tracing::debug;

/// As much as there is.
const MOST: i32 = -20;

/// For as long as it lives, this thread comes before the others.
#[derive(Debug)]
pub(super) struct Hurry {
    before: i32,
}

impl Hurry {
    /// Without the right to it (`LimitNICE=` of the unit), nothing changes.
    pub(super) fn begin() -> Self {
        let before = getpriority_process(None).unwrap_or(0);
        if let Err(error) = setpriority_process(None, MOST) {
            debug!(%error, "come before the others");
        }
        Self { before }
    }
}

impl Drop for Hurry {
    fn drop(&mut self) {
        if let Err(error) = setpriority_process(None, self.before) {
            debug!(%error, "come after the others again");
        }
    }
}
