//! Loads that are bounded in time, count exactly and leave their warm-up out.

pub(crate) mod cpu;
mod sockperf;
mod stream;
pub(crate) mod tcp;
pub(crate) mod udp;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use hdrhistogram::Histogram;
use lab::{Namespace, eventually};

use crate::series::Sample;
pub(crate) use sockperf::sockperf;
pub(crate) use stream::{Length, stream};

/// How long anything may keep a load waiting.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// How long a load runs, and how much of it before anything counts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    pub(crate) warm: Duration,
    pub(crate) counted: Duration,
}

impl Times {
    pub(crate) fn of(counted: Duration) -> Self {
        Self {
            warm: counted / 5,
            counted,
        }
    }
}

/// What happened while it counted.
#[derive(Clone, Debug)]
pub(crate) struct Counted {
    pub(crate) done: u64,
    pub(crate) errors: u64,
    pub(crate) first_error: Option<String>,
    pub(crate) took: Duration,
    /// Nanoseconds.
    pub(crate) latency: Option<Histogram<u64>>,
    pub(crate) cpu: Duration,
}

impl Counted {
    /// Per second. Errors are no figure: what fails now and then is not compared with what does not.
    #[expect(clippy::cast_precision_loss, reason = "no load counts to 2^52")]
    pub(crate) fn sample(self) -> Result<Sample> {
        ensure!(
            self.errors == 0,
            "{} of {} failed, the first one with: {}",
            self.errors,
            self.done + self.errors,
            self.first_error.unwrap_or_default()
        );
        ensure!(self.done > 0, "nothing came through in {:?}", self.took);
        let done = self.done as f64;
        Ok(Sample {
            value: done / self.took.as_secs_f64(),
            latency: self.latency,
            cpu: Some((self.cpu, done)),
        })
    }
}

/// One nanosecond to more than anybody waits, three digits.
pub(crate) fn histogram() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 1 << 40, 3)?)
}

/// Waits until a server of somebody else has its port; `kind` is what `ss` calls such sockets.
fn until_bound(namespace: &Namespace, kind: &str, port: &str) -> Result<()> {
    let filter = format!("sport = :{port}");
    let bound = || {
        let sockets = namespace.exec(&["ss", kind, &filter]).ok()?;
        (!sockets.trim().is_empty()).then_some(())
    };
    eventually(PATIENCE, bound).with_context(|| format!("nobody has port {port}"))
}

/// `once` again and again, each after the other: a closed loop.
pub(crate) fn closed_loop(
    times: Times,
    mut once: impl FnMut() -> std::io::Result<()>,
) -> Result<Counted> {
    let warm = Instant::now();
    while warm.elapsed() < times.warm {
        // What is wrong shows soon again.
        once().unwrap_or_default();
    }
    let (mut done, mut errors, mut first_error) = (0, 0, None);
    let mut latency = histogram()?;
    let cpu = cpu::Clock::start()?;
    let start = Instant::now();
    let mut began = start;
    while began.duration_since(start) < times.counted {
        let result = once();
        let ended = Instant::now();
        match result {
            Ok(()) => {
                done += 1;
                let nanos = ended.duration_since(began).as_nanos();
                latency.saturating_record(u64::try_from(nanos).unwrap_or(u64::MAX));
            }
            Err(error) => {
                errors += 1;
                first_error.get_or_insert_with(|| error.to_string());
            }
        }
        began = ended;
    }
    Ok(Counted {
        done,
        errors,
        first_error,
        took: start.elapsed(),
        latency: Some(latency),
        cpu: cpu.elapsed()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times() -> Times {
        Times {
            warm: Duration::from_millis(20),
            counted: Duration::from_millis(50),
        }
    }

    #[test]
    fn the_warm_up_is_not_counted() {
        let mut calls = 0;
        let counted = closed_loop(times(), || {
            calls += 1;
            std::thread::yield_now();
            Ok(())
        });
        let counted = counted.unwrap();
        assert!(counted.done < calls, "{} of {calls}", counted.done);
        assert_eq!(counted.latency.unwrap().len(), counted.done);
    }

    #[test]
    fn what_fails_is_counted_and_gives_no_figure() {
        let counted = closed_loop(times(), || Err(std::io::Error::other("every one")));
        let counted = counted.unwrap();
        assert!(counted.errors > 0 && counted.done == 0, "{counted:?}");
        let error = counted.sample().unwrap_err().to_string();
        assert!(error.ends_with("the first one with: every one"), "{error}");
    }
}
