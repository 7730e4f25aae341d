//! What is repaired: links get the new programs, tombstones are replayed, endpoints are put back, dead entries go.

use std::fs;
use std::path::Path;

use hooks::{AttachError, Hook, Outcome, Pins};
use nix::net::if_::if_nametoindex;
use rpc::{Endpoint, RunDirectory, StateError, read_json, remove_durably};
use tracing::{info, warn};

use crate::registry::{Registry, RegistryError, flags_of};

/// Something could not be repaired.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// A program could not be attached.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// A map could not be written.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A record could not be read or removed.
    #[error(transparent)]
    State(#[from] StateError),
}

/// Attaches the NIC's programs, or replaces those that an earlier start attached.
pub fn attach_nic(pins: &Pins, nic: &str) -> Result<(), AttachError> {
    for hook in Hook::NIC {
        let mut program = hooks::open(pins, hook)?;
        let outcome = hooks::attach(pins, hook, &mut program, nic)?;
        info!(
            interface = nic,
            program = hook.program,
            by = ?hook.mechanism()?,
            ?outcome,
            "attached"
        );
    }
    Ok(())
}

/// Attaches the NIC's programs that do not run.
pub fn attach_nic_if_needed(pins: &Pins, nic: &str) -> Result<(), AttachError> {
    if Hook::NIC
        .into_iter()
        .all(|hook| hooks::runs(pins, hook, nic))
    {
        return Ok(());
    }
    warn!(
        interface = nic,
        "the NIC's programs do not run: attaching them anew"
    );
    attach_nic(pins, nic)
}

/// Attaches, to every registered pod's host veth, the programs that do not run there or that are older than the pinned
/// ones. Goes on after an error and returns all of them: one bad veth must not leave the others unguarded.
pub fn guard_pods(pins: &Pins, registry: &Registry) -> Vec<ReconcileError> {
    let veths = match registry.host_veths() {
        Ok(veths) => veths,
        Err(error) => return vec![error.into()],
    };
    let failed = veths
        .iter()
        .filter_map(|ifname| attach_missing(pins, ifname).err());
    failed.map(Into::into).collect()
}

/// Attaches the programs that do not run on a pod's host veth, or that are older than the pinned ones.
fn attach_missing(pins: &Pins, ifname: &str) -> Result<(), AttachError> {
    for hook in Hook::POD {
        if hooks::runs(pins, hook, ifname) {
            continue;
        }
        match hooks::attach(pins, hook, &mut hooks::open(pins, hook)?, ifname) {
            Ok(Outcome::Replaced) => info!(interface = ifname, program = hook.program, "replaced"),
            Ok(Outcome::Attached) => {
                warn!(
                    interface = ifname,
                    program = hook.program,
                    "was not attached: attached anew"
                );
            }
            // Deleted meanwhile.
            Err(_) if if_nametoindex(ifname).is_err() => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Removes the NIC's programs from interfaces that are not the NIC any more.
pub fn remove_stale_links(pins: &Pins, nic: &str) -> Result<(), AttachError> {
    for ifname in hooks::nics(pins)? {
        if ifname != nic {
            warn!(interface = ifname, "removed the programs of an earlier NIC");
            hooks::remove(pins, &ifname)?;
        }
    }
    Ok(())
}

/// Brings maps and records together, in both directions. Goes on after an error and returns all of them.
pub fn reconcile(
    registry: &mut Registry,
    pins: &Pins,
    run: &RunDirectory,
    boot_id: &str,
) -> Vec<ReconcileError> {
    let mut errors = Vec::new();
    for path in files(&run.endpoints(), "deleted") {
        if let Err(error) = replay_tombstone(registry, &path) {
            errors.push(error);
        }
    }
    for endpoint in endpoints(run) {
        let lives = endpoint.boot_id == boot_id
            && if_nametoindex(endpoint.host_ifname.as_str())
                .is_ok_and(|index| index == endpoint.host_ifindex);
        let repaired = if lives {
            restore(registry, pins, &endpoint)
        } else {
            registry.unregister(&endpoint).map_err(Into::into)
        };
        errors.extend(repaired.err());
    }
    match registry.remove_dead() {
        Ok(0) => {}
        Ok(pods) => info!(pods, "removed pods whose interface is gone"),
        Err(error) => errors.push(error.into()),
    }
    errors
}

/// Puts an endpoint that the maps have lost back; its veth may run programs of lost maps, or none.
fn restore(
    registry: &mut Registry,
    pins: &Pins,
    endpoint: &Endpoint,
) -> Result<(), ReconcileError> {
    match registry.registered(endpoint.address.addr())? {
        // An older loader did not know of modes.
        Some(pod)
            if pod.ifindex.get() == endpoint.host_ifindex && pod.flags != flags_of(endpoint) =>
        {
            info!(endpoint = %endpoint.key, mode = endpoint.mode, "the mode takes effect");
        }
        Some(_) => return Ok(()),
        None => {
            warn!(endpoint = %endpoint.key, address = %endpoint.address, "the maps had lost an endpoint: restored");
        }
    }
    attach_missing(pins, &endpoint.host_ifname)?;
    Ok(registry.register(pins, endpoint)?)
}

/// A DEL that found no loader left its record behind under another name.
fn replay_tombstone(registry: &mut Registry, path: &Path) -> Result<(), ReconcileError> {
    match read_json::<Endpoint>(path) {
        Ok(endpoint) => registry.unregister(&endpoint)?,
        Err(error) if error.is_not_found() => return Ok(()),
        Err(error @ StateError::Io { .. }) => return Err(error.into()),
        Err(StateError::Damaged { why, .. }) => {
            // Its interface is gone, so the entries go with `remove_dead`.
            warn!(path = %path.display(), why, "damaged tombstone: removed");
        }
    }
    Ok(remove_durably(path)?)
}

/// Every endpoint record that can be read.
pub fn endpoints(run: &RunDirectory) -> Vec<Endpoint> {
    let mut endpoints = Vec::new();
    for path in files(&run.endpoints(), "json") {
        match read_json(&path) {
            Ok(endpoint) => endpoints.push(endpoint),
            Err(error) if error.is_not_found() => {}
            Err(error) => warn!(%error, "endpoint record skipped"),
        }
    }
    endpoints
}

fn files(directory: &Path, extension: &str) -> Vec<std::path::PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    let mut paths: Vec<_> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect();
    paths.sort();
    paths
}
