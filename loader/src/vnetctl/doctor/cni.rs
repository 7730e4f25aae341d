//! Will the runtime call us, and find what it calls?

use std::fs;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use netconf::conflist::{Severity, check};

use super::node::Node;
use super::{Problem, some};
use crate::ipam::BIN;

pub(super) fn present(node: &Node) -> Option<Problem> {
    node.ours().is_none().then(|| {
        Problem::error(
            "no file in /etc/cni/net.d names azure-vnet",
            "the runtime adds no pods, or adds them to another network",
            "install -D -m 644 -t /etc/cni/net.d deploy/10-azure.conflist, once `vnetctl status --brief` says ok",
        )
    })
}

/// Runtimes take the first file, in the order of names.
pub(super) fn first(node: &Node) -> Option<Problem> {
    let ours = node.ours()?;
    let others = node
        .conflists
        .iter()
        .filter(|other| other.path != ours.path);
    let others: Vec<String> = others
        .map(|other| other.path.display().to_string())
        .collect();
    let remedy = "move the others away; the runtime sees it by itself";
    if others.is_empty() {
        return None;
    }
    if node
        .conflists
        .first()
        .is_some_and(|first| first.path == ours.path)
    {
        return Some(Problem::warning(
            format!("{} is not alone: {}", ours.path.display(), some(&others)),
            "runtimes take the first by name; should ours be away for a moment, pods get another network, and do not lose it again",
            remedy,
        ));
    }
    Some(Problem::error(
        format!("{} comes after {}", ours.path.display(), some(&others)),
        "runtimes take the first by name: pods are added to another network",
        remedy,
    ))
}

pub(super) fn valid(node: &Node) -> Option<Problem> {
    let ours = node.ours()?;
    let findings = check(&ours.text);
    let messages: Vec<String> = findings
        .iter()
        .map(|finding| format!("line {}: {}", finding.line, finding.message))
        .collect();
    let problem = match findings.iter().map(|finding| finding.severity).min()? {
        Severity::Error => Problem::error,
        Severity::Warning => Problem::warning,
    };
    let path = ours.path.display();
    Some(problem(
        format!("{path}: {}", some(&messages)),
        "ADD refuses what is wrong, or does something else than is meant",
        format!("correct it; `vnetctl validate {path}` says when it is right"),
    ))
}

pub(super) fn order(node: &Node) -> Option<Problem> {
    let ours = node.ours()?;
    let at = ours
        .plugins
        .iter()
        .position(|name| name == netconf::MAIN_PLUGIN)?;
    (at > 0).then(|| {
        let before = ours.plugins.get(..at).unwrap_or_default();
        Problem::error(
            format!(
                "in {}, {} comes before azure-vnet",
                ours.path.display(),
                some(before)
            ),
            "azure-vnet makes the pod's interface; portmap and others need its result",
            "write azure-vnet first in `plugins`, portmap behind it",
        )
    })
}

pub(super) fn missing(node: &Node) -> Option<Problem> {
    let names = named(node)?;
    let absent = names
        .into_iter()
        .filter(|name| !Path::new(BIN).join(name).exists());
    let absent: Vec<String> = absent.collect();
    (!absent.is_empty()).then(|| {
        Problem::error(
            format!("{BIN} has no {}", some(&absent)),
            "the conflist names it, so every ADD fails",
            "install it: ours from the release, the others from the package containernetworking-plugins",
        )
    })
}

/// Whoever may write what the runtime runs as root is root.
pub(super) fn permissions(node: &Node) -> Option<Problem> {
    let files = named(node)?
        .into_iter()
        .map(|name| Path::new(BIN).join(name));
    let found = files.chain([BIN.into()]).filter_map(|path| {
        let wrong = wrong_mode(&fs::metadata(&path).ok()?)?;
        Some(format!("{} {wrong}", path.display()))
    });
    let wrong: Vec<String> = found.collect();
    (!wrong.is_empty()).then(|| {
        Problem::error(
            some(&wrong),
            "the runtime runs plug-ins as root: who may write them is root; one that is not executable fails every ADD",
            format!("chown root: and chmod 755, for {BIN} too"),
        )
    })
}

fn wrong_mode(meta: &Metadata) -> Option<String> {
    let mode = meta.mode() & 0o7777;
    if meta.uid() != 0 {
        Some(format!("belongs to uid {}", meta.uid()))
    } else if mode & 0o022 != 0 {
        Some(format!("may be written by others (mode {mode:o})"))
    } else if mode & 0o111 == 0 {
        Some(format!("is not executable (mode {mode:o})"))
    } else {
        None
    }
}

/// Every plug-in that our conflist names.
fn named(node: &Node) -> Option<Vec<String>> {
    let ours = node.ours()?;
    let mut names: Vec<String> = ours.plugins.iter().chain(&ours.ipam).cloned().collect();
    names.sort();
    names.dedup();
    Some(names)
}
