//! `vnetctl uninstall`: the node as it was before. Refuses while pods live, unless it is told to take them away, too.

mod silence;
mod unit;

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use abi::pins::{BPFFS, DIRECTORY};
use anyhow::Context as _;
use rpc::{RunDirectory, azure};
use serde::Serialize;

use super::doctor::Node;
use super::endpoints;
use super::output::{Output, table};
use crate::leaks::{Holding, LeakError, State, holdings};
use crate::nic::{ifname, is_host_veth};
use crate::{fallback, links, podname, tunnel};
use silence::Silence;

#[derive(Clone, Debug, clap::Args)]
pub(super) struct Arguments {
    /// Cuts off the pods that live, and removes their host veths.
    #[arg(long)]
    force: bool,
}

/// What was done, step by step.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "documents", derive(schemars::JsonSchema))]
pub(crate) struct Uninstalled {
    /// What is gone now.
    pub removed: Vec<String>,
    /// What was left on purpose.
    pub left: Vec<String>,
}

pub(super) fn run(output: Output, arguments: &Arguments) -> anyhow::Result<()> {
    let node = Node::look();
    // Before anything is touched.
    held(&node, arguments.force)?;
    let removed = uninstall(&node, arguments.force)?;
    let left = [
        "programs in /opt/cni/bin and /usr/local/bin, the unit, /etc/azure-vnet, /var/log/azure-vnet*.log",
        "net.ipv4.ip_forward",
    ];
    let done = Uninstalled {
        removed,
        left: left.map(str::to_owned).to_vec(),
    };
    output.print(&done, |done| {
        let row = |word: &str, what: &String| [word.to_owned(), what.clone()];
        let removed = done.removed.iter().map(|what| row("removed", what));
        let left = done.left.iter().map(|what| row("left", what));
        table(["", "WHAT"], &removed.chain(left).collect::<Vec<_>>())
    })
}

/// Why it is not for now.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error(
        "uninstall: {} pods live on this node ({}); drain it first, or cut them off with --force",
        .0.len(),
        .0.join(", ")
    )]
    Living(Vec<String>),
    #[error(transparent)]
    Unknown(#[from] LeakError),
}

/// The addresses that somebody has; an error while pods live, unless they are to be cut off.
fn held(node: &Node, force: bool) -> Result<Vec<Holding>, Refusal> {
    let held = match holdings(&node.run) {
        Err(_unseen) if force => Vec::new(),
        seen => seen?,
    };
    let held: Vec<Holding> = held
        .into_iter()
        .filter(|one| one.state != State::Leaked)
        .collect();
    let living = living(node, &held);
    if living.is_empty() || force {
        return Ok(held);
    }
    Err(Refusal::Living(living.into_values().collect()))
}

/// Pods that a lease, a record or a host veth tells of. Of a lease, nothing may tell whether its pod lives: then it may.
fn living(node: &Node, held: &[Holding]) -> BTreeMap<Ipv4Addr, String> {
    let leased = held.iter().map(|one| {
        let name = [&one.pod, &one.key.container_id];
        let name = name.into_iter().find(|name| !name.is_empty());
        (one.address, name.cloned())
    });
    let records = node.records.iter();
    let recorded = records
        .filter(|record| rpc::netns_lives(&record.netns) == Some(true))
        .map(|record| (record.address.addr(), Some(podname::name(record))));
    let connected = veths(node).into_iter().map(|veth| (veth.address, veth.pod));
    let all = leased.chain(connected).chain(recorded);
    all.map(|(address, name)| (address, name.unwrap_or_else(|| address.to_string())))
        .collect()
}

/// A host veth of ours that is there. Azure's own are named alike.
struct HostVeth {
    address: Ipv4Addr,
    pod: Option<String>,
    name: String,
    index: u32,
}

fn veths(node: &Node) -> Vec<HostVeth> {
    let of = |address: Ipv4Addr, pod: Option<String>, index: u32| {
        let name = ifname(index)?;
        is_host_veth(&name).then_some(HostVeth {
            address,
            pod,
            name,
            index,
        })
    };
    if let Some(endpoints) = node
        .pinned
        .as_ref()
        .and_then(|pinned| endpoints::read(pinned).ok())
    {
        let known = endpoints.into_iter();
        return known
            .filter_map(|one| {
                let pod = Some(one.pod).filter(|pod| !pod.is_empty());
                of(one.address, pod, one.host_ifindex)
            })
            .collect();
    }
    let records = node.records.iter();
    records
        .filter_map(|record| {
            let address = record.address.addr();
            of(address, Some(podname::name(record)), record.host_ifindex)
        })
        .collect()
}

/// First whatever would bring anything back.
fn uninstall(before: &Node, force: bool) -> anyhow::Result<Vec<String>> {
    let Silence {
        node,
        held,
        mut removed,
        _lock,
    } = Silence::over(before, force)?;
    if let Some(pid) = before.loader {
        removed.push(format!("the process {pid} of azure-vnet-loader"));
    }
    removed.extend(take_away(&node, held.iter().any(|one| one.is_taken_over))?);
    Ok(removed)
}

/// Everything else, once nobody can add anything. `azures`: Azure's plug-ins have pods here, and need what they wrote about them.
fn take_away(node: &Node, azures: bool) -> anyhow::Result<Vec<String>> {
    let mut removed = Vec::new();
    for nic in hooks::nics(&node.pins)? {
        hooks::remove(&node.pins, &nic)?;
        removed.push(format!("the programs on {nic}"));
    }
    removed.extend(block_on(remove_from_kernel(veths(node)))?);
    if fallback::is_installed()? {
        fallback::remove()?;
        removed.push("nft table ip azure-vnet".to_owned());
    }
    remove(&Path::new(BPFFS).join(DIRECTORY), &mut removed)?;
    for path in [node.run.azure_network(), node.run.azure_ipam()] {
        give_back(&node.run, &path, azures, &mut removed)?;
    }
    remove(node.run.root(), &mut removed)?;
    Ok(removed)
}

/// A file in Azure's shape: what we wrote goes. What Azure's plug-ins wrote comes back while they have pods; later it would
/// only keep addresses from others.
fn give_back(
    run: &RunDirectory,
    path: &Path,
    azures: bool,
    removed: &mut Vec<String>,
) -> anyhow::Result<()> {
    if !fs::read(path).is_ok_and(|text| azure::is_ours(&text)) {
        return Ok(());
    }
    let theirs = path.file_name().map(|name| run.originals().join(name));
    match theirs.filter(|theirs| azures && theirs.exists()) {
        None => remove(path, removed),
        Some(theirs) => {
            fs::rename(&theirs, path).with_context(|| format!("restore {}", path.display()))?;
            removed.push(format!("our own {}; Azure's is back", path.display()));
            Ok(())
        }
    }
}

/// Pods' host veths, whose programs go with them, and the way out of the tunnel modes.
async fn remove_from_kernel(veths: Vec<HostVeth>) -> anyhow::Result<Vec<String>> {
    let mut removed = Vec::new();
    for HostVeth { name, index, .. } in veths {
        links::remove(&name, index).await?;
        removed.push(format!("host veth {name}"));
    }
    tunnel::remove().await?;
    Ok(removed)
}

fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.context("start the runtime")?;
    tokio::task::LocalSet::new().block_on(&runtime, work)
}

/// A file, or a folder with all that is in it; not there is fine.
fn remove(path: &Path, removed: &mut Vec<String>) -> anyhow::Result<()> {
    let gone = if path.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    };
    match gone {
        Ok(()) => removed.push(PathBuf::from(path).display().to_string()),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("remove {}", path.display())),
    }
    Ok(())
}
