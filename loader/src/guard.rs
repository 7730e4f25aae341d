//! `xdp_guard`: on the NIC if the configuration asks for it, and honest about what that costs.
//!
//! Nothing here keeps the loader from starting: the guard saves work and drops forgeries early, but nothing relies on it.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::PathBuf;

use abi::Ip4;
use abi::pins::program::XDP_GUARD;
use aya::maps::lpm_trie::Key;
use hooks::{Abi, AttachError, Outcome, Pins};
use ipnet::Ipv4Net;
use rpc::{GuardView, RunDirectory, StateError, read_json, write_json};
use tracing::{debug, error, info, warn};

use crate::config::{Config, Xdp};
use crate::daemon::Daemon;
use crate::offloads;
use crate::registry::{Registry, RegistryError, map_error};

/// Brings the NIC and the deny list to what the configuration says, and tells how it went. Idempotent.
pub(crate) fn apply(
    config: &Config,
    pins: &Pins,
    run: &RunDirectory,
    registry: &mut Registry,
    nic: &str,
) -> GuardView {
    let mut view = GuardView {
        denied: config.deny_cidrs.len(),
        ..GuardView::default()
    };
    if let Err(error) = registry.write_denied(&config.deny_cidrs) {
        view.warning = Some(format!("the deny list is not in force: {error}"));
    }
    let done = match config.xdp {
        Xdp::Off => detach(pins, run, nic).map(|()| ("off", Vec::new())),
        Xdp::Guard => attach(pins, run, nic).map(|lost| ("native", lost)),
    };
    match done {
        Ok((mode, lost)) => {
            mode.clone_into(&mut view.mode);
            view.lost = lost;
        }
        Err(error) => {
            let why = error.to_string();
            error!(why, "the guard");
            "refused".clone_into(&mut view.mode);
            view.warning = Some(why);
        }
    }
    if config.xdp == Xdp::Off && !config.deny_cidrs.is_empty() {
        view.warning = Some("`denyCidrs` have no effect with `xdp: off`".into());
    }
    if !view.lost.is_empty() {
        view.warning = Some(format!(
            "the guard costs {nic} these offloads: {}; `xdp: off` gives them back",
            view.lost.join(", ")
        ));
    }
    view
}

/// The guard could not be attached, detached or measured.
#[derive(Debug, thiserror::Error)]
enum GuardError {
    #[error(transparent)]
    Attach(#[from] AttachError),
    #[error("ask {nic} for its offloads: {source}")]
    Offloads { nic: String, source: io::Error },
    #[error(transparent)]
    State(#[from] StateError),
}

/// Attaches the guard, or puts the pinned program behind its link, which does nothing when it is there already. Nothing
/// less tells a link that works from one whose NIC was made anew. Returns the offloads that the guard costs.
fn attach(pins: &Pins, run: &RunDirectory, nic: &str) -> Result<Vec<String>, GuardError> {
    let offloads = || {
        offloads::enabled(nic).map_err(|source| GuardError::Offloads {
            nic: nic.to_owned(),
            source,
        })
    };
    let before = offloads()?;
    let outcome = hooks::attach_guard(pins, nic)?;
    if outcome == Outcome::Replaced {
        debug!(interface = nic, program = XDP_GUARD, "attached as before");
        return Ok(remembered(run));
    }
    info!(interface = nic, program = XDP_GUARD, "attached");
    let after = offloads()?;
    let lost: Vec<String> = before
        .into_iter()
        .filter(|name| !after.contains(name))
        .map(str::to_owned)
        .collect();
    if !lost.is_empty() {
        warn!(interface = nic, ?lost, "the guard costs offloads");
    }
    write_json(&memory(run), &lost)?;
    Ok(lost)
}

fn detach(pins: &Pins, run: &RunDirectory, nic: &str) -> Result<(), GuardError> {
    if hooks::detach_guard(pins, nic)? {
        info!(interface = nic, program = XDP_GUARD, "detached");
    }
    // Not there is the usual case; anything else is harmless.
    drop(fs::remove_file(memory(run)));
    Ok(())
}

/// The offloads that were lost when the guard was attached: a later start cannot see the difference any more.
fn remembered(run: &RunDirectory) -> Vec<String> {
    read_json(&memory(run)).unwrap_or_default()
}

fn memory(run: &RunDirectory) -> PathBuf {
    run.root().join("guard.json")
}

impl Daemon {
    /// Brings the guard to what configuration and NIC are now.
    pub(crate) fn follow_guard(&self) {
        if !self.restore_pins() {
            return;
        }
        let config = self.configuration.borrow().config.clone();
        let nic = self.node.borrow().nic.nic.clone();
        let registry = &mut self.registry.borrow_mut();
        let view = apply(&config, &self.pins, &self.run, registry, &nic);
        self.guard.replace(view);
        self.hold_pins();
    }
}

impl Registry {
    /// Makes `deny` hold these prefixes. New ones go in before old ones go out.
    fn write_denied(&mut self, prefixes: &[Ipv4Net]) -> Result<(), RegistryError> {
        let deny = &mut self.maps.deny;
        let mut wanted = BTreeSet::new();
        for prefix in prefixes {
            let (len, addr) = (u32::from(prefix.prefix_len()), Ip4::from(prefix.network()));
            wanted.insert((len, addr));
            deny.insert(&Key::new(len, Abi(addr)), 1, 0)
                .map_err(map_error("write a prefix", "deny"))?;
        }
        let keys: Result<Vec<_>, _> = deny.keys().collect();
        for key in keys.map_err(map_error("list the prefixes", "deny"))? {
            if !wanted.contains(&(key.prefix_len(), key.data().0)) {
                deny.remove(&key)
                    .map_err(map_error("remove a prefix", "deny"))?;
            }
        }
        Ok(())
    }
}
