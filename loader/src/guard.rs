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
use rpc::{GuardView, RunDirectory, read_json, write_json};
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
    let denied = registry.write_denied(&config.deny_cidrs);
    let done = match config.xdp {
        Xdp::Off => detach(pins, run, nic).map(|()| ("off", Vec::new())),
        Xdp::Guard => attach(pins, run, nic).map(|lost| ("native", lost)),
    };
    view(config, nic, denied, done)
}

/// What is said of it.
fn view(
    config: &Config,
    nic: &str,
    denied: Result<(), RegistryError>,
    done: Result<(&str, Vec<String>), GuardError>,
) -> GuardView {
    let mut warnings = Vec::new();
    if let Err(error) = denied {
        warnings.push(format!("the deny list is not in force: {error}"));
    }
    let (mode, lost) = done.unwrap_or_else(|error| {
        let why = error.to_string();
        error!(why, "the guard");
        warnings.push(why);
        ("refused", Vec::new())
    });
    if config.xdp == Xdp::Off && !config.deny_cidrs.is_empty() {
        warnings.push("`denyCidrs` have no effect with `xdp: off`".into());
    }
    if !lost.is_empty() {
        warnings.push(format!(
            "the guard costs {nic} these offloads: {}; `xdp: off` gives them back",
            lost.join(", ")
        ));
    }
    GuardView {
        mode: mode.to_owned(),
        denied: config.deny_cidrs.len(),
        lost,
        warning: (!warnings.is_empty()).then(|| warnings.join("; ")),
    }
}

/// The guard could not be attached, detached or measured.
#[derive(Debug, thiserror::Error)]
enum GuardError {
    #[error(transparent)]
    Attach(#[from] AttachError),
    #[error("ask {nic} for its offloads: {source}")]
    Offloads { nic: String, source: io::Error },
}

/// Attaches the guard, or puts the pinned program behind its link, which does nothing when it is there already. Nothing
/// less tells a link that works from one whose NIC was made anew. Returns the offloads that the guard costs.
fn attach(pins: &Pins, run: &RunDirectory, nic: &str) -> Result<Vec<String>, GuardError> {
    let enabled = || {
        offloads::enabled(nic).map_err(|source| GuardError::Offloads {
            nic: nic.to_owned(),
            source,
        })
    };
    let replace = || Ok(hooks::replace_guard(pins, nic)?);
    let (outcome, lost) = cost(run, enabled, replace, || {
        Ok(hooks::attach_guard(pins, nic)?)
    })?;
    if outcome == Outcome::Replaced {
        debug!(interface = nic, program = XDP_GUARD, "attached as before");
    } else {
        info!(interface = nic, program = XDP_GUARD, "attached");
        if !lost.is_empty() {
            warn!(interface = nic, ?lost, "the guard costs offloads");
        }
    }
    Ok(lost)
}

/// The offloads that were on and are not, since the guard was attached: now, or by an earlier start. What is remembered of it decides
/// nothing but what is told.
fn cost(
    run: &RunDirectory,
    enabled: impl Fn() -> Result<Vec<&'static str>, GuardError>,
    replace: impl FnOnce() -> Result<bool, GuardError>,
    attach: impl FnOnce() -> Result<(), GuardError>,
) -> Result<(Outcome, Vec<String>), GuardError> {
    let before: Vec<String> = enabled()?.into_iter().map(str::to_owned).collect();
    let earlier = remembered(run);
    let (outcome, mut lost) = if replace()? {
        (Outcome::Replaced, earlier)
    } else {
        // Killed before it has measured, or unable to, it leaves all that the guard may have cost by then …
        remember(run, &before);
        // … but one that is not attached costs nothing more.
        attach().inspect_err(|_| remember(run, &earlier))?;
        (Outcome::Attached, before)
    };
    let after = enabled()?;
    lost.retain(|name| !after.contains(&name.as_str()));
    remember(run, &lost);
    Ok((outcome, lost))
}

fn detach(pins: &Pins, run: &RunDirectory, nic: &str) -> Result<(), GuardError> {
    if hooks::detach_guard(pins, nic)? {
        info!(interface = nic, program = XDP_GUARD, "detached");
    }
    // Not there is the usual case; anything else is harmless.
    drop(fs::remove_file(memory(run)));
    Ok(())
}

/// The offloads that were lost, or may have been, when the guard was attached: a later start cannot see the difference any more.
fn remembered(run: &RunDirectory) -> Vec<String> {
    read_json(&memory(run)).unwrap_or_default()
}

/// Written when it changes: this is done at every event of the NIC.
fn remember(run: &RunDirectory, lost: &[String]) {
    if remembered(run) != lost
        && let Err(error) = write_json(&memory(run), &lost)
    {
        warn!(%error, "what the guard costs is forgotten at the next start");
    }
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

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;
    use crate::keepsakes::Stamp;

    const LRO: &str = "large-receive-offload";

    /// A NIC whose driver gives up LRO for a guard.
    struct Nic {
        run: tempfile::TempDir,
        offloads: Cell<&'static [&'static str]>,
    }

    impl Nic {
        fn new() -> Self {
            Self {
                run: tempfile::tempdir().unwrap(),
                offloads: Cell::new(&["scatter-gather", LRO]),
            }
        }

        fn run(&self) -> RunDirectory {
            RunDirectory::at(self.run.path())
        }

        /// What a guard costs that is there, or not yet and attached so.
        fn cost(
            &self,
            is_there: bool,
            attached: impl FnOnce() -> Result<(), GuardError>,
        ) -> Result<Vec<String>, GuardError> {
            let attach = || {
                attached()?;
                self.offloads.set(&["scatter-gather"]);
                Ok(())
            };
            let enabled = || Ok(self.offloads.get().to_vec());
            let cost = cost(&self.run(), enabled, || Ok(is_there), attach);
            cost.map(|(_, lost)| lost)
        }

        fn attached(&self) -> Vec<String> {
            self.cost(false, || Ok(())).unwrap()
        }

        fn replaced(&self) -> Vec<String> {
            self.cost(true, || unreachable!()).unwrap()
        }
    }

    fn refused() -> GuardError {
        let (nic, source) = (String::new(), io::ErrorKind::ResourceBusy.into());
        GuardError::Offloads { nic, source }
    }

    #[test]
    fn a_lost_offload_is_named_by_this_start_and_by_later_ones_until_it_is_back() {
        let nic = Nic::new();
        assert_eq!(nic.attached(), [LRO]);
        for _ in 0..2 {
            assert_eq!(nic.replaced(), [LRO]);
        }
        nic.offloads.set(&["scatter-gather", LRO]);
        assert_eq!(nic.attached(), [LRO], "a new NIC");
        nic.offloads.set(&["scatter-gather", LRO]);
        assert_eq!(nic.replaced(), Vec::<String>::new());
    }

    #[test]
    fn a_start_that_was_killed_before_it_measured_leaves_the_loss_to_the_next_to_name() {
        let nic = Nic::new();
        let killed = AssertUnwindSafe(|| {
            let enabled = || Ok(nic.offloads.get().to_vec());
            cost(&nic.run(), enabled, || Ok(false), || panic!("killed"))
        });
        catch_unwind(killed).unwrap_err();
        nic.offloads.set(&["scatter-gather"]);
        assert_eq!(nic.replaced(), [LRO]);
        assert_eq!(nic.replaced(), [LRO]);
    }

    #[test]
    fn a_guard_that_could_not_be_attached_costs_nothing_that_the_operator_turns_off() {
        let nic = Nic::new();
        nic.cost(false, || Err(refused())).unwrap_err();
        nic.offloads.set(&["scatter-gather"]);
        assert_eq!(nic.replaced(), Vec::<String>::new());

        let nic = Nic::new();
        assert_eq!(nic.attached(), [LRO]);
        let replace = || Err(refused());
        nic.offloads.set(&["scatter-gather", "rx-checksumming"]);
        let enabled = || Ok(nic.offloads.get().to_vec());
        cost(&nic.run(), enabled, replace, || unreachable!()).unwrap_err();
        nic.cost(false, || Err(refused())).unwrap_err();
        nic.offloads.set(&["scatter-gather"]);
        assert_eq!(nic.replaced(), [LRO], "what an earlier start found");
    }

    #[test]
    fn a_loss_that_could_not_be_measured_is_named_by_the_next_look() {
        let nic = Nic::new();
        let looks = Cell::new(0);
        let enabled = || match looks.replace(looks.get() + 1) {
            0 => Ok(nic.offloads.get().to_vec()),
            _ => Err(refused()),
        };
        let attach = || {
            nic.offloads.set(&["scatter-gather"]);
            Ok(())
        };
        cost(&nic.run(), enabled, || Ok(false), attach).unwrap_err();
        assert_eq!(nic.replaced(), [LRO]);
    }

    #[test]
    fn a_full_disk_does_not_keep_the_guard_off_nor_its_cost_secret() {
        let nic = Nic::new();
        fs::create_dir(memory(&nic.run())).unwrap();
        assert_eq!(nic.attached(), [LRO]);
    }

    #[test]
    fn what_is_known_is_not_written_again() {
        let nic = Nic::new();
        assert_eq!(nic.attached(), [LRO]);
        let stamp = Stamp::of(&memory(&nic.run())).unwrap();
        assert_eq!(nic.replaced(), [LRO]);
        assert_eq!(Stamp::of(&memory(&nic.run())).unwrap(), stamp);
    }

    #[test]
    fn one_warning_does_not_hide_another() {
        let config = Config {
            xdp: Xdp::Guard,
            ..Config::default()
        };
        let full = RegistryError::Map {
            doing: "write a prefix",
            map: "deny",
            source: aya::maps::MapError::KeyNotFound,
        };
        let lost = vec![LRO.to_owned()];
        let view = view(&config, "eth0", Err(full), Ok(("native", lost.clone())));
        assert_eq!((view.mode.as_str(), &view.lost), ("native", &lost));
        let warning = view.warning.unwrap();
        for part in [
            "deny list is not in force",
            "the guard costs eth0 these offloads: large-receive-offload; `xdp: off` gives them back",
        ] {
            assert!(warning.contains(part), "{warning}");
        }
    }
}
