//! Which flows are the kernel's connection tracking's? Asked whenever programs are attached anew, before those that decide,
//! and before a flow table that was full counts as complete again.
//!
//! Programs whose table `flows` lacks a translated flow would take its answers past netfilter, which then cannot translate
//! them back: every open connection to a Service or through masquerading would break. So would one that somebody on the
//! Internet has opened to a pod's own address while the table was full: the programs would translate the pod's answers,
//! which the kernel does not. It stays with the kernel, where the programs themselves leave it when they have room to say
//! so: a connection that changes sides loses what else netfilter knows of it, such as its window.

mod entry;

use std::collections::BTreeSet;
use std::io;

use abi::{Class, Flow, Ip4};
use aya::maps::MapError;
use datapath::Seconds;
use hooks::Abi;
use nix::errno::Errno;
use rpc::RunDirectory;
use rtnetlink::sys::protocols::NETLINK_NETFILTER;
use tracing::{info, warn};

use crate::registry::{Registry, RegistryError, map_error};
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
