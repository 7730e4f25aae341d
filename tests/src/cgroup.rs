//! Where do the containers of a node live? In a cgroup that the node sees as the whole hierarchy, and that goes with
//! the lab.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::poll::PollFlags;

use crate::namespace::Namespace;
use crate::wait::{Deadline, ready};

/// Where programs of the node look for it.
const PLACE: &str = "/sys/fs/cgroup";
/// Where the machine's hierarchy is for a moment.
const MACHINES: &str = "/mnt";
/// How the names of the lab's cgroups begin; [`crate::reap`] knows it, too.
const PREFIX: &str = "azure-vnet-lab-";
/// How long killed processes may take to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// Kills what is in it and removes it on drop.
#[derive(Debug)]
pub(crate) struct Cgroup {
    node: Namespace,
    name: String,
}

impl Cgroup {
    /// Makes one for the node and puts it in its place.
    pub(crate) fn new(node: &Namespace) -> Result<Self> {
        let name = format!("{PREFIX}{}", node.net_inode()?);
        let make = |machines: &Path| {
            let own = machines.join(&name);
            fs::create_dir(&own).with_context(|| format!("make the cgroup {name}"))?;
            let flags = MsFlags::MS_BIND;
            mount(Some(&own), PLACE, None::<&str>, flags, None::<&str>)
                .with_context(|| format!("bind the cgroup {name}"))
        };
        on_the_machine(node, make)?;
        Ok(Self {
            node: node.clone(),
            name,
        })
    }

    fn remove(&self) -> Result<()> {
        self.node
            .run(|| umount2(PLACE, MntFlags::MNT_DETACH).context("unmount the node's cgroup"))?;
        on_the_machine(&self.node, |machines| {
            let own = machines.join(&self.name);
            // Absent before Linux 5.14; the lab has killed what runs in the node's namespaces already.
            fs::write(own.join("cgroup.kill"), "1").unwrap_or_default();
            until_empty(&own)?;
            remove_tree(&own)
        })
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // What stays is found by the test that looks for it; a lab has nobody to complain to at its end.
        self.remove().unwrap_or_default();
    }
}

/// Runs `work` on the machine's second version of the hierarchy, which is mounted in the node only as long as that takes.
fn on_the_machine<T: Send>(
    node: &Namespace,
    work: impl FnOnce(&Path) -> Result<T> + Send,
) -> Result<T> {
    node.run(|| {
        let kind = Some("cgroup2");
        mount(kind, MACHINES, kind, MsFlags::empty(), None::<&str>).context("mount cgroup2")?;
        let done = work(Path::new(MACHINES));
        umount2(MACHINES, MntFlags::MNT_DETACH).context("unmount cgroup2")?;
        done
    })
}

/// The kernel tells changes of `cgroup.events` as a priority event.
fn until_empty(cgroup: &Path) -> Result<()> {
    let deadline = Deadline::after(PATIENCE);
    loop {
        let mut events = File::open(cgroup.join("cgroup.events"))?;
        let mut text = String::new();
        events.read_to_string(&mut text)?;
        if text.contains("populated 0") {
            return Ok(());
        }
        ensure!(!deadline.passed(), "its processes do not end");
        ready(&[(events.as_fd(), PollFlags::POLLPRI)], Some(deadline))?;
    }
}

/// A cgroup's files go with its directory.
fn remove_tree(cgroup: &Path) -> Result<()> {
    let entries = fs::read_dir(cgroup)?.collect::<Result<Vec<_>, _>>()?;
    let below: Vec<PathBuf> = entries
        .iter()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(fs::DirEntry::path)
        .collect();
    below.iter().try_for_each(|below| remove_tree(below))?;
    fs::remove_dir(cgroup).with_context(|| format!("remove {}", cgroup.display()))
}
