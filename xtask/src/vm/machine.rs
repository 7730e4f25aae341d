//! The virtual machine: qemu, and virtiofsd, which gives it the host's files to read. It has no network device.

use super::kernel::Kernel;
use crate::setup::find_program;
use crate::{command, workspace};
use anyhow::{Context as _, Result, bail};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

/// Enough for the tables of two nodes and what the overlay keeps.
const MEMORY: &str = "3072M";

/// What runs the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Accelerator {
    /// The CPU itself
    Kvm,
    /// qemu, in software: ten times slower, runs everywhere
    Tcg,
}

impl Accelerator {
    /// KVM, if the CPU can virtualise and we may use it. `/dev/kvm` alone proves nothing: in a VM it may be there and
    /// emulate so little that a kernel does not boot.
    pub(super) fn of_this_machine() -> Self {
        let can = fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| virtualises(&text));
        let may = File::options().read(true).write(true).open("/dev/kvm");
        if can && may.is_ok() {
            Self::Kvm
        } else {
            Self::Tcg
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }
}

fn virtualises(cpuinfo: &str) -> bool {
    let mut flags = cpuinfo.lines().filter(|line| line.starts_with("flags"));
    flags.any(|line| {
        line.split_whitespace()
            .any(|flag| ["vmx", "svm"].contains(&flag))
    })
}

/// A process of ours that ends with us.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only when it has ended by itself.
        self.0.kill().unwrap_or_default();
        drop(self.0.wait());
    }
}

/// A file that goes with us.
struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        fs::remove_file(&self.0).unwrap_or_default();
    }
}

/// Boots the kernel and hands every line that the guest prints to `line`, until the guest powers off. After `limit` it
/// is killed, which is an error.
pub(super) fn run(
    kernel: &Kernel,
    initramfs: &Path,
    accelerator: Accelerator,
    limit: Duration,
    mut line: impl FnMut(&str),
) -> Result<()> {
    let socket = std::env::temp_dir().join(format!("xtask-vm-{}.sock", std::process::id()));
    let _removed = Removed(socket.clone());
    let _files = share(kernel, &socket).context("start virtiofsd, which shares our files")?;
    let mut qemu = child("qemu-system-x86_64")?;
    qemu.args([
        "-accel",
        accelerator.name(),
        "-machine",
        "q35",
        "-cpu",
        "max",
        "-smp",
        "2",
    ]);
    qemu.args("-nodefaults -no-user-config -display none -nic none -no-reboot".split(' '));
    let memory = format!("memory-backend-memfd,id=memory,size={MEMORY},share=on");
    qemu.args([
        "-m",
        MEMORY,
        "-object",
        &memory,
        "-numa",
        "node,memdev=memory",
    ]);
    qemu.args([
        "-chardev",
        &format!("socket,id=files,path={}", socket.display()),
    ]);
    qemu.args(["-device", "vhost-user-fs-pci,chardev=files,tag=host"]);
    qemu.arg("-kernel").arg(kernel.image());
    qemu.arg("-initrd").arg(initramfs);
    qemu.args(["-append", "console=ttyS0 panic=-1 rdinit=/init"]);
    // The kernel talks on the first serial line, the checks on the second: neither cuts the other's lines in two.
    let console = kernel.folder().join("console.log");
    qemu.args(["-serial", &format!("file:{}", console.display())]);
    qemu.args(["-serial", "stdio"]);
    let log = File::create(kernel.folder().join("qemu.log")).context("create qemu's log")?;
    qemu.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
    let mut qemu = Running(qemu.spawn().context("start qemu-system-x86_64")?);

    let lines = lines(qemu.0.stdout.take().context("read what the guest prints")?);
    let deadline = Instant::now() + limit;
    loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(text) => line(&text),
            Err(RecvTimeoutError::Timeout) => bail!(
                "the VM was stopped after {} s; the end of {} says what the kernel did",
                limit.as_secs(),
                console.display()
            ),
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    let status = qemu.0.wait().context("wait for qemu-system-x86_64")?;
    if !status.success() {
        let log = fs::read_to_string(kernel.folder().join("qemu.log")).unwrap_or_default();
        bail!("qemu-system-x86_64 ended with {status}: {}", log.trim());
    }
    Ok(())
}

/// Lines as they come.
fn lines(output: ChildStdout) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n') {
            let Ok(line) = line else { return };
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Shares this machine's files, and the workspace if it lies on another disk: without what is mounted below, and mounted
/// read-only here already, so that no guest can write. It ends when qemu closes the connection.
fn share(kernel: &Kernel, socket: &Path) -> Result<Running> {
    const SCRIPT: &str = r#"
        mount --bind / "$1"
        for folder in "$2" "$3"; do mount --bind "$folder" "$1$folder"; mount -o remount,bind,ro "$1$folder"; done
        mount -o remount,bind,ro "$1"
        exec "$4" --fd="$5" -o source="$1" -o sandbox=chroot -o cache=always"#;
    let point = kernel.folder().join("host");
    fs::create_dir_all(&point).context("make the folder to share")?;
    let listener = OwnedFd::from(UnixListener::bind(socket).context("make its socket")?);
    fcntl(&listener, FcntlArg::F_SETFD(FdFlag::empty())).context("let it inherit the socket")?;
    let program = find_program("virtiofsd").context("virtiofsd is not there")?;
    let mut unshare = child("unshare")?;
    unshare.args(["--mount", "sh", "-ec", SCRIPT, "sh"]);
    unshare
        .arg(point)
        .arg(workspace::root())
        .arg(workspace::target_dir())
        .arg(program);
    unshare.arg(listener.as_raw_fd().to_string());
    let log = File::create(kernel.folder().join("virtiofsd.log")).context("create its log")?;
    unshare
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    unshare
        .spawn()
        .map(Running)
        .with_context(|| command::shown(&unshare))
}

/// A program that the kernel kills when we end in whatever way.
fn child(program: &str) -> Result<Command> {
    let program = find_program(program).with_context(|| format!("{program} is not there"))?;
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).arg(program);
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_that_can_virtualise_says_so_among_its_flags() {
        assert!(virtualises("model name : x\nflags\t\t: fpu vmx sse\n"));
        assert!(virtualises("flags\t\t: fpu svm\n"));
        assert!(!virtualises("flags\t\t: fpu sse\nvmx flags\t: vnmi\n"));
        assert!(!virtualises(""));
    }
}
