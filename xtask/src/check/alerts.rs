//! The alert rules are what Prometheus understands, and speak when their tests say so: asked of `promtool`, where it can be had.

use crate::setup::find_program;
use crate::{command, workspace};
use anyhow::{Context as _, Result};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

const RULES: &str = "deploy/prometheus/alerts.yaml";
const TESTS: &str = "deploy/prometheus/alerts_test.yaml";
/// Debian's package. It is unpacked and not installed: that would start a server.
const PACKAGE: &str = "prometheus";

pub(crate) fn check() -> Result<()> {
    let promtool = match find_program("promtool").map_or_else(fetched, Ok) {
        Ok(promtool) => promtool,
        Err(error) => {
            println!("left out: no promtool in PATH, and none to be had: {error:#}");
            return Ok(());
        }
    };
    for words in [["check", "rules", RULES], ["test", "rules", TESTS]] {
        let mut tool = Command::new(&promtool);
        tool.args(words).current_dir(workspace::root());
        command::run(&mut tool).context("see above")?;
    }
    Ok(())
}

/// That of the package, fetched once.
fn fetched() -> Result<PathBuf> {
    let folder = workspace::root().join("target/promtool");
    let promtool = folder.join("usr/bin/promtool");
    if promtool.exists() {
        return Ok(promtool);
    }
    fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    let mut apt = Command::new("apt-get");
    command::output(apt.args(["download", "-q", PACKAGE]).current_dir(&folder))?;
    let entries = fs::read_dir(&folder)?.filter_map(Result::ok);
    let mut files = entries.map(|entry| entry.path());
    let archive = files
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .with_context(|| format!("apt-get download {PACKAGE} left no archive"))?;
    let mut unpack = Command::new("dpkg-deb");
    command::output(unpack.arg("--extract").arg(&archive).arg(&folder))?;
    fs::remove_file(&archive)?;
    Ok(promtool)
}
