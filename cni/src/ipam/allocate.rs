//! What an ADD or DEL changes: a list of steps, of which a crash may have done any first part.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use rpc::{Key, Lease, NetnsId, Pools, View};

use super::IpamError;
use super::choose::{Ledger, Rest, choose, exhausted};
use super::pools::{self, Pool};
use super::store::{Change, Store};
use crate::error::Error;

/// What is asked for.
#[derive(Clone, Debug)]
pub(super) struct Wish {
    pub(super) key: Key,
    /// Exactly this address.
    pub(super) address: Option<Ipv4Addr>,
    /// Only this subnet.
    pub(super) subnet: Option<Ipv4Net>,
    /// Only this NIC.
    pub(super) master: Option<String>,
    /// The pod's network namespace, and the main plug-in: for those who look for addresses that nobody uses any more.
    pub(super) netns: String,
    pub(super) plugin: String,
}

/// The lease for `wish`, and the steps to it; when the owner has one already, that one, which needs no pools.
///
/// `None` as lease: there must be one, but no pools are known.
pub(super) fn plan_add(
    store: &Store,
    wish: &Wish,
    pools: Option<&Pools>,
    rest: Rest,
    now_ms: u64,
) -> Result<Option<(Lease, Vec<Change>)>, Error> {
    if let Some(lease) = store.lease_of(&wish.key)? {
        return match wish.address {
            Some(wanted) if wanted != lease.ip => Err(IpamError::HasAnother {
                key: wish.key.clone(),
                has: lease.ip,
                wanted,
            }
            .into()),
            Some(_) | None => Ok(Some(kept(lease, wish))),
        };
    }
    let Some(pools) = pools else {
        return Ok(None);
    };
    let usable = pools::usable(pools, wish.subnet, wish.master.as_deref())?;
    let ledger = store.ledger()?;
    let (pool, ip) = match wish.address {
        Some(wanted) => exactly(&usable, &ledger, wanted)?,
        None => choose(&usable, &ledger, rest, now_ms)
            .ok_or_else(|| IpamError::Exhausted(exhausted(&usable, &ledger).unwrap_or_default()))?,
    };
    let lease = Lease {
        key: wish.key.clone(),
        ip,
        prefix: pool.prefix.prefix_len(),
        gateway: pool.gateway,
        boot_id: store.boot_id().to_owned(),
        netns: wish.netns.clone(),
        netns_id: NetnsId::at(&wish.netns),
        plugin: wish.plugin.clone(),
        view: View::here(),
    };
    let mut changes = vec![
        Change::WriteOwner(lease.clone()),
        Change::WriteLease(lease.clone()),
    ];
    if ledger.released.contains_key(&ip) {
        changes.push(Change::Unmark(ip));
    }
    Ok(Some((lease, changes)))
}

/// The lease that the owner has, of a container that may have started again in another namespace: whoever looks for
/// addresses of namespaces that are gone must not find this one.
fn kept(lease: Lease, wish: &Wish) -> (Lease, Vec<Change>) {
    let now = Lease {
        netns: wish.netns.clone(),
        netns_id: NetnsId::at(&wish.netns),
        plugin: wish.plugin.clone(),
        view: View::here(),
        ..lease.clone()
    };
    if now == lease {
        return (lease, Vec::new());
    }
    let lease = now;
    let changes = vec![
        Change::WriteOwner(lease.clone()),
        Change::WriteLease(lease.clone()),
    ];
    (lease, changes)
}

/// The steps that take back what `key` has; if it has nothing, what Azure's plug-in gave to its container. `address`: of what
/// Azure's plug-in gave only this, to whose owner nothing else happens; its owner may be unknown.
pub(super) fn plan_del(
    store: &Store,
    key: &Key,
    address: Option<Ipv4Addr>,
    now_ms: u64,
) -> Result<Vec<Change>, Error> {
    if let Some(address) = address {
        for container_id in [key.container_id.as_str(), ""] {
            let all = store.taken_over(&key.network, container_id)?;
            if all.iter().any(|lease| lease.ip == address) {
                return Ok(take(all, |lease| lease.ip == address, now_ms));
            }
        }
    }
    let own = store.lease_of(key)?.filter(|own| !own.is_taken_over());
    let leases = match (own, address) {
        (Some(lease), _) => vec![lease],
        (None, None) => store.taken_over(&key.network, &key.container_id)?,
        // It is not there any more, and the container may have others that are in use.
        (None, Some(_)) => Vec::new(),
    };
    let mut changes = take(leases, |_| true, now_ms);
    changes.push(Change::RemoveOwner(key.clone()));
    Ok(changes)
}

/// Takes those leases back that are `going`, and their owners unless they keep one.
fn take(leases: Vec<Lease>, going: impl Fn(&Lease) -> bool, now_ms: u64) -> Vec<Change> {
    let (going, staying): (Vec<Lease>, Vec<Lease>) = leases.into_iter().partition(going);
    let mut changes = Vec::new();
    for lease in &going {
        changes.push(Change::Mark(lease.ip, now_ms));
        changes.push(Change::RemoveLease(lease.ip));
    }
    let mut owners: BTreeSet<Key> = going.into_iter().map(|lease| lease.key).collect();
    owners.retain(|owner| staying.iter().all(|lease| lease.key != *owner));
    changes.extend(owners.into_iter().map(Change::RemoveOwner));
    changes
}

/// An address that somebody insists on; it need not have rested.
fn exactly<'a>(
    pools: &'a [Pool],
    ledger: &Ledger,
    wanted: Ipv4Addr,
) -> Result<(&'a Pool, Ipv4Addr), IpamError> {
    let pool = pools
        .iter()
        .find(|pool| pool.addresses.binary_search(&wanted).is_ok())
        .ok_or(IpamError::NotFound { address: wanted })?;
    if ledger.leased.contains(&wanted) {
        return Err(IpamError::InUse { address: wanted });
    }
    Ok((pool, wanted))
}
