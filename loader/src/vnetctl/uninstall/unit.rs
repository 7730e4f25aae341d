//! The loader's unit: who starts it anew, now or at the next boot.

use std::io;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, ensure};

const UNIT: &str = "azure-vnet-loader";
/// What `is-active` says of one that runs, or will before long.
const UP: [&str; 3] = ["active", "activating", "reloading"];

/// What it was before it was disabled.
pub(super) struct Unit {
    was_enabled: bool,
    was_active: bool,
}

impl Unit {
    /// It may be enabled without running, or between two starts.
    pub(super) fn look() -> Self {
        let is = |what: &str| systemctl(&[what]).is_ok_and(|told| told.status.success());
        // One that is on its way up fails, and says so.
        let active = systemctl(&["is-active"]).map(|told| told.stdout);
        let active = active.map(|told| String::from_utf8_lossy(&told).trim().to_owned());
        Self {
            was_enabled: is("is-enabled"),
            was_active: active.is_ok_and(|told| UP.contains(&told.as_str())),
        }
    }

    /// Without systemd nobody starts it anew.
    pub(super) fn disable() -> anyhow::Result<()> {
        let is_there = || systemctl(&["cat"]).is_ok_and(|told| told.status.success());
        let runs = Path::new("/run/systemd/system").exists();
        match systemctl(&["disable", "--now"]) {
            Ok(done) if runs && !done.status.success() => {
                ensure!(
                    !is_there(),
                    "systemctl disable --now {UNIT}: {}",
                    why(&done)
                );
            }
            Err(error) if runs => return Err(error).context("run systemctl"),
            Ok(_) | Err(_) => {}
        }
        Ok(())
    }

    /// Makes it what it was. Whether the loader is on its way up, and what went wrong.
    pub(super) fn restore(&self) -> (bool, Vec<String>) {
        let mut failed = Vec::new();
        let mut again = |was: bool, verb: &str| {
            let done = was.then(|| systemctl(&[verb]));
            let wrong = match &done {
                Some(Ok(done)) if !done.status.success() => why(done),
                Some(Err(error)) => error.to_string(),
                Some(Ok(_)) | None => return was,
            };
            failed.push(format!("systemctl {verb} {UNIT}: {wrong}"));
            false
        };
        again(self.was_enabled, "enable");
        let is_started = again(self.was_active, "start");
        (is_started, failed)
    }
}

fn systemctl(words: &[&str]) -> io::Result<Output> {
    let mut command = Command::new("systemctl");
    command.args(words).arg(UNIT).stdin(Stdio::null()).output()
}

fn why(done: &Output) -> String {
    String::from_utf8_lossy(&done.stderr).trim().to_owned()
}
