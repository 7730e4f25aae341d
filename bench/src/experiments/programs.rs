//! The product beside itself with other programs, or with the guard.

use anyhow::{Result, ensure};
use lab::Node;

use super::{Trial, ours, variant};
use crate::names::Path;
use crate::run::GUARD;
use crate::scene::Kind;

/// The programs as they are, and as the variant has them.
pub(super) fn compare(
    trial: &mut Trial,
    name: &str,
    other: &'static str,
    paths: &[Path],
) -> Result<()> {
    let build = |folder| ours(Kind::Traffic, Some(&variant(folder)?), &|_| Ok(()));
    let (plain, varied) = (build("plain")?, build(other)?);
    let sides = [("as it is", &plain), (other, &varied)];
    trial.compare_loads(name, &sides, paths)
}

/// Into the pod, where the guard is in the way, and out of it.
pub(super) fn guard(trial: &mut Trial, name: &str) -> Result<()> {
    let off = ours(Kind::Traffic, None, &|_| Ok(()))?;
    let on = ours(Kind::Traffic, None, &|node: &Node| {
        node.write("/etc/azure-vnet/loader.yaml", GUARD)
    })?;
    let status = on.node().status()?;
    let mode = status
        .pointer("/guard/mode")
        .and_then(serde_json::Value::as_str);
    ensure!(mode == Some("native"), "the guard is {mode:?}, not native");
    let sides = [("off", &off), ("on", &on)];
    trial.compare_loads(name, &sides, &[Path::FromVnet, Path::Internet])
}
