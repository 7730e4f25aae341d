//! The loader's unit: who starts it anew, now or at the next boot.

use std::io;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, ensure};

const UNIT: &str = "azure-vnet-loader";

/// What it was before it was disabled.
pub(super) struct Unit {
    was_enabled: bool,
    was_active: bool,
}

impl Unit {
    /// It may be enabled without running, or between two starts. Without systemd nobody starts it anew.
    pub(super) fn disable() -> anyhow::Result<Self> {
        let is = |what: &str| systemctl(&[what]).is_ok_and(|told| told.status.success());
        let unit = Self {
            was_enabled: is("is-enabled"),
            was_active: is("is-active"),
        };
        let runs = Path::new("/run/systemd/system").exists();
        match systemctl(&["disable", "--now"]) {
            Ok(done) if runs && !done.status.success() => {
                ensure!(!is("cat"), "systemctl disable --now {UNIT}: {}", why(&done));
            }
            Err(error) if runs => return Err(error).context("run systemctl"),
            Ok(_) | Err(_) => {}
        }
        Ok(unit)
    }

    /// As it was, and whether the loader is on its way up.
    pub(super) fn restore(&self) -> anyhow::Result<bool> {
        let Self {
            was_enabled,
            was_active,
        } = *self;
        for (was, verb) in [(was_enabled, "enable"), (was_active, "start")] {
            if was {
                let done = systemctl(&[verb]).context("run systemctl")?;
                ensure!(
                    done.status.success(),
                    "systemctl {verb} {UNIT}: {}",
                    why(&done)
                );
            }
        }
        Ok(was_active)
    }
}

fn systemctl(words: &[&str]) -> io::Result<Output> {
    let mut command = Command::new("systemctl");
    command.args(words).arg(UNIT).stdin(Stdio::null()).output()
}

fn why(done: &Output) -> String {
    String::from_utf8_lossy(&done.stderr).trim().to_owned()
}
