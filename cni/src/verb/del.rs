//! DEL: needs neither the namespace, nor `prevResult`, nor the pod's name, nor the loader, nor a good configuration.

use std::time::Duration;

use rpc::{Key, StateError, leases, netns_lives};

use super::address::{Known, give_back};
use super::gc::attachments;
use super::{ADD_LIMIT, Node, UNDO, key};
use crate::error::Error;
use crate::lock::Lock;
use crate::names;
use crate::program::Call;
use crate::teardown::{Mark, disconnect, remove_veth};
use netconf::{Args, Leaving, Mode, NetconfError, OnlyIf};

/// How long to wait for another call on the same attachment: longer than an ADD may take, however it ends.
const PATIENCE: Duration = ADD_LIMIT
    .saturating_add(UNDO)
    .saturating_add(Duration::from_secs(5));

/// Takes the attachment away. Nothing there is success.
pub(super) fn del(call: &mut Call) -> Result<(), Error> {
    call.with_stdin(|call, stdin| match Leaving::parse(stdin) {
        Ok(current) => del_from(call, &current),
        Err(broken) => del_without_name(call, broken),
    })
}

fn del_from(call: &mut Call, current: &Leaving<'_>) -> Result<(), Error> {
    call.require_root()?;
    if let Some(complaint) = &current.complaint {
        call.warn(&format_args!("passed over at DEL: {complaint}"));
    }
    let node = Node::open(&call.deadline)?;
    release(call, &node, &key(call, &current.name), Some(current))
}

/// With a broken configuration the network's name is unknown: what was made or begun for this container and interface goes.
fn del_without_name(call: &mut Call, broken: NetconfError) -> Result<(), Error> {
    call.require_root()?;
    let step = call.steps.current();
    let node = Node::open(&call.deadline)?;
    let there = attachments(&node)?;
    let mut left = there.unreadable;
    for key in there.keys {
        if (&key.container_id, &key.ifname) != (&call.env.container_id, &call.env.ifname) {
            continue;
        }
        match says_whom_to_ask(&node, &key) {
            Ok(true) => left.extend(release(call, &node, &key, None).err()),
            Ok(false) => {}
            Err(error) => left.push(error.into()),
        }
    }
    Err(Error::At {
        step,
        source: Box::new(broken.into()),
        left,
    })
}

/// Whose the address of a damaged record is, or of one of another boot, only a good configuration tells.
fn says_whom_to_ask(node: &Node, key: &Key) -> Result<bool, StateError> {
    node.records.require_whole(key)?;
    Ok(node.records.get(key)?.is_some() || !node.records.has(key)?)
}

fn release(
    call: &mut Call,
    node: &Node,
    key: &Key,
    current: Option<&Leaving<'_>>,
) -> Result<(), Error> {
    call.steps.begin("lock");
    let lock = Lock::acquire(&node.lock_of(key), node.deadline.spare(PATIENCE))?;
    if let Some(only_if) = call.env.only_if
        && !may_go(node, key, only_if)?
    {
        return Ok(());
    }
    release_locked(call, node, key, current, lock)
}

/// Takes away what is recorded, or was being made, for `key`, whose lock the caller holds.
pub(super) fn release_locked(
    call: &mut Call,
    node: &Node,
    key: &Key,
    current: Option<&Leaving<'_>>,
    lock: Lock,
) -> Result<(), Error> {
    let was_interrupted = !lock.draft().is_empty();
    let known = Known::of(node, key, &lock)?;
    let record = &known.record;

    // The veth goes before the loader forgets it: a reconciliation in between would only take a live one back.
    call.steps.begin("links");
    match record {
        Some(record) => disconnect(node, record)?,
        None => remove_orphans(call, node, key, known.begun)?,
    }

    call.steps.begin("unregister");
    let needs_tombstone = record
        .as_ref()
        .is_some_and(|record| node.loader.unregister(&record.endpoint).is_err());

    call.steps.begin("ipam");
    give_back(call, node, current, key, &known)?;

    call.steps.begin("record");
    match record {
        Some(record) if needs_tombstone => node.records.bury(record)?,
        Some(_) | None => node.records.remove(key)?,
    }
    if was_interrupted {
        node.records.sweep(key)?;
    }
    Ok(lock.end()?)
}

/// Whether the attachment is as dead as this DEL insists on, as far as lease and record tell. Where there is neither, there is
/// nothing to free.
fn may_go(node: &Node, key: &Key, only_if: OnlyIf) -> Result<bool, Error> {
    let mut leases = leases(&node.run).into_iter().filter_map(|(_, lease)| lease);
    let lease = leases.find(|lease| lease.key == *key);
    let record = node.records.get(key)?;
    let lives = match (&lease, record.map(|record| record.endpoint.netns)) {
        (None, None) => return Ok(false),
        (None, Some(netns)) => netns_lives(&netns),
        // The lease knows the namespace itself, not just its path.
        (Some(lease), None) => lease.lives(),
        (Some(lease), Some(netns)) if lease.netns == netns => lease.lives(),
        // Who lives by either of them lives.
        (Some(lease), Some(netns)) => lease.lives().max(netns_lives(&netns)),
    };
    let unknown = || Error::Unknown { key: key.clone() };
    only_if.allows(lives).ok_or_else(unknown)
}

/// With no readable record: the veth that ADD would have made for this attachment. By its name; and by its address, if `CNI_ARGS` does
/// not say the pod's name, or a record or a draft says that an ADD had begun.
fn remove_orphans(call: &Call, node: &Node, key: &Key, has_begun: bool) -> Result<(), Error> {
    let (host_mac, _) = names::macs(key);
    let args = Args::parse(&call.env.args).unwrap_or_default();
    for name in names::host_veths(Mode::Transparent, key, &args) {
        remove_veth(node, &name, Mark::Mac(host_mac))?;
    }
    if has_begun || args.require_pod().is_err() {
        for link in node.netlink.with_mac(host_mac)? {
            if names::is_host_veth(&link.name) {
                remove_veth(node, &link.name, Mark::Mac(host_mac))?;
            }
        }
    }
    Ok(())
}
