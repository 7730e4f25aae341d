//! What happens to packets, as it happens: `vnetctl monitor` and `vnetctl capture`.

mod capture;
mod describe;
mod followed;
mod listener;
mod monitor;
mod pcapng;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use abi::Watch;
use anyhow::{Context as _, Result};
use clap::Args;
use hooks::Maps;
use nix::time::{ClockId, clock_gettime};

pub use capture::{Capture, Captured, capture};
#[cfg(feature = "documents")]
pub(crate) use monitor::Line;
pub use monitor::{Monitor, monitor};

use self::describe::Owners;
use self::listener::{Heard, Listener};
use crate::signals::ended;

/// When to end.
#[derive(Clone, Copy, Debug, Args)]
pub struct Limits {
    /// Ends after so much time; without it, and without --count, never.
    #[arg(long, value_name = "SECONDS")]
    pub seconds: Option<u32>,
    /// Ends after so many packets.
    #[arg(long, value_name = "PACKETS")]
    pub count: Option<u64>,
}

/// Limits that run.
struct Clock {
    limits: Limits,
    started: Instant,
    packets: u64,
}

impl Limits {
    fn clock(self) -> Clock {
        Clock {
            limits: self,
            started: Instant::now(),
            packets: 0,
        }
    }
}

impl Clock {
    fn count(&mut self) {
        self.packets += 1;
    }

    fn is_over(&self) -> bool {
        let time = self.limits.seconds.map(u64::from).map(Duration::from_secs);
        time.is_some_and(|time| self.started.elapsed() >= time)
            || self.limits.count.is_some_and(|most| self.packets >= most)
    }
}

/// Where what is heard goes.
trait Sink {
    /// Whether it counts for the limits.
    fn take(&mut self, owners: &Owners, heard: Heard) -> Result<bool>;
    /// What to wish for from now on, if that is another thing: pods have come and gone.
    fn look(&mut self, owners: &Owners) -> Option<Vec<Watch>>;
    /// Nothing more has happened for a moment.
    fn pause(&mut self, at_the_end: bool) -> Result<()>;
}

/// Listens until the limits are reached, or somebody ends it (SIGINT, SIGTERM).
fn follow(mut listener: Listener, maps: &Maps, limits: Limits, sink: &mut impl Sink) -> Result<()> {
    let mut owners = Owners::read(maps)?;
    let mut clock = limits.clock();
    let ended = ended()?;
    while !clock.is_over() && !ended.load(Ordering::Relaxed) {
        // No more than the buffers hold: what is read makes room only once all is read.
        let mut heard = Vec::new();
        listener.hear(|one| heard.push(one))?;
        // Each CPU has a buffer of its own.
        heard.sort_by_key(Heard::time);
        if owners.refresh(maps)?
            && let Some(wishes) = sink.look(&owners)
        {
            listener.wish(wishes);
        }
        for one in heard {
            if !clock.is_over() && sink.take(&owners, one)? {
                clock.count();
            }
        }
        sink.pause(false)?;
    }
    sink.pause(true)
}

/// Since the epoch, when the monotonic clock was zero.
fn boot() -> Result<Duration> {
    let read = |clock| clock_gettime(clock).context("read the clock");
    let (wall, monotonic) = (
        read(ClockId::CLOCK_REALTIME)?,
        read(ClockId::CLOCK_MONOTONIC)?,
    );
    Ok(Duration::from(wall).saturating_sub(Duration::from(monotonic)))
}
