//! How does a test start, stop and kill the loader of a node?

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use nix::poll::PollFlags;
use nix::sys::signal::Signal;
use std::os::fd::AsFd as _;

use crate::namespace::Namespace;
use crate::process::{Process, cut_short};
use crate::wait::{Deadline, lock, ready};

const PROGRAM: &str = "/opt/azure-vnet/bin/azure-vnet-loader";
/// As the next version might have it: other programs, and maps of another layout.
const NEXT: &str = "/opt/azure-vnet/next/azure-vnet-loader";
/// Where the lab listens as systemd would.
const NOTIFY: &str = "/run/lab-notify.sock";
/// While loads keep every CPU busy, `nft` waits for seconds on the kernel's RCU grace periods when it closes its socket, and a start
/// waits for `nft`.
const START_TIMEOUT: Duration = Duration::from_mins(1);
const STOP_TIMEOUT: Duration = Duration::from_mins(1);

/// The loader of one node, running or not.
#[derive(Debug)]
pub struct Loader {
    node: Namespace,
    running: Mutex<Option<Arc<Process>>>,
    earlier: Mutex<String>,
}

impl Loader {
    pub(crate) fn new(node: &Namespace) -> Self {
        Self {
            node: node.clone(),
            running: Mutex::default(),
            earlier: Mutex::default(),
        }
    }

    /// Starts it and waits until it says that it is ready.
    pub fn start(&self) -> Result<()> {
        self.start_with(&[], &[])
    }

    /// Starts the one of the next version and waits until it says that it is ready.
    pub fn start_next(&self) -> Result<()> {
        self.start_command(self.node.command(NEXT))
    }

    /// Starts the one of the next version and kills it after a moment, whether or not it is ready by then.
    pub fn cut_next_short(&self, life: Duration) -> Result<()> {
        cut_short(self.node.command(NEXT), b"", life).map(drop)
    }

    /// Starts it with arguments and additional environment.
    pub fn start_with(&self, args: &[&str], environment: &[(&str, &str)]) -> Result<()> {
        let mut command = self.node.command(PROGRAM);
        command.args(args).envs(environment.iter().copied());
        self.start_command(command)
    }

    /// Starts it where `nft` fails while there is a file of this name.
    pub fn start_with_nft_that_breaks(&self, broken: &str) -> Result<()> {
        const DIRECTORY: &str = "/opt/breaks";
        let script = format!("#!/bin/sh\n[ -e {broken} ] && exit 1\nexec /usr/sbin/nft \"$@\"\n");
        self.node.run(|| {
            let nft = Path::new(DIRECTORY).join("nft");
            fs::create_dir_all(DIRECTORY)?;
            fs::write(&nft, script)?;
            fs::set_permissions(&nft, Permissions::from_mode(0o755))
                .with_context(|| format!("write {}", nft.display()))
        })?;
        let path = format!("{DIRECTORY}:/usr/sbin:/usr/bin:/sbin:/bin");
        self.start_with(&[], &[("PATH", &path)])
    }

    /// Starts it by another program, which ends by executing what its last argument names: `setpriv …`.
    pub fn start_by(&self, line: &[&str]) -> Result<()> {
        let (program, args) = line.split_first().context("an empty command line")?;
        let mut command = self.node.command(program);
        command.args(args).arg(PROGRAM);
        self.start_command(command)
    }

    fn start_command(&self, mut command: Command) -> Result<()> {
        ensure!(
            !self.is_running()?,
            "the loader of {} runs already",
            self.node.name()
        );
        let program = command.get_program().to_owned();
        let notified = self.node.run(|| {
            let program = Path::new(&program);
            ensure!(
                program.is_relative() || program.exists(),
                "there is no {}; build it first: cargo xtask build, cargo xtask build-next",
                program.display()
            );
            // Left over from the loader before this one.
            if Path::new(NOTIFY).exists() {
                fs::remove_file(NOTIFY)?;
            }
            UnixDatagram::bind(NOTIFY).with_context(|| format!("listen on {NOTIFY}"))
        })?;
        command.env("NOTIFY_SOCKET", NOTIFY);
        let process = Process::start(&format!("the loader of {}", self.node.name()), command)?;
        let process = Arc::new(process);
        *lock(&self.running) = Some(Arc::clone(&process));
        until_ready(&process, &notified)
            .with_context(|| format!("start the loader; it wrote:\n{}", process.log()))
    }

    pub fn is_running(&self) -> Result<bool> {
        let process = lock(&self.running).clone();
        process.map_or(Ok(false), |process| Ok(process.status()?.is_none()))
    }

    pub fn pid(&self) -> Result<u32> {
        Ok(self.process()?.pid())
    }

    /// How many descriptors it has open.
    pub fn descriptors(&self) -> Result<usize> {
        let pid = self.pid()?;
        let open = fs::read_dir(format!("/proc/{pid}/fd"));
        Ok(open
            .with_context(|| format!("list the descriptors of {pid}"))?
            .count())
    }

    /// Processor time that it has had: `utime` and `stime` of `man 5 proc_pid_stat`, in hundredths of a second for who reads them.
    pub fn cpu(&self) -> Result<Duration> {
        let path = format!("/proc/{}/stat", self.pid()?);
        let stat = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        // The name may hold anything but is the last thing in brackets; the state behind it is field 3.
        let (_, fields) = stat.rsplit_once(") ").context("no process")?;
        let times = fields.split(' ').skip(11).take(2);
        let ticks: u64 = times.map(str::parse::<u64>).sum::<Result<_, _>>()?;
        Ok(Duration::from_millis(ticks * 10))
    }

    /// Whether a program runs that it has started.
    pub fn runs_others(&self) -> Result<bool> {
        let tasks = format!("/proc/{}/task", self.pid()?);
        for task in fs::read_dir(&tasks).with_context(|| format!("list {tasks}"))? {
            // A thread that has ended meanwhile waits for nobody.
            if fs::read_to_string(task?.path().join("children")).is_ok_and(|them| !them.is_empty())
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What it wrote to stderr, earlier loaders of the node included.
    pub fn log(&self) -> String {
        let now = lock(&self.running).as_ref().map(|process| process.log());
        format!("{}{}", lock(&self.earlier), now.unwrap_or_default())
    }

    /// SIGKILL.
    pub fn kill9(&self) -> Result<()> {
        self.process()?.kill9()?;
        self.forget();
        Ok(())
    }

    /// SIGTERM, and waits for the end, which must be a success.
    pub fn terminate(&self) -> Result<()> {
        let process = self.process()?;
        process.signal(Signal::SIGTERM)?;
        let status = process.wait(STOP_TIMEOUT)?;
        ensure!(
            status.success(),
            "the loader ended with {status}:\n{}",
            process.log()
        );
        self.forget();
        Ok(())
    }

    /// Sends any signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process()?.signal(signal)
    }

    /// Kills it if it runs.
    pub(crate) fn stop(&self) {
        if let Some(process) = lock(&self.running).take() {
            process.kill9().unwrap_or_default();
        }
    }

    fn process(&self) -> Result<Arc<Process>> {
        let process = lock(&self.running).clone();
        process.with_context(|| format!("no loader was started on {}", self.node.name()))
    }

    fn forget(&self) {
        if let Some(process) = lock(&self.running).take() {
            let log = process.log();
            lock(&self.earlier).push_str(&log);
        }
    }
}

/// Waits for `READY=1` or for the end of the process.
fn until_ready(process: &Process, notified: &UnixDatagram) -> Result<()> {
    let deadline = Deadline::after(START_TIMEOUT);
    let watched = [
        (notified.as_fd(), PollFlags::POLLIN),
        (process.exit_fd().as_fd(), PollFlags::POLLIN),
    ];
    let mut message = [0; 4096];
    loop {
        match ready(&watched, Some(deadline))?.as_slice() {
            [true, _] => {
                let length = notified.recv(&mut message)?;
                let text = String::from_utf8_lossy(message.get(..length).unwrap_or_default());
                if text.lines().any(|line| line == "READY=1") {
                    return Ok(());
                }
            }
            [_, true] => bail!("it ended with {}", process.wait(STOP_TIMEOUT)?),
            _ => bail!("not ready after {START_TIMEOUT:?}"),
        }
    }
}
