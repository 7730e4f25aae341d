//! What can be wrong with a node.

mod node;
mod ours;

use std::time::Duration;

use anyhow::Context as _;
use lab::{Lab, LabBuilder, Pod, Process, eventually};

use super::Result;

/// A misconfiguration.
pub(crate) struct Seed {
    /// In words.
    pub(crate) is: &'static str,
    /// The check that finds it.
    pub(crate) check: &'static str,
    /// What the finding must say.
    pub(crate) says: &'static [&'static str],
    pub(crate) lab: fn(LabBuilder) -> LabBuilder,
    /// What the loader would repair is sown when it is dead.
    pub(crate) kills_loader: bool,
    pub(crate) sow: fn(&Lab, Pod) -> Result<Option<Process>>,
}

/// Sown on a node with a loader.
const fn seed(
    is: &'static str,
    check: &'static str,
    says: &'static [&'static str],
    sow: fn(&Lab, Pod) -> Result<Option<Process>>,
) -> Seed {
    Seed {
        is,
        check,
        says,
        lab: |lab| lab,
        kills_loader: false,
        sow,
    }
}

/// Sown when the loader is dead.
const fn dead(
    is: &'static str,
    check: &'static str,
    says: &'static [&'static str],
    sow: fn(&Lab, Pod) -> Result<Option<Process>>,
) -> Seed {
    Seed {
        kills_loader: true,
        ..seed(is, check, says, sow)
    }
}

/// All of them.
pub(crate) fn seeds() -> Vec<&'static Seed> {
    ours::SEEDS.iter().chain(node::SEEDS).collect()
}

const OTHER: &str = r#"{"cniVersion":"1.0.0","name":"other","plugins":[{"type":"bridge"}]}"#;

fn run(lab: &Lab, line: &str) -> Result<Option<Process>> {
    lab.node(1).exec(&["sh", "-c", line])?;
    Ok(None)
}

fn write(lab: &Lab, path: &str, text: &str) -> Result<Option<Process>> {
    lab.node(1).write(path, text)?;
    Ok(None)
}

fn sysctl(lab: &Lab, key: &str, value: &str) -> Result<Option<Process>> {
    lab.node(1).sysctl(key, value)?;
    Ok(None)
}

fn iptables(lab: &Lab, rules: &str) -> Result<Option<Process>> {
    lab.node(1).iptables(rules)?;
    Ok(None)
}

/// Waits for what the loader has to notice first.
fn until(lab: &Lab, check: &str) -> Result<Option<Process>> {
    let noticed = || {
        let found = super::findings(lab.node(1)).ok()?;
        let mut names = found.iter().map(|finding| finding.name.as_str());
        names.any(|name| name == check).then_some(None)
    };
    eventually(Duration::from_secs(20), noticed).context("the loader has not noticed")
}

fn veth(pod: &Pod) -> String {
    pod.result()["interfaces"][1]["name"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}
