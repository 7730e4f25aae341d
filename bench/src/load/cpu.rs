//! What does a load cost the machine, and on which CPU does it run?

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::resource::{UsageWho, getrusage};
use nix::unistd::{Pid, SysconfVar, sysconf};

/// Client and server each have a CPU, as on two machines: where the scheduler would put them decides more than what is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cpu {
    Client,
    Server,
}

impl Cpu {
    pub(crate) fn number(self) -> usize {
        let last = std::thread::available_parallelism().map_or(0, |cpus| cpus.get() - 1);
        match self {
            Self::Client => 0,
            Self::Server => last.min(1),
        }
    }

    /// Binds the calling thread, and what it starts from now on.
    pub(crate) fn pin(self) -> Result<()> {
        let mut cpus = CpuSet::new();
        cpus.set(self.number())?;
        sched_setaffinity(Pid::from_raw(0), &cpus).context("bind a thread to a CPU")
    }
}

/// CPU time: of this process with all its children that have ended, and of all softirqs.
///
/// A kernel that counts by ticks (`CONFIG_IRQ_TIME_ACCOUNTING` is not set) resolves 10 ms; the sum over a round of a second is
/// good to some percent, the figure of a short one is not.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Duration);

impl Clock {
    pub(crate) fn start() -> Result<Self> {
        used().map(Self)
    }

    pub(crate) fn elapsed(self) -> Result<Duration> {
        Ok(used()?.saturating_sub(self.0))
    }
}

fn used() -> Result<Duration> {
    let mut used = softirq(&fs::read_to_string("/proc/stat").context("read /proc/stat")?)?;
    for who in [UsageWho::RUSAGE_SELF, UsageWho::RUSAGE_CHILDREN] {
        let usage = getrusage(who)?;
        for time in [usage.user_time(), usage.system_time()] {
            used += Duration::from_secs(u64::try_from(time.tv_sec())?);
            used += Duration::from_micros(u64::try_from(time.tv_usec())?);
        }
    }
    Ok(used)
}

/// Of the first line, `cpu  user nice system idle iowait irq softirq …`, in ticks.
fn softirq(stat: &str) -> Result<Duration> {
    let line = stat.lines().next().unwrap_or_default();
    let ticks = line.split_whitespace().nth(7);
    let ticks: u64 = ticks.context("/proc/stat has no softirq time")?.parse()?;
    let per_second = sysconf(SysconfVar::CLK_TCK)?.unwrap_or(100);
    let per_second = u64::try_from(per_second)?.max(1);
    Ok(Duration::from_millis(ticks * 1000 / per_second))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn softirq_time_is_read_from_the_sum_of_all_cpus() {
        let stat = "cpu  1 2 3 4 5 6 250 8 0 0\ncpu0 1 2 3 4 5 6 7 8 0 0\n";
        assert_eq!(softirq(stat).unwrap(), Duration::from_millis(2500));
        softirq("cpu 1 2").unwrap_err();
    }

    #[test]
    fn work_is_seen() {
        let clock = Clock::start().unwrap();
        while clock.elapsed().unwrap() < Duration::from_millis(20) {}
    }
}
