//! What an ADD or DEL changes: a list of steps, of which a crash may have done any first part.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use rpc::{Key, Lease, Pools};

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
        plugin: wish.plugin.clone(),
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
    if lease.netns == wish.netns && lease.plugin == wish.plugin {
        return (lease, Vec::new());
    }
    let lease = Lease {
        netns: wish.netns.clone(),
        plugin: wish.plugin.clone(),
        ..lease
    };
    let changes = vec![
        Change::WriteOwner(lease.clone()),
        Change::WriteLease(lease.clone()),
    ];
    (lease, changes)
}

/// The steps that take back what `key` has; if it has nothing, what Azure's plug-in gave to its container.
pub(super) fn plan_del(store: &Store, key: &Key, now_ms: u64) -> Result<Vec<Change>, Error> {
    let mut changes = Vec::new();
    let lease = match store.lease_of(key)? {
        Some(lease) => Some(lease),
        None => store.taken_over(key)?,
    };
    if let Some(lease) = lease {
        changes.push(Change::Mark(lease.ip, now_ms));
        changes.push(Change::RemoveLease(lease.ip));
        if lease.key != *key {
            changes.push(Change::RemoveOwner(lease.key));
        }
    }
    changes.push(Change::RemoveOwner(key.clone()));
    Ok(changes)
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
