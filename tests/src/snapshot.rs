//! Did an operation leave anything behind in a node? Compares what there is before and after.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::namespace::Namespace;
use crate::node::Node;

const BPFFS: &str = "/sys/fs/bpf";
/// Directories whose files are listed.
const WRITABLE: [&str; 4] = ["/etc", "/run", "/tmp", "/var"];
/// Pinned maps whose keys stand for pods.
const POD_MAPS: [&str; 2] = ["pods", "veths"];

/// What stays after the first pod, on purpose.
const KEPT: [&str; 9] = [
    "/run/azure-vnet.json",
    "/run/azure-vnet-ipam.json",
    "/run/azure-vnet/ipam/boot",
    "/run/azure-vnet/ipam/lock",
    "/run/azure-vnet/ipam/pools.json",
    "/run/azure-vnet/ipam/released/",
    "/run/xtables.lock",
    "/var/log/azure-vnet",
    "CNI-HOSTPORT",
];

/// Directories that the first pod makes; what is in them counts.
const KEPT_EMPTY: [&str; 2] = [
    "/run/azure-vnet/ipam/leases/",
    "/run/azure-vnet/ipam/owners/",
];

/// What a node consists of, line by line, in sections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot(BTreeMap<&'static str, BTreeSet<String>>);

/// What came and what went between two snapshots. Displays as `+ section: line` and `- section: line`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    pub added: Vec<String>,
    pub removed: Vec<String>,
}

impl Diff {
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty()
    }
}

impl fmt::Display for Diff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.added
            .iter()
            .try_for_each(|line| writeln!(f, "+ {line}"))?;
        self.removed
            .iter()
            .try_for_each(|line| writeln!(f, "- {line}"))
    }
}

impl Snapshot {
    /// What has changed since this snapshot until `later`.
    pub fn diff(&self, later: &Self) -> Diff {
        Diff {
            added: later.lines_not_in(self),
            removed: self.lines_not_in(later),
        }
    }

    /// What a pod that came after this snapshot and has gone by `later` left behind; nothing when it is as it should be.
    ///
    /// Not counted: IPAM's note that an address rests for 30 s, the empty chains that the chained portmap keeps, logs.
    pub fn left(&self, later: &Self) -> Vec<String> {
        let diff = self.diff(later);
        let kept = |line: &String| KEPT.iter().any(|part| line.contains(part));
        let counts =
            |line: &String| !kept(line) && !KEPT_EMPTY.iter().any(|path| line.ends_with(path));
        diff.added
            .into_iter()
            .chain(diff.removed)
            .filter(counts)
            .collect()
    }

    fn lines_not_in(&self, other: &Self) -> Vec<String> {
        let sections = self.0.iter();
        sections
            .flat_map(|(section, lines)| {
                let others = other.0.get(section);
                let new = lines
                    .iter()
                    .filter(move |line| !others.is_some_and(|o| o.contains(*line)));
                new.map(move |line| format!("{section}: {line}"))
            })
            .collect()
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (section, lines) in &self.0 {
            lines
                .iter()
                .try_for_each(|line| writeln!(f, "{section}: {line}"))?;
        }
        Ok(())
    }
}

impl Node {
    /// Links, addresses, routes, neighbours, netfilter's rules, pins, the pods in our maps, and files.
    pub fn snapshot(&self) -> Result<Snapshot> {
        let mut sections = BTreeMap::new();
        sections.insert("link", links(self)?);
        let routes = self.exec(&["ip", "-o", "route", "show", "table", "all"])?;
        sections.insert("route", lines(&routes));
        sections.insert(
            "address",
            lines(&self.exec(&["ip", "-o", "address", "show"])?),
        );
        sections.insert("rule", lines(&self.exec(&["ip", "-o", "rule", "show"])?));
        let permanent = ["ip", "-o", "neigh", "show", "nud", "permanent"];
        sections.insert("neighbour", lines(&self.exec(&permanent)?));
        sections.insert(
            "nft",
            nested(&self.exec(&["nft", "-s", "list", "ruleset"])?),
        );
        sections.insert("iptables", iptables(self)?);
        let pins = self.run(|| files(Path::new(BPFFS)))?;
        sections.insert("map", pod_keys(self, &pins)?);
        sections.insert("pin", pins);
        let found = self.run(|| {
            let mut all = BTreeSet::new();
            for dir in WRITABLE {
                all.extend(files(Path::new(dir))?);
            }
            Ok(all)
        })?;
        sections.insert("file", found);
        Ok(Snapshot(sections))
    }
}

fn lines(text: &str) -> BTreeSet<String> {
    text.lines().map(|line| line.trim().to_owned()).collect()
}

/// Name, kind of peer and flags, without indexes, which no repetition gives again.
fn links(node: &Namespace) -> Result<BTreeSet<String>> {
    let text = node.exec(&["ip", "-j", "link", "show"])?;
    let links: Value = serde_json::from_str(&text).context("parse ip's links")?;
    let names = links.as_array().into_iter().flatten().filter_map(|link| {
        let name = link.get("ifname")?.as_str()?;
        let state = link
            .get("operstate")
            .and_then(Value::as_str)
            .unwrap_or_default();
        Some(format!("{name} mtu {} {state}", link.get("mtu")?))
    });
    Ok(names.collect())
}

/// Every line with the chain that it stands in, because equal rules occur in several.
fn nested(ruleset: &str) -> BTreeSet<String> {
    let mut path: Vec<&str> = Vec::new();
    let mut found = BTreeSet::new();
    for line in ruleset
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
    {
        if line == "}" {
            path.pop();
        } else if let Some(block) = line.strip_suffix('{') {
            path.push(block.trim());
            found.insert(path.join(" / "));
        } else {
            found.insert(format!("{} / {line}", path.join(" / ")));
        }
    }
    found
}

/// Rules and chains with their table, without comments and counters.
fn iptables(node: &Namespace) -> Result<BTreeSet<String>> {
    let text = node.exec(&["iptables-save"])?;
    let mut table = String::new();
    let mut found = BTreeSet::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('*') {
            name.clone_into(&mut table);
        } else if line != "COMMIT" {
            let rule = line.split(" [").next().unwrap_or(line);
            found.insert(format!("{table} {rule}"));
        }
    }
    Ok(found)
}

/// The keys of our pinned maps of pods.
fn pod_keys(node: &Namespace, pins: &BTreeSet<String>) -> Result<BTreeSet<String>> {
    let mut keys = BTreeSet::new();
    let is_pod_map = |pin: &&String| {
        POD_MAPS
            .iter()
            .any(|map| pin.contains("/azure-vnet/") && pin.ends_with(&format!("/maps/{map}")))
    };
    for pin in pins.iter().filter(is_pod_map) {
        let text = node.exec(&["bpftool", "-j", "map", "dump", "pinned", pin])?;
        let entries: Value = serde_json::from_str(&text).context("parse bpftool's map")?;
        for entry in entries.as_array().into_iter().flatten() {
            let key = entry.pointer("/formatted/key").or_else(|| entry.get("key"));
            keys.insert(format!("{pin} {}", key.unwrap_or(&Value::Null)));
        }
    }
    Ok(keys)
}

/// Paths of all files below a directory of the calling thread's root; directories end with a slash.
fn files(dir: &Path) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        let entries = match fs::read_dir(&dir) {
            // Daemons of the node tidy up meanwhile.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                found.remove(&format!("{}/", dir.display()));
                continue;
            }
            listed => listed.with_context(|| format!("list {}", dir.display()))?,
        };
        for entry in entries {
            let entry = entry?;
            let path = entry.path();
            if entry.file_type()?.is_dir() {
                found.insert(format!("{}/", path.display()));
                open.push(path);
            } else {
                found.insert(path.display().to_string());
            }
        }
    }
    Ok(found)
}
