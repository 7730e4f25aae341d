//! Would an ADD work, as the plug-ins' STATUS says it, and does the loader's loop turn?

use std::time::Duration;

use hooks::Hook;

use crate::daemon::Daemon;
use crate::metrics::Addresses;

/// Twice what anything may take that waits for others: a plug-in that frees an address, a minute.
const STUCK: Duration = Duration::from_mins(2);

impl Daemon {
    /// Whoever can ask has seen the loop turn; its tasks may be stuck nevertheless.
    pub(crate) fn health(&self) -> Result<(), String> {
        match self.alive.wrong(STUCK) {
            None => Ok(()),
            Some(wrong) => Err(format!("{wrong}; see the loader's log")),
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
