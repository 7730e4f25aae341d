//! Which flows are the kernel's connection tracking's? Asked whenever programs are attached anew, before those that decide,
//! and before a flow table that was full counts as complete again.
//!
//! Programs whose table `flows` lacks a translated flow would take its answers past netfilter, which then cannot translate
//! them back: every open connection to a Service or through masquerading would break. So would one that somebody on the
//! Internet has opened to a pod's own address while the table was full: the programs would translate the pod's answers,
//! which the kernel does not. It stays with the kernel, where the programs themselves leave it when they have room to say
//! so: a connection that changes sides loses what else netfilter knows of it, such as its window.

mod entry;

use std::collections::{BTreeSet, HashSet};
use std::io;

use abi::{Class, Flow, FlowKey, Ip4};
use aya::maps::MapError;
use datapath::Seconds;
use hooks::Abi;
use nix::errno::Errno;
use rpc::RunDirectory;
use rtnetlink::sys::protocols::NETLINK_NETFILTER;
use tracing::{info, warn};

use crate::registry::{Registry, RegistryError, map_error, removed};
use crate::{gc, reconcile};
use entry::{Entry, Message};

/// `BPF_NOEXIST` of `linux/bpf.h`.
const NO_EXIST: u64 = 1;

/// The kernel's flows cannot be learnt.
#[derive(Debug, thiserror::Error)]
pub enum ConntrackError {
    /// The kernel does not answer, or what is no netlink.
    #[error(
        "ask for the tracked connections: {0}; is the kernel module nf_conntrack_netlink there?"
    )]
    Netlink(#[from] io::Error),
    /// The table cannot be read or written.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

impl ConntrackError {
    /// Whether this kernel will never tell: it was built without `nf_conntrack_netlink`, or does not load it.
    fn is_lasting(&self) -> bool {
        matches!(self, Self::Netlink(source) if matches!(
            source.raw_os_error().map(Errno::from_raw),
            Some(Errno::EPROTONOSUPPORT | Errno::EINVAL | Errno::EOPNOTSUPP)
        ))
    }
}

/// What a preload did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Preloaded {
    /// Entries of connection tracking that are for the programs to know.
    known: u32,
    /// Flows that were added.
    added: u32,
    /// Flows that found no room: until there is, whatever is not in the table takes the stack.
    lost: u32,
}

/// Adds the kernel's connections to `flows`. While that is not possible, whatever is not in there takes the stack.
pub fn take_over_or_fill(registry: &mut Registry, run: &RunDirectory) -> Result<(), RegistryError> {
    let lost = registry.flows_lost()?;
    if take_over(registry, run) {
        Ok(())
    } else {
        registry.set_flows_full(true, lost)
    }
}

/// Adds the kernel's connections to `flows`, and says what came of it.
///
/// `false`: the table must count as full, because some found no room or could not be read. A kernel without the interface
/// is no reason: it has none to offer at any later time, and only connections that are open now may break.
pub fn take_over(registry: &mut Registry, run: &RunDirectory) -> bool {
    let known = registry.pods().unwrap_or_default().into_iter();
    let recorded = reconcile::endpoints(run).into_iter();
    let pods = known
        .map(|(addr, _)| addr)
        .chain(recorded.map(|endpoint| endpoint.address.addr().into()))
        .collect();
    match preload(registry, &pods) {
        Ok(done) if done.lost > 0 => {
            warn!(
                ?done,
                "the flow table has no room for all connections of the kernel: until it has, flows that are not in it take \
                 the kernel's path"
            );
            false
        }
        Ok(done) => {
            info!(?done, "connections of the kernel taken over");
            true
        }
        Err(error) => {
            warn!(
                %error,
                "the kernel's connections are not known: those of pods to Services, host ports or through \
                 masquerading that are open now may break"
            );
            error.is_lasting()
        }
    }
}

/// Writes a flow that takes the stack for every connection of `pods` that must. What the table says already stays.
fn preload(registry: &mut Registry, pods: &BTreeSet<Ip4>) -> Result<Preloaded, ConntrackError> {
    let mut done = Preloaded::default();
    // Nothing to ask for on a fresh node.
    if pods.is_empty() {
        return Ok(done);
    }
    let now = gc::now();
    // Every IPv4 entry of this network namespace.
    hooks::dump(NETLINK_NETFILTER, Message::Ask, |answer| match answer {
        Message::Entry(entry) => add(registry, pods, &entry, now, &mut done),
        Message::Ask | Message::Other => Ok(()),
    })?;
    Ok(done)
}

/// Takes flows that came into the stack since only these were `known` out of the table, so that they go fast again: between pods and
/// to where nothing is translated, and only those that the kernel does not translate either. Returns how many.
pub(crate) fn give_back(
    registry: &mut Registry,
    known: &HashSet<FlowKey>,
) -> Result<usize, ConntrackError> {
    let pods: BTreeSet<Ip4> = registry.pods()?.into_iter().map(|(addr, _)| addr).collect();
    let mut newer = Vec::new();
    for key in registry.maps.flows.keys() {
        let Abi(key) = key.map_err(map_error("list the flows", "flows"))?;
        if !known.contains(&key) && is_direct(registry, &pods, &key)? {
            newer.push(key);
        }
    }
    // Asked afterwards: the kernel knew of a translation before any program saw its flow.
    let mut translated = HashSet::new();
    hooks::dump(NETLINK_NETFILTER, Message::Ask, |answer| {
        if let Message::Entry(entry) = answer
            && entry.untranslated().is_none()
        {
            translated.extend(entry.flows());
        }
        Ok::<_, ConntrackError>(())
    })?;
    newer.retain(|key| !translated.contains(key));
    forget(registry, &newer)?;
    // What the programs have cached of them may just have been learnt again.
    registry.next_epoch()?;
    forget(registry, &newer)?;
    Ok(newer.len())
}

fn forget(registry: &mut Registry, flows: &[FlowKey]) -> Result<(), RegistryError> {
    let mut flows = flows.iter();
    flows.try_for_each(|key| {
        removed(registry.maps.flows.remove(&Abi(*key))).map_err(map_error("remove a flow", "flows"))
    })
}

/// Whether neither end's address would be translated: both are pods of this node, or one is, and the other has class `direct`.
fn is_direct(
    registry: &Registry,
    pods: &BTreeSet<Ip4>,
    key: &FlowKey,
) -> Result<bool, RegistryError> {
    let other = match (pods.contains(&key.low), pods.contains(&key.high)) {
        (true, true) => return Ok(true),
        (true, false) => key.high,
        (false, true) => key.low,
        (false, false) => return Ok(false),
    };
    Ok(registry.class_of(other.into())? == Class::Direct)
}

fn add(
    registry: &mut Registry,
    pods: &BTreeSet<Ip4>,
    entry: &Entry,
    now: Seconds,
    done: &mut Preloaded,
) -> Result<(), ConntrackError> {
    if let Some((src, dst)) = entry.untranslated()
        && (!pods.contains(&dst) || registry.class_of(src.into())? != Class::Snat)
    {
        return Ok(());
    }
    done.known += 1;
    let value = Abi(Flow::new(entry.flags(), now.0));
    for key in entry.flows() {
        if !is_asked_for(registry, pods, key.low, key.high)? {
            continue;
        }
        match registry.maps.flows.insert(Abi(key), value, NO_EXIST) {
            Ok(()) => done.added += 1,
            Err(error) if is(&error, io::ErrorKind::AlreadyExists) => {}
            // E2BIG of a full hash table.
            Err(error) if is(&error, io::ErrorKind::ArgumentListTooLong) => done.lost += 1,
            Err(error) => return Err(map_error("add a flow", "flows")(error).into()),
        }
    }
    Ok(())
}

/// Whether a program will look for the flow: one end is a pod of this node, and the other is none to which everything
/// takes the stack anyway.
fn is_asked_for(
    registry: &Registry,
    pods: &BTreeSet<Ip4>,
    low: Ip4,
    high: Ip4,
) -> Result<bool, RegistryError> {
    let other = match (pods.contains(&low), pods.contains(&high)) {
        (true, true) => return Ok(true),
        (true, false) => high,
        (false, true) => low,
        (false, false) => return Ok(false),
    };
    Ok(registry.class_of(other.into())? != Class::Stack)
}

fn is(error: &MapError, kind: io::ErrorKind) -> bool {
    matches!(error, MapError::SyscallError(error) if error.io_error.kind() == kind)
}
