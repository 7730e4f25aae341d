//! `vnetctl uninstall`: the node as it was before. Refuses while pods live, unless it is told to take them away, too.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use abi::pins::{BPFFS, DIRECTORY};
use anyhow::{Context as _, bail, ensure};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rpc::Request;
use serde::Serialize;

use super::doctor::Node;
use super::endpoints;
use super::output::{Output, table};
use super::pinned::full_name;
use crate::nic::{ifname, is_host_veth};
use crate::{fallback, links, tunnel};

/// How long the loader may take to end.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long it may take to hear what is coming.
const ANSWER: Duration = Duration::from_secs(5);
const UNIT: &str = "azure-vnet-loader";

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
    let living = living(&node);
    ensure!(
        living.is_empty() || arguments.force,
        "uninstall: {} pods live on this node ({}); drain it first, or cut them off with --force",
        living.len(),
        living.join(", ")
    );
    let removed = uninstall(&node)?;
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

/// Pods whose namespace or host veth is there.
fn living(node: &Node) -> Vec<String> {
    let in_namespace = node.records.iter();
    let in_namespace = in_namespace.filter(|record| rpc::netns_lives(&record.netns) == Some(true));
    let mut names: Vec<String> = in_namespace.map(full_name).collect();
    names.extend(veths(node).into_iter().map(|veth| veth.pod));
    names.sort();
    names.dedup();
    names
}

/// A host veth of ours that is there. Azure's own are named alike.
struct HostVeth {
    pod: String,
    name: String,
    index: u32,
}

fn veths(node: &Node) -> Vec<HostVeth> {
    let of = |pod: String, index: u32| {
        let name = ifname(index)?;
        is_host_veth(&name).then_some(HostVeth { pod, name, index })
    };
    if let Some(endpoints) = node
        .pinned
        .as_ref()
        .and_then(|pinned| endpoints::read(pinned).ok())
    {
        let known = endpoints.into_iter();
        return known
            .filter_map(|one| of(one.pod, one.host_ifindex))
            .collect();
    }
    let records = node.records.iter();
    records
        .filter_map(|record| of(full_name(record), record.host_ifindex))
        .collect()
}

/// First whatever would bring anything back: the runtime's reason to call us, then the loader.
fn uninstall(node: &Node) -> anyhow::Result<Vec<String>> {
    let mut removed = Vec::new();
    if node.loader.is_some() {
        // An earlier one does not know the question, and puts no conflist back.
        let _whatever = rpc::call(&node.run.socket(), &Request::Leave, ANSWER);
    }
    for conflist in node.conflists.iter().filter(|conflist| conflist.is_ours()) {
        remove(&conflist.path, &mut removed)?;
    }
    if let Some(pid) = node.loader {
        stop(node, pid)?;
        removed.push(format!("the process {pid} of {UNIT}"));
    }
    for nic in hooks::nics(&node.pins).unwrap_or_default() {
        hooks::remove(&node.pins, &nic)?;
        removed.push(format!("the programs on {nic}"));
    }
    removed.extend(block_on(remove_from_kernel(veths(node)))?);
    if fallback::is_installed() {
        fallback::remove()?;
        removed.push("nft table ip azure-vnet".to_owned());
    }
    remove(&Path::new(BPFFS).join(DIRECTORY), &mut removed)?;
    // The state in Azure's shape is ours only while our own is there.
    let ours = node.run.root().exists();
    let azure = [node.run.azure_network(), node.run.azure_ipam()];
    for path in azure
        .into_iter()
        .filter(|path| ours && !node.run.is_kept(path))
    {
        remove(&path, &mut removed)?;
    }
    remove(node.run.root(), &mut removed)?;
    Ok(removed)
}

/// Through systemd where that runs it, or it would start it anew; else as systemd would. Ends when nobody holds its lock.
fn stop(node: &Node, pid: i32) -> anyhow::Result<()> {
    let mut unit = Command::new("systemctl");
    unit.args(["disable", "--now", UNIT]).stdin(Stdio::null());
    // Where there is no systemd, or no such unit, nobody starts it anew.
    let _whatever = unit.output();
    match kill(Pid::from_raw(pid), Signal::SIGTERM) {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(error) => return Err(error).with_context(|| format!("end the loader, process {pid}")),
    }
    let path = node.run.root().join("loader.lock");
    let lock = File::open(&path).with_context(|| format!("open {}", path.display()))?;
    let (told, ended) = mpsc::channel();
    thread::spawn(move || told.send(lock.lock()));
    match ended.recv_timeout(PATIENCE) {
        Ok(locked) => locked.context("wait for the loader's end"),
        Err(_late) => bail!(
            "the loader, process {pid}, has not ended after {} s: end it, and try again",
            PATIENCE.as_secs()
        ),
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
