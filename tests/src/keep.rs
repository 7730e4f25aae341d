//! How does a lab outlive the command that made it, and how is it taken down?
//!
//! `demo --keep` starts itself again as a keeper ([`detach`]): a session of its own that builds the lab, shows
//! what it has to show on the same terminal, and then calls [`keep`], at which point the first process
//! returns to the shell. `demo --down` ends the keeper ([`down`]). The lab needs no farewell: it vanishes
//! with its process.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, dup2_stderr, dup2_stdin, dup2_stdout, pause, setsid, write};

use crate::lab::Lab;
use crate::pod::Pod;
use crate::process::pidfd;
use crate::wait::{Deadline, readable};

const DOWN_TIMEOUT: Duration = Duration::from_secs(10);

/// Starts the keeper and waits until it has called [`keep`]; an error when it ends before.
///
/// Its standard input is the pipe into which it says so.
pub fn detach(mut keeper: Command) -> Result<()> {
    let (mut from_keeper, tell) = io::pipe()?;
    let own_session = || {
        setsid()?;
        Ok(())
    };
    // SAFETY: between fork and exec the hook makes one system call, setsid, and allocates nothing.
    unsafe { keeper.pre_exec(own_session) };
    let started = keeper.stdin(Stdio::from(tell)).spawn();
    let mut child = started.context("start the keeper")?;
    // Closes our copy of the writing end, so that the keeper's death ends the reading.
    drop(keeper);
    let mut told = Vec::new();
    from_keeper
        .read_to_end(&mut told)
        .context("wait for the keeper")?;
    if told.is_empty() {
        bail!("the keeper did not get to keep the lab: {}", child.wait()?);
    }
    Ok(())
}

/// Keeps the lab (and the pods that the caller holds) until [`down`]. Called by the keeper only.
pub fn keep(lab: Lab, pidfile: &Path) -> Result<()> {
    let id = Identity::of(std::process::id())?;
    fs::write(pidfile, id.to_text()).with_context(|| format!("write {}", pidfile.display()))?;
    write(io::stdin(), b"k").context("tell the first process")?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    dup2_stderr(&null)?;
    pause();
    drop(lab);
    Ok(())
}

/// Ends the keeper that wrote `pidfile`; false when there is none.
pub fn down(pidfile: &Path) -> Result<bool> {
    let text = match fs::read_to_string(pidfile) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        other => other.with_context(|| format!("read {}", pidfile.display()))?,
    };
    let kept = Identity::parse(&text).with_context(|| format!("in {}", pidfile.display()))?;
    let ended = end(&kept)?;
    fs::remove_file(pidfile).with_context(|| format!("remove {}", pidfile.display()))?;
    Ok(ended)
}

fn end(kept: &Identity) -> Result<bool> {
    // The descriptor first: after that the identity cannot change unnoticed.
    let Ok(exit) = pidfd(kept.pid) else {
        return Ok(false);
    };
    if Identity::of(kept.pid).ok().as_ref() != Some(kept) {
        return Ok(false); // the number belongs to another process now
    }
    kill(Pid::from_raw(i32::try_from(kept.pid)?), Signal::SIGTERM).context("end the keeper")?;
    let ended = readable(&exit, Deadline::after(DOWN_TIMEOUT))?;
    ensure!(
        ended,
        "the keeper {} still runs after {DOWN_TIMEOUT:?}",
        kept.pid
    );
    Ok(true)
}

/// The command lines that enter each node and each of the pods from outside, by name.
pub fn entrances(lab: &Lab, pods: &[&Pod]) -> Vec<(String, String)> {
    let pods = pods.iter().map(|pod| &***pod);
    let namespaces = lab.namespaces().into_iter().chain(pods);
    namespaces
        .map(|ns| (ns.name().to_owned(), ns.nsenter()))
        .collect()
}

/// A process, safe against the reuse of its number.
#[derive(Debug, PartialEq, Eq)]
struct Identity {
    pid: u32,
    /// Clock ticks between the machine's start and the process's.
    started: u64,
}

impl Identity {
    fn of(pid: u32) -> Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // Field 2, the name, may contain anything, so count from its end: started is field 22.
        let fields = stat
            .rsplit_once(')')
            .map(|(_, fields)| fields.split_whitespace());
        let started = fields
            .and_then(|mut fields| fields.nth(19))
            .context("a short stat")?;
        Ok(Self {
            pid,
            started: started.parse()?,
        })
    }

    fn to_text(&self) -> String {
        format!("{} {}\n", self.pid, self.started)
    }

    fn parse(text: &str) -> Result<Self> {
        let (pid, started) = text
            .trim()
            .split_once(' ')
            .context("not `<pid> <start time>`")?;
        Ok(Self {
            pid: pid.parse()?,
            started: started.parse()?,
        })
    }
}
