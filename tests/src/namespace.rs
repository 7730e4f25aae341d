//! What is a namespace of the lab, and how does code or a command run inside it?

use std::fs::{self, File};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::panic::resume_unwind;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::thread;

use anyhow::{Context as _, Result};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::fstat;

use crate::process::{COMMAND_TIMEOUT, Finished, Process, die_with_parent, run};

/// Where commands are looked for inside a namespace.
const PATH: &str =
    "/opt/azure-vnet/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A network namespace and, for nodes and their pods, a mount namespace.
///
/// Held by descriptors only: nothing on disk names it, so it vanishes with the process that holds it.
#[derive(Clone, Debug)]
pub struct Namespace {
    name: Arc<str>,
    net: Arc<OwnedFd>,
    mount: Option<Arc<OwnedFd>>,
}

impl Namespace {
    /// A new network namespace in the mount namespace of the lab's process.
    pub(crate) fn network(name: &str) -> Result<Self> {
        let net = on_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).context("unshare the network")?;
            current("net")
        })?;
        Self::new(name, net, None)
    }

    /// A new network namespace with a new mount namespace whose root `make_root` builds.
    pub(crate) fn machine(
        name: &str,
        make_root: impl FnOnce() -> Result<()> + Send,
    ) -> Result<Self> {
        let (net, mount) = on_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_FS)
                .context("unshare network and mounts")?;
            make_root().context("build the root")?;
            Ok((current("net")?, current("mnt")?))
        })
        .with_context(|| format!("make machine {name}"))?;
        Self::new(name, net, Some(Arc::new(mount)))
    }

    /// A new network namespace that shares this one's mount namespace, where it is bound to `path`
    /// (a container runtime does just that).
    pub(crate) fn network_at(&self, name: &str, path: &Path) -> Result<Self> {
        let net = self.run(|| {
            unshare(CloneFlags::CLONE_NEWNET).context("unshare the network")?;
            crate::root::bind_netns(path)?;
            current("net")
        })?;
        Self::new(name, net, self.mount.clone())
    }

    /// A network namespace that somebody else, a container runtime, has made; `path` as seen in this one.
    pub fn open(&self, name: &str, path: &str) -> Result<Self> {
        let net = self.run(|| {
            Ok(File::open(path)
                .with_context(|| format!("open {path}"))?
                .into())
        })?;
        Self::new(name, net, self.mount.clone())
    }

    fn new(name: &str, net: OwnedFd, mount: Option<Arc<OwnedFd>>) -> Result<Self> {
        let namespace = Self {
            name: name.into(),
            net: Arc::new(net),
            mount,
        };
        // No RS, MLD or DAD packets of the kernel in the captures.
        namespace.sysctl("net.ipv6.conf.all.disable_ipv6", "1")?;
        namespace.sysctl("net.ipv6.conf.default.disable_ipv6", "1")?;
        Ok(namespace)
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `work` on a thread inside the namespace. Sockets made there stay in the namespace; files
    /// are those of the node. A panic of `work` goes on in the caller.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        on_thread(|| {
            if let Some(mount) = &self.mount {
                // Threads share root and working directory, which setns(CLONE_NEWNS) refuses.
                unshare(CloneFlags::CLONE_FS).context("unshare the root directory")?;
                setns(mount, CloneFlags::CLONE_NEWNS).context("enter the mount namespace")?;
            }
            setns(&self.net, CloneFlags::CLONE_NEWNET).context("enter the network namespace")?;
            work()
        })
        .with_context(|| format!("in {}", self.name))
    }

    /// A command that will run inside the namespace and be killed when the thread that starts it ends.
    /// For a process that outlives the call use [`Namespace::start`].
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env_clear().envs([
            ("PATH", PATH),
            ("HOME", "/root"),
            ("LANG", "C.UTF-8"),
            ("USER", "root"),
        ]);
        let (net, mount) = (Arc::clone(&self.net), self.mount.clone());
        let enter = move || {
            if let Some(mount) = &mount {
                setns(mount, CloneFlags::CLONE_NEWNS)?;
            }
            setns(&net, CloneFlags::CLONE_NEWNET)?;
            Ok(())
        };
        // SAFETY: between fork and exec the hook makes two setns calls on descriptors that it owns and
        // allocates nothing, which is what `pre_exec` demands of a process that had other threads.
        unsafe { command.pre_exec(enter) };
        die_with_parent(&mut command);
        command
    }

    /// Runs a command to its end: `ns.exec(&["ip", "route"])?` is its output, or an error with stderr.
    pub fn exec(&self, line: &[&str]) -> Result<String> {
        self.feed(line, b"")?
            .success()
            .with_context(|| format!("{} in {}", line.join(" "), self.name))
    }

    /// Runs a command to its end with `stdin`, whatever its exit status.
    pub fn feed(&self, line: &[&str], stdin: &[u8]) -> Result<Finished> {
        let (program, args) = line.split_first().context("an empty command line")?;
        let mut command = self.command(program);
        command.args(args);
        run(command, stdin, COMMAND_TIMEOUT)
    }

    /// Starts a process that runs until it is killed or dropped.
    pub fn start(&self, line: &[&str]) -> Result<Process> {
        let (program, args) = line.split_first().context("an empty command line")?;
        let mut command = self.command(program);
        command.args(args);
        Process::start(&format!("{program} in {}", self.name), command)
    }

    /// Many `ip` commands in one process.
    pub fn ip(&self, batch: &str) -> Result<()> {
        self.script(&["ip", "-batch", "-"], batch)
    }

    /// An nftables script.
    pub fn nft(&self, script: &str) -> Result<()> {
        self.script(&["nft", "-f", "-"], script)
    }

    /// A program that reads what it does from its standard input, to its end; its failure is an error.
    pub(crate) fn script(&self, line: &[&str], script: &str) -> Result<()> {
        self.feed(line, script.as_bytes())?
            .success()
            .with_context(|| format!("{} in {}:\n{script}", line.join(" "), self.name))?;
        Ok(())
    }

    /// Writes a sysctl (`net.ipv4.ip_forward`) of this network namespace.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = format!("/proc/sys/{}", key.replace('.', "/"));
        self.run(|| fs::write(&path, value).with_context(|| format!("write {value} to {path}")))
    }

    /// The command line that enters the namespace from outside the lab, while the lab lives.
    pub fn nsenter(&self) -> String {
        let pid = std::process::id();
        let net = format!("nsenter --net=/proc/{pid}/fd/{}", self.net.as_raw_fd());
        let mount = self.mount.as_ref();
        let mount = mount.map(|mount| format!(" --mount=/proc/{pid}/fd/{}", mount.as_raw_fd()));
        net + &mount.unwrap_or_default()
    }

    /// A path by which `ip link … netns` finds the namespace.
    pub(crate) fn net_path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.net.as_raw_fd())
    }

    /// The inode numbers of all that it consists of; unique among namespaces of all kinds.
    pub(crate) fn inodes(&self) -> Vec<u64> {
        let held = self.held().into_iter();
        held.filter_map(|fd| Some(fstat(fd).ok()?.st_ino)).collect()
    }

    /// The descriptors that hold it.
    pub(crate) fn held(&self) -> Vec<Arc<OwnedFd>> {
        let net = std::iter::once(&self.net);
        net.chain(&self.mount).cloned().collect()
    }

    /// The inode number that identifies the network namespace in `/proc/<pid>/ns/net`.
    pub fn net_inode(&self) -> Result<u64> {
        Ok(fstat(&self.net)?.st_ino)
    }
}

/// Opens a namespace of the calling thread.
fn current(kind: &str) -> Result<OwnedFd> {
    let path = format!("/proc/thread-self/ns/{kind}");
    Ok(File::open(&path)
        .with_context(|| format!("open {path}"))?
        .into())
}

/// Runs `work` on a thread of its own: a thread that changed its namespaces is never used again.
fn on_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| match scope.spawn(work).join() {
        Ok(result) => result,
        Err(panic) => resume_unwind(panic),
    })
}
