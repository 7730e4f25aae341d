//! On what was it measured, and what could not be?

use std::fs;
use std::process::Command;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::Costs;
use crate::load::cpu::busy_now;
use crate::names::SideName;

/// Where and how a report came about.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cpus: usize,
    pub(crate) memory_mib: u64,
    pub(crate) kernel: String,
    pub(crate) virtualization: String,
    /// CPUs that others kept busy when all was built and nothing was measured yet; a figure from a busy machine is worth little.
    /// Reports of before have the load average.
    #[serde(alias = "load_before")]
    pub(crate) busy_before: f64,
    pub(crate) commit: String,
    /// Seconds since 1970.
    pub(crate) time: u64,
    pub(crate) quick: bool,
    pub(crate) seconds: f64,
    pub(crate) sizes: Vec<Size>,
    /// Of the programs alone.
    #[serde(default)]
    pub(crate) costs: Option<Costs>,
    pub(crate) failures: Vec<Failure>,
}

/// The product's plug-ins are to be no larger.
pub(crate) const LARGEST_PLUGIN: u64 = 5_000_000;
/// The loader is to need no more with 250 pods.
pub(crate) const LARGEST_LOADER: u64 = 30 << 20;

/// How large something is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Size {
    pub(crate) what: String,
    pub(crate) bytes: u64,
    /// More would be too much.
    pub(crate) limit: Option<u64>,
}

/// What could not be measured, and why: the command that failed and what it said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Failure {
    pub(crate) side: Option<SideName>,
    pub(crate) what: String,
    pub(crate) error: String,
}

impl Failure {
    /// What a report says of itself until its run is over.
    pub(crate) fn unfinished() -> Self {
        Self {
            side: None,
            what: "everything else".into(),
            error: "the run was not finished".into(),
        }
    }
}

impl Machine {
    /// This one, as it is before anything is measured.
    #[expect(clippy::cast_precision_loss, reason = "no machine has 2^52 CPUs")]
    pub(crate) fn describe(quick: bool) -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name));
            let value = line.and_then(|line| line.split_once(':'));
            value.map_or_else(String::new, |(_, value)| value.trim().to_owned())
        };
        let cpuinfo = read("/proc/cpuinfo");
        let memory = field(&read("/proc/meminfo"), "MemTotal");
        let kib: u64 = memory
            .split(' ')
            .next()
            .map_or(0, |n| n.parse().unwrap_or(0));
        let version = read("/proc/sys/kernel/osrelease");
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let hypervisor = cpuinfo.contains(" hypervisor");
        let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            cpu: field(&cpuinfo, "model name"),
            cpus,
            memory_mib: kib / 1024,
            kernel: version.trim().to_owned(),
            virtualization: if hypervisor {
                "a virtual machine"
            } else {
                "none seen"
            }
            .into(),
            // What cannot be seen is no quiet machine.
            busy_before: busy_now().unwrap_or(cpus as f64),
            commit: commit(),
            time: since.map_or(0, |since| since.as_secs()),
            quick,
            seconds: 0.0,
            sizes: Vec::new(),
            costs: None,
            failures: Vec::new(),
        }
    }

    pub(crate) fn kind(&self) -> &'static str {
        if self.quick { "quick" } else { "full" }
    }

    /// Whether the report is what an interrupted run has left.
    pub(crate) fn is_unfinished(&self) -> bool {
        self.failures.contains(&Failure::unfinished())
    }

    /// Whether the commit says all that was measured.
    pub(crate) fn is_of_a_commit(&self) -> bool {
        !self.commit.is_empty() && !self.commit.ends_with(DIRTY)
    }

    /// Whether others had more than a quarter of it before anything was measured. Rounds tell how they differ among themselves, not
    /// how a run differs from one beside others.
    #[expect(clippy::cast_precision_loss, reason = "no machine has 2^52 CPUs")]
    pub(crate) fn is_busy(&self) -> bool {
        self.busy_before > self.cpus as f64 / 4.0
    }

    /// Whether absolute figures of the other machine mean anything here.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        (&self.cpu, self.cpus, &self.kernel) == (&other.cpu, other.cpus, &other.kernel)
    }
}

/// What follows a commit beside which something was changed.
const DIRTY: &str = "-dirty";

/// The commit that was measured; empty outside a repository.
fn commit() -> String {
    let mut git = Command::new("git");
    git.current_dir(env!("CARGO_MANIFEST_DIR"));
    let output = git
        .args(["describe", "--always", "--dirty", "--exclude=*"])
        .output();
    let output = output.ok().filter(|output| output.status.success());
    output.map_or_else(String::new, |output| {
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_two_cpus_that_somebody_else_has_is_a_busy_machine_and_a_daemon_is_not() {
        let of = |busy_before| {
            let machine = Machine {
                cpus: 2,
                busy_before,
                ..Machine::default()
            };
            machine.is_busy()
        };
        assert!(of(1.0) && !of(0.1));
    }
}
