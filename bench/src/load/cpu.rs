//! What does a load cost the machine, and on which CPU does it run?

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::sched::{CpuSet, sched_setaffinity};
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

/// CPU time of the whole machine since some moment, whoever used it: each tick once.
///
/// The time of processes has the softirqs in it that ran in their context, on kernels that do not tell the two apart
/// (`CONFIG_IRQ_TIME_ACCOUNTING` is not set), and veths and packet sockets do all their work there: beside the softirqs' own time it
/// would count twice. A kernel that counts by ticks resolves 10 ms; the sum over a round of a second is good to some percent, the
/// figure of a short one is not.
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

/// How many CPUs others keep busy at this moment, by a second of them. The load average would know our own build, and the run
/// before, a minute long.
pub(crate) fn busy_now() -> Result<f64> {
    let (clock, start) = (Clock::start()?, Instant::now());
    lab::pass(Duration::from_secs(1));
    Ok(clock.elapsed()?.as_secs_f64() / start.elapsed().as_secs_f64())
}

fn used() -> Result<Duration> {
    busy(&fs::read_to_string("/proc/stat").context("read /proc/stat")?)
}

/// Of the first line, `cpu  user nice system idle iowait irq softirq steal …`, in ticks: all in which a CPU worked for us. `user` has
/// that of guests in it.
fn busy(stat: &str) -> Result<Duration> {
    let line = stat.lines().next().unwrap_or_default();
    let fields: Vec<&str> = line.split_whitespace().collect();
    let mut ticks = 0_u64;
    for number in [1, 2, 3, 6, 7] {
        let field = fields.get(number).context("/proc/stat lacks times")?;
        ticks += field.parse::<u64>()?;
    }
    let per_second = sysconf(SysconfVar::CLK_TCK)?.unwrap_or(100);
    let per_second = u64::try_from(per_second)?.max(1);
    Ok(Duration::from_millis(ticks * 1000 / per_second))
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn all_but_idle_and_stolen_time_of_all_cpus_is_counted_once() {
        let stat = "cpu  100 20 30 4000 5000 6 250 8000 90 0\ncpu0 1 2 3 4 5 6 7 8 0 0\n";
        assert_eq!(busy(stat).unwrap(), Duration::from_millis(4060));
        busy("cpu 1 2").unwrap_err();
    }

    /// Datagrams over `lo` are received by a softirq in their sender's context.
    #[test]
    fn senders_use_no_more_cpu_time_than_there_is() {
        let senders = std::thread::available_parallelism().unwrap().get();
        let (clock, start) = (Clock::start().unwrap(), Instant::now());
        std::thread::scope(|scope| {
            for _ in 0..senders {
                scope.spawn(|| {
                    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
                    let to = socket.local_addr().unwrap();
                    while start.elapsed() < Duration::from_millis(500) {
                        socket.send_to(b"x", to).unwrap();
                    }
                });
            }
        });
        let (used, there_is) = (clock.elapsed().unwrap(), start.elapsed());
        let there_is = there_is * u32::try_from(senders).unwrap();
        // Each CPU may end a tick that it had begun.
        let most = there_is + Duration::from_millis(10) * u32::try_from(senders).unwrap() * 2;
        assert!(used <= most, "{used:?} of {there_is:?}");
        assert!(used >= there_is / 2, "{used:?} of {there_is:?}");
    }

    #[test]
    fn what_others_do_at_this_moment_is_seen_and_no_more_than_all_cpus() {
        let cpus = std::thread::available_parallelism().unwrap().get();
        let done = AtomicBool::new(false);
        let busy = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
            let busy = busy_now();
            done.store(true, Ordering::Relaxed);
            busy.unwrap()
        });
        let most = f64::from(u32::try_from(cpus).unwrap()) * 1.05;
        assert!((0.5..=most).contains(&busy), "{busy}");
    }

    #[test]
    fn work_is_seen() {
        let clock = Clock::start().unwrap();
        while clock.elapsed().unwrap() < Duration::from_millis(20) {}
    }
}
