//! What is repaired: links get the new programs, tombstones are replayed, endpoints are put back, dead entries go.

use std::fs;
use std::path::Path;

use hooks::{AttachError, Hook, Look, Outcome, Pins};
use nix::net::if_::if_nametoindex;
use rpc::{Endpoint, RunDirectory, StateError, read_json, remove_durably};
use tracing::{error, info, warn};

use crate::carry::Carry;
use crate::conntrack;
use crate::nic::Names;
use crate::registry::{Registry, RegistryError, flags_of};
use crate::repairs::Repair;
use crate::veths::PodVeth;

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

/// Attaches the NIC's programs, or replaces those that an earlier start attached. `take_over` makes known what the kernel
/// translates: once `to_wire` runs, which sees all that begins from then on, and before `from_wire` judges by it.
pub fn attach_nic(
    pins: &Pins,
    nic: &str,
    take_over: impl FnOnce() -> Result<(), RegistryError>,
) -> Result<(), ReconcileError> {
    let [learns, decides] = Hook::NIC;
    attach_to_nic(pins, nic, learns)?;
    take_over()?;
    attach_to_nic(pins, nic, decides)?;
    Ok(())
}

fn attach_to_nic(pins: &Pins, nic: &str, hook: Hook) -> Result<Outcome, AttachError> {
    let mut program = hooks::open(pins, hook)?;
    let outcome = hooks::attach(pins, hook, &mut program, nic)?;
    info!(
        interface = nic,
        program = hook.program,
        by = ?hook.mechanism()?,
        ?outcome,
        "attached"
    );
    Ok(outcome)
}

/// Attaches the NIC's programs if one of them does not run.
pub fn attach_nic_if_needed(
    pins: &Pins,
    nic: &str,
    take_over: impl FnOnce() -> Result<(), RegistryError>,
) -> Result<(), ReconcileError> {
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
    // A program that learns has missed nothing while it ran.
    let [learns, _] = Hook::NIC;
    let has_missed = !hooks::runs(pins, learns, nic);
    attach_nic(pins, nic, || if has_missed { take_over() } else { Ok(()) })?;
    Repair::Program.count();
    Ok(())
}

/// How far the pods' veths are guarded.
#[derive(Debug)]
pub struct Guarded {
    /// On how many of them each program of [`Hook::POD`] runs.
    pub veths: [u64; 2],
    /// What went wrong on the others.
    pub errors: Vec<ReconcileError>,
}

/// Replaces the programs of an earlier build, one hook after the other, while the entries of its maps are carried over. What the
/// kernel translates is in there; if a program was missing, the first sweep asks for it. A veth that fails keeps the old maps alive until it is repaired.
pub fn upgrade(
    pins: &Pins,
    nic: &str,
    registry: &mut Registry,
    carry: &mut Carry,
) -> anyhow::Result<()> {
    carry.begin(registry)?;
    let mut was_missing = false;
    for hook in Hook::NIC {
        was_missing |= attach_to_nic(pins, nic, hook)? == Outcome::Attached;
    }
    for hook in Hook::POD {
        for veth in registry.host_veths()? {
            match attach_missing(pins, hook, &veth.name) {
                Ok(outcome) => was_missing |= outcome == Some(Outcome::Attached),
                Err(error) => {
                    error!(%error, "replace a program on a pod's veth");
                    carry.take_time();
                    return Ok(());
                }
            }
        }
    }
    if was_missing {
        carry.leave_to_the_sweep();
    }
    carry.finish(registry)
}

/// Attaches, to these host veths, the programs that do not run there or that are older than the pinned ones. Goes on after
/// an error and returns all of them: one bad veth must not leave the others unguarded.
pub fn guard_pods(
    pins: &Pins,
    registry: &mut Registry,
    run: &RunDirectory,
    veths: &[PodVeth],
) -> Guarded {
    let [learns, decides] = Hook::POD;
    let (mut errors, mut learning) = (Vec::new(), Vec::new());
    let mut is_new = false;
    let look = Look::open(pins, &Hook::POD);
    let attach_missing = |hook: Hook, veth: &PodVeth| match &look {
        Ok(look) if look.runs(hook, veth.ifindex) => Ok(None),
        Ok(_) | Err(_) => attach_missing(pins, hook, &veth.name),
    };
    for veth in veths {
        match attach_missing(learns, veth) {
            Ok(outcome) => {
                is_new |= outcome.is_some();
                learning.push(veth);
            }
            Err(error) => errors.push(error.into()),
        }
    }
    // What began while nobody looked, or was told to a table that is not read any more, must be known before anything is
    // decided, as on the NIC.
    if is_new && let Err(error) = conntrack::take_over_or_fill(registry, run) {
        errors.push(error.into());
    }
    let mut veths = [learning.len() as u64, 0];
    for veth in learning {
        match attach_missing(decides, veth) {
            Ok(_) => veths[1] += 1,
            Err(error) => errors.push(error.into()),
        }
    }
    Guarded { veths, errors }
}

/// Attaches a program to a pod's host veth where it does not run, or where an older one than the pinned one does. `None`: it
/// runs already, or the veth is gone.
fn attach_missing(pins: &Pins, hook: Hook, ifname: &str) -> Result<Option<Outcome>, AttachError> {
    if hooks::runs(pins, hook, ifname) {
        return Ok(None);
    }
    match hooks::attach(pins, hook, &mut hooks::open(pins, hook)?, ifname) {
        Ok(Outcome::Replaced) => {
            info!(interface = ifname, program = hook.program, "replaced");
            Ok(Some(Outcome::Replaced))
        }
        Ok(Outcome::Attached) => {
            warn!(
                interface = ifname,
                program = hook.program,
                "was not attached: attached anew"
            );
            Repair::Program.count();
            Ok(Some(Outcome::Attached))
        }
        // Deleted meanwhile.
        Err(_) if if_nametoindex(ifname).is_err() => Ok(None),
        Err(error) => Err(error),
    }
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

/// When are maps and records brought together?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// At a start: what the maps do not have, they have lost.
    Starting,
    /// Later: it may also be what an ADD has recorded, and is about to register.
    Running,
}

/// Brings maps and records together, in both directions. Goes on after an error and returns all of them.
pub fn reconcile(
    registry: &mut Registry,
    pins: &Pins,
    run: &RunDirectory,
    boot_id: &str,
    when: When,
) -> Vec<ReconcileError> {
    let mut errors = Vec::new();
    for path in files(&run.endpoints(), "deleted") {
        if let Err(error) = replay_tombstone(registry, &path) {
            errors.push(error);
        }
    }
    let names = Names::open();
    let lives = |endpoint: &Endpoint| {
        let index = endpoint.host_ifindex;
        let is_there = match names.of(index) {
            Some(name) => name == endpoint.host_ifname,
            None => !names.lacks(index),
        };
        endpoint.boot_id == boot_id && is_there
    };
    let (living, gone): (Vec<_>, Vec<_>) = endpoints(run).into_iter().partition(lives);
    for endpoint in &gone {
        errors.extend(registry.unregister(endpoint).err().map(Into::into));
    }
    errors.extend(learn_of_lost(registry, pins, run, &living).err());
    for endpoint in &living {
        errors.extend(restore(registry, pins, endpoint, when).err());
    }
    match registry.remove_dead() {
        Ok(0) => {}
        Ok(pods) => {
            info!(pods, "removed pods whose interface is gone");
            Repair::DeadEntry.count();
        }
        Err(error) => errors.push(error.into()),
    }
    errors
}

/// Veths of endpoints that the maps have lost may run programs of lost maps: what those have learnt is lost, too.
fn learn_of_lost(
    registry: &mut Registry,
    pins: &Pins,
    run: &RunDirectory,
    living: &[Endpoint],
) -> Result<(), ReconcileError> {
    let [learns, _] = Hook::POD;
    let mut is_new = false;
    for endpoint in living {
        if registry.registered(endpoint.address.addr())?.is_none() {
            is_new |= attach_missing(pins, learns, &endpoint.host_ifname)?.is_some();
        }
    }
    if is_new {
        conntrack::take_over_or_fill(registry, run)?;
    }
    Ok(())
}

/// Puts an endpoint that the maps have lost back; its veth may run programs of lost maps, or none.
fn restore(
    registry: &mut Registry,
    pins: &Pins,
    endpoint: &Endpoint,
    when: When,
) -> Result<(), ReconcileError> {
    let address = endpoint.address.addr();
    let lost = match registry.registered(address)? {
        // An older loader did not know of modes.
        Some(pod)
            if pod.ifindex.get() == endpoint.host_ifindex && pod.flags != flags_of(endpoint) =>
        {
            info!(endpoint = %endpoint.key, mode = endpoint.mode, "the mode takes effect");
            Lost::Nothing
        }
        Some(pod)
            if pod.ifindex.get() == endpoint.host_ifindex
                && registry.inspect(endpoint).is_err() =>
        {
            Lost::Part
        }
        Some(_) => return Ok(()),
        None if when == When::Starting || registry.known.contains_key(&address.into()) => Lost::All,
        None => Lost::Nothing,
    };
    for hook in Hook::POD {
        attach_missing(pins, hook, &endpoint.host_ifname)?;
    }
    registry.register(pins, endpoint)?;
    match lost {
        Lost::Nothing => {}
        Lost::Part => {
            warn!(endpoint = %endpoint.key, %address, "the maps had lost part of an endpoint: restored");
        }
        Lost::All => {
            warn!(endpoint = %endpoint.key, %address, "the maps had lost an endpoint: restored");
            Repair::Endpoint.count();
        }
    }
    Ok(())
}

/// What the maps had of an endpoint, and have not.
enum Lost {
    Nothing,
    Part,
    All,
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
    remove_durably(path)?;
    Repair::Tombstone.count();
    Ok(())
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

pub(crate) fn files(directory: &Path, extension: &str) -> Vec<std::path::PathBuf> {
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
