//! Would an ADD work, as the plug-ins' STATUS says it, and does the loader's loop turn?

use std::cell::Cell;
use std::time::{Duration, Instant};

use hooks::Hook;

use crate::daemon::Daemon;
use crate::metrics::Addresses;

/// When what comes again and again was last done.
#[derive(Debug)]
pub(crate) struct Beats {
    sweep: Cell<Instant>,
    repair: Cell<Instant>,
}

impl Default for Beats {
    fn default() -> Self {
        let now = Instant::now();
        Self {
            sweep: Cell::new(now),
            repair: Cell::new(now),
        }
    }
}

impl Beats {
    /// A sweep ended, one way or the other.
    pub(crate) fn swept(&self) {
        self.sweep.set(Instant::now());
    }

    /// A round of repairs ended.
    pub(crate) fn repaired(&self) {
        self.repair.set(Instant::now());
    }

    /// What was to come for long and did not. Both come every 30 s or more often.
    fn stuck(&self, limit: Duration) -> Option<&'static str> {
        let beats = [
            ("sweep over the tables", &self.sweep),
            ("round of repairs", &self.repair),
        ];
        let late = beats
            .into_iter()
            .find(|(_, last)| last.get().elapsed() > limit);
        late.map(|(what, _)| what)
    }
}

/// Four times the longest period.
const STUCK: Duration = Duration::from_mins(2);

impl Daemon {
    /// Whoever can ask has seen the loop turn; its tasks may be stuck nevertheless.
    pub(crate) fn health(&self) -> Result<(), String> {
        match self.beats.stuck(STUCK) {
            None => Ok(()),
            Some(what) => Err(format!(
                "no {what} for {} s; see the loader's log",
                STUCK.as_secs()
            )),
        }
    }

    /// What keeps ADD from working.
    pub(crate) fn readiness(&self) -> Result<(), String> {
        for hook in Hook::POD {
            hooks::open(&self.pins, hook).map_err(|error| error.to_string())?;
        }
        if let Some(program) = missing_on_nic(self).first() {
            let nic = self.node.borrow().nic.nic.clone();
            return Err(format!("program {program} does not run on {nic}"));
        }
        let pools = self.pools.borrow();
        let pools = pools
            .as_ref()
            .map_err(|why| format!("there are no address pools: {why}"))?;
        let Addresses {
            used,
            free,
            cooling,
        } = Addresses::count(&self.run, Some(pools));
        if free + cooling == 0 {
            return Err(format!("no address is left for a pod: {used} are used"));
        }
        Ok(())
    }
}

/// The NIC's programs that do not run on it.
pub(crate) fn missing_on_nic(daemon: &Daemon) -> Vec<&'static str> {
    let nic = daemon.node.borrow().nic.nic.clone();
    let all = Hook::NIC.into_iter();
    all.filter(|hook| !hooks::runs(&daemon.pins, *hook, &nic))
        .map(|hook| hook.program)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_that_is_stuck_is_named() {
        let beats = Beats::default();
        assert_eq!(beats.stuck(STUCK), None);
        let long_ago = Instant::now().checked_sub(Duration::from_secs(5)).unwrap();
        beats.repair.set(long_ago);
        assert_eq!(
            beats.stuck(Duration::from_secs(4)),
            Some("round of repairs")
        );
        beats.repaired();
        beats.sweep.set(long_ago);
        assert_eq!(
            beats.stuck(Duration::from_secs(4)),
            Some("sweep over the tables")
        );
        beats.swept();
        assert_eq!(beats.stuck(Duration::from_secs(4)), None);
    }
}
