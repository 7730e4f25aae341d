//! Does the loader do its work?

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use abi::pins::{BPFFS, DIRECTORY, map};
use abi::{Binding, BindingKey, Flow, FlowKey};
use hooks::{Hook, Pins};
use nix::net::if_::if_nametoindex;
use rpc::{Endpoint, read_json};
use zerocopy::FromBytes;

use super::node::Node;
use super::{Problem, lasting};
use crate::configuration::Configuration;
use crate::foreign::UNSEEN;
use crate::gc::Swept;
use crate::vnetctl::endpoints;
use crate::vnetctl::pinned::Pinned;
use crate::words::some;

/// What the unit gives it: bits of `linux/capability.h`.
const CAPABILITIES: [(u32, &str); 3] =
    [(12, "CAP_NET_ADMIN"), (38, "CAP_PERFMON"), (39, "CAP_BPF")];
/// In percent.
const NEARLY_FULL: u64 = 75;

pub(super) fn runs(node: &Node) -> Option<Problem> {
    let why = node.status.as_ref().err()?;
    Some(Problem::error(
        format!("the loader does not answer: {why}"),
        "pods that are there work on, but ADD fails with code 11, and nothing is repaired",
        "systemctl restart azure-vnet-loader; `journalctl -u azure-vnet-loader -n 20` says why it ended",
    ))
}

pub(super) fn capabilities(node: &Node) -> Option<Problem> {
    let status = fs::read_to_string(format!("/proc/{}/status", node.loader?)).ok()?;
    let has = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))?;
    let has = u64::from_str_radix(has.trim(), 16).ok()?;
    let lacking = CAPABILITIES.iter().filter(|(bit, _)| has & (1 << bit) == 0);
    let lacking: Vec<String> = lacking.map(|(_, name)| (*name).to_owned()).collect();
    (!lacking.is_empty()).then(|| {
        Problem::error(
            format!("the loader runs without {}", lacking.join(", ")),
            "the kernel refuses its programs, or hides from it which ones run",
            "use the unit of the release; `systemctl cat azure-vnet-loader` shows who changes CapabilityBoundingSet",
        )
    })
}

pub(super) fn configuration(node: &Node) -> Option<Problem> {
    let Ok(status) = &node.status else {
        return unusable();
    };
    let rejected = &status.config.rejected;
    (!rejected.is_empty()).then(|| {
        Problem::error(
            format!("the configuration is refused: {}", rejected.join("; ")),
            "the earlier one is in force, and a loader that starts anew does not start",
            "what the message says behind its last semicolon; it takes effect within a second",
        )
    })
}

/// The likeliest reason why there is none: one that starts reads the files first.
fn unusable() -> Option<Problem> {
    let refused = Configuration::load().err()?;
    Some(Problem::error(
        format!("the configuration is refused: {refused}"),
        "the loader does not start with it",
        "what the message says behind its last semicolon; then systemctl restart azure-vnet-loader",
    ))
}

/// What no other check looks at.
pub(super) fn warnings(node: &Node) -> Option<Problem> {
    let warnings = &node.status.as_ref().ok()?.warnings;
    // What this command has seen itself by now.
    let is_seen = |warning: &str| node.ruleset.is_ok() && warning.contains(UNSEEN);
    let others = warnings
        .iter()
        .filter(|warning| !warning.contains("vnetctl ipam check") && !is_seen(warning));
    let others: Vec<String> = others.cloned().collect();
    (!others.is_empty()).then(|| {
        Problem::warning(
            some(&others),
            "the loader says so",
            "what each says; more in docs/troubleshooting.md",
        )
    })
}

pub(super) fn run_directory(node: &Node) -> Option<Problem> {
    let meta = fs::metadata(node.run.root()).ok()?;
    let (mode, root) = (meta.mode() & 0o7777, node.run.root().display());
    (meta.uid() != 0 || mode & 0o077 != 0).then(|| {
        Problem::error(
            format!("{root} belongs to uid {} and has mode {mode:o}", meta.uid()),
            "who can write there gives out addresses and pods' records; who can read there sees all of them",
            format!("chown root: {root} && chmod 700 {root}; find who changes it (RuntimeDirectoryMode= of the unit is 0700)"),
        )
    })
}

pub(super) fn records(node: &Node) -> Option<Problem> {
    let files = fs::read_dir(node.run.endpoints()).ok()?;
    let paths = files.filter_map(|file| Some(file.ok()?.path()));
    let records = paths.filter(|path| path.extension().is_some_and(|found| found == "json"));
    let damaged: Vec<String> = records
        .filter_map(|path| {
            read_json::<Endpoint>(&path)
                .err()
                .filter(|error| !error.is_not_found())
        })
        .map(|error| error.to_string())
        .collect();
    (!damaged.is_empty()).then(|| {
        Problem::error(
            some(&damaged),
            "nobody knows whose pod that is: it is not repaired, and its address is given back by DEL only",
            "delete the pod that the file is named after (NETWORK:CONTAINER:IFNAME), then the file; look at the disk (df, dmesg)",
        )
    })
}

/// Folders of other layouts, and links to interfaces that are gone.
pub(super) fn stale_pins(node: &Node) -> Option<Problem> {
    let home = fs::read_dir(format!("{BPFFS}/{DIRECTORY}")).ok()?;
    let entries = home.filter_map(|entry| Some(entry.ok()?.path()));
    let others = entries.filter(|path| path != node.pins.root());
    let others: Vec<String> = others.map(|path| path.display().to_string()).collect();
    if !others.is_empty() {
        return Some(Problem::error(
            format!("another version has left pins: {}", some(&others)),
            "a loader that starts anew does not start; their maps keep memory, and their programs may still run",
            "when no loader of that version is to come back: rm -r these",
        ));
    }
    let nics = hooks::nics(&node.pins).unwrap_or_default().into_iter();
    let gone = nics.filter(|nic| if_nametoindex(nic.as_str()).is_err());
    let links = gone.flat_map(|nic| link_pins(&node.pins, &nic));
    let links: Vec<String> = links.map(|path| path.display().to_string()).collect();
    (!links.is_empty()).then(|| {
        Problem::warning(
            format!("an interface that is gone has left pins: {}", some(&links)),
            "their maps keep memory, and their programs may still run",
            "systemctl restart azure-vnet-loader, or rm these",
        )
    })
}

/// The pins of an interface's links.
fn link_pins(pins: &Pins, ifname: &str) -> Vec<PathBuf> {
    let without_program = pins.link(ifname, "").display().to_string();
    let entries = fs::read_dir(pins.links()).into_iter().flatten();
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    paths
        .filter(|path| path.display().to_string().starts_with(&without_program))
        .collect()
}

pub(super) fn nic_programs(node: &Node) -> Option<Problem> {
    let nic = node.nic()?;
    let absent = Hook::NIC
        .into_iter()
        .filter(|hook| !hooks::runs(&node.pins, *hook, &nic));
    let absent: Vec<String> = absent.map(|hook| hook.program.to_owned()).collect();
    (!absent.is_empty()).then(|| {
        Problem::error(
            format!("{} does not run on {nic}", absent.join(" and ")),
            "answers from the Internet do not find back to pods",
            "systemctl restart azure-vnet-loader; if it comes back, find who removes links or the clsact qdisc (Cilium, tc scripts)",
        )
    })
}

pub(super) fn pods(node: &Node) -> Option<Problem> {
    node.pinned.as_ref()?;
    let broken = lasting(|| {
        let all = Pinned::open().and_then(|pinned| endpoints::read(&pinned));
        let broken = all
            .into_iter()
            .flatten()
            .filter(|one| !one.missing.is_empty());
        broken
            .map(|one| {
                let missing = one.missing.join(", no ");
                format!("{} {} (no {missing})", one.pod, one.address)
            })
            .collect()
    });
    (!broken.is_empty()).then(|| {
        Problem::error(
            format!("pods are not whole: {}", some(&broken)),
            "without programs a pod is unchecked and slow, without an entry it is not reached",
            "systemctl restart azure-vnet-loader puts programs and entries back; delete a pod whose veth or record is gone",
        )
    })
}

/// Counted here: without a loader nobody else does, and nothing makes room.
pub(super) fn tables(node: &Node) -> Option<Problem> {
    let pinned = node.pinned.as_ref()?;
    let swept = Swept {
        flows: entries::<FlowKey, Flow>(&node.pins, map::FLOWS)?,
        flows_capacity: u32::try_from(pinned.capacity(map::FLOWS).ok()?).ok()?,
        bindings: entries::<BindingKey, Binding>(&node.pins, map::SNAT)?,
        bindings_capacity: u32::try_from(pinned.capacity(map::SNAT).ok()?).ok()?,
        ..Swept::default()
    };
    let tables = crate::status::tables(&pinned.maps, &swept).into_iter();
    let full = tables.filter(|table| {
        u64::from(table.used) * 100 >= u64::from(table.capacity) * NEARLY_FULL && table.used > 0
    });
    let full: Vec<String> = full
        .map(|table| format!("{} {} of {}", table.name, table.used, table.capacity))
        .collect();
    (!full.is_empty()).then(|| {
        Problem::warning(
            format!("tables are nearly full: {}", full.join(", ")),
            "what finds no room takes the kernel's path",
            "`vnetctl snat --top 10` and `vnetctl flows` tell who takes the room; raise flowsMax or snatMax in loader.yaml (takes effect with the next boot)",
        )
    })
}

/// How many entries a pinned table has.
fn entries<K: FromBytes, V: FromBytes>(pins: &Pins, name: &str) -> Option<u32> {
    let mut entries = 0;
    hooks::each_entry::<K, V>(&pins.map(name), |_, _| entries += 1).ok()?;
    Some(entries)
}
