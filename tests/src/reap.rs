//! Which processes does a lab leave running at its end? None.
//!
//! Children of the lab die with it by their parent-death signal. That leaves what they left behind themselves,
//! daemons like containerd's shims: found by the namespaces that they run in, by [`kill_inside`] when the lab
//! is dropped, and by a [`Guardian`] when the lab was killed.

use std::collections::HashSet;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, setsid};

use crate::namespace::Namespace;

/// Kills what still runs in these network or mount namespaces (a pod's processes are in the latter): what
/// the lab started and children of that. This process itself is never inside one, only threads of it are,
/// for a moment.
pub(crate) fn kill_inside(namespaces: &[&Namespace]) {
    let inodes = namespaces.iter().flat_map(|ns| ns.inodes()).collect();
    for pid in inside(&inodes) {
        // Fails only when it has ended by itself.
        kill(pid, Signal::SIGKILL).unwrap_or_default();
    }
}

fn inside(inodes: &HashSet<u64>) -> Vec<Pid> {
    let own = Pid::this();
    let Ok(processes) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    processes
        .flatten()
        .filter_map(|entry| {
            let pid = Pid::from_raw(entry.file_name().to_str()?.parse().ok()?);
            let is_ours = |kind| {
                let namespace = fs::metadata(entry.path().join(kind));
                namespace.is_ok_and(|namespace| inodes.contains(&namespace.ino()))
            };
            (pid != own && (is_ours("ns/net") || is_ours("ns/mnt"))).then_some(pid)
        })
        .collect()
}

/// Waits for the end of the lab, then kills what runs inside `$NAMESPACES` or their cgroups (containers have namespaces of
/// their own) until nothing is found any more, and removes the cgroups.
const GUARD: &str = r#"
read -r _
for attempt in 0 1 2 3 4 5 6 7 8 9 a b c d e f g h i j k l m n o p q r s t u v w x y z; do
    found=
    for number in $NAMESPACES; do
        for cgroup in /sys/fs/cgroup/azure-vnet-lab-$number /sys/fs/cgroup/unified/azure-vnet-lab-$number; do
            [ -d "$cgroup" ] || continue
            found=1
            for pid in $(find "$cgroup" -name cgroup.procs -exec cat {} +); do
                kill -9 "$pid"
            done
            find "$cgroup" -depth -type d -exec rmdir {} +
        done
    done
    for process in $(stat -L -c %i:%n /proc/[0-9]*/ns/net /proc/[0-9]*/ns/mnt 2>/dev/null); do
        pid=${process#*:/proc/}
        case $NAMESPACES in
            *" ${process%%:*} "*) kill -9 "${pid%%/*}" && found=1 ;;
        esac
    done
    [ "$found" ] || exit 0
done
"#;

/// A process that outlives the lab for a moment in order to end what else would.
#[derive(Debug)]
pub(crate) struct Guardian(Child);

impl Guardian {
    /// Starts it. It inherits the namespaces' descriptors: as long as they are open, the numbers by which
    /// it knows the namespaces cannot become those of another lab.
    pub(crate) fn start(namespaces: &[&Namespace]) -> Result<Self> {
        let numbers: Vec<_> = namespaces.iter().flat_map(|ns| ns.inodes()).collect();
        let numbers: Vec<_> = numbers.iter().map(u64::to_string).collect();
        let held: Vec<Arc<OwnedFd>> = namespaces.iter().flat_map(|ns| ns.held()).collect();
        let mut command = Command::new("sh");
        command
            .args(["-c", GUARD])
            .env("NAMESPACES", format!(" {} ", numbers.join(" ")))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let inherit = move || {
            setsid()?; // a Ctrl-C is not for it
            for fd in &held {
                fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty()))?;
            }
            Ok(())
        };
        // SAFETY: between fork and exec the hook makes system calls on descriptors that it owns (setsid,
        // fcntl) and allocates nothing, which is what `pre_exec` demands.
        unsafe { command.pre_exec(inherit) };
        command
            .spawn()
            .map(Self)
            .context("start the lab's guardian")
    }
}

impl Drop for Guardian {
    /// The lab has seen to its processes itself.
    fn drop(&mut self) {
        // Both fail only when it has ended by itself.
        self.0.kill().unwrap_or_default();
        drop(self.0.wait());
    }
}
