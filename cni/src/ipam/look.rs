//! GC and STATUS of the IPAM plug-in: what is given that should not be, and whether anything is left to give.

use netconf::{Environment, Netconf};
use rpc::Key;

use super::{Going, Ipam, IpamError, choose, file, pools, takeover};
use crate::error::Error;
use crate::loader::Loader;
use crate::lock::Lock;
use crate::program::Call;
use crate::record::{Records, make_directory};
use crate::verb::{GcError, StatusError, gc_complaint, valid_attachments};

/// Frees the addresses of this network that the runtime does not know of. Runs under any main plug-in.
pub(super) fn gc(call: &mut Call) -> Result<(), Error> {
    let netconf = Netconf::parse_for_ipam(&call.stdin)?;
    let valid = valid_attachments(call, &netconf)?;
    call.require_root()?;
    call.steps.begin("collect");
    let ipam = Ipam::open(&call.deadline)?;
    make_directory(&ipam.run.locks())?;
    let (mut owners, unreadable) = ipam.with_store(|store| Ok(store.owners()?))?;
    owners.retain(|key| key.network == netconf.name && !valid.keep(&key.container_id, &key.ifname));
    let mut failures: Vec<Error> = unreadable.into_iter().map(Error::from).collect();
    for key in owners {
        failures.extend(free(&ipam, &key).err());
    }
    failures.extend(gc_complaint(&valid));
    GcError::of(failures)
}

/// Frees one, unless azure-vnet is making the attachment just now, or has it and could not remove it.
fn free(ipam: &Ipam, key: &Key) -> Result<(), Error> {
    let path = ipam.run.locks().join(key.file_name());
    let Some(lock) = Lock::try_acquire(&path, &ipam.deadline)? else {
        return Ok(());
    };
    let is_attached = !lock.draft().is_empty() || Records::open(&ipam.run)?.has(key)?;
    if is_attached {
        return Ok(());
    }
    ipam.take_back(key, Going::default())
}

/// Is there an address to give, now or after its rest?
pub(super) fn status(call: &mut Call) -> Result<(), Error> {
    let netconf = Netconf::parse_for_ipam(&call.stdin)?;
    call.require_verb(netconf.version)?;
    call.require_root()?;
    let ipam = Ipam::open(&call.deadline)?;
    let known = match netconf.ipam.environment {
        Environment::Azure => ipam.cached_pools().map_or_else(
            || {
                let fresh = Loader::of(&ipam.run, &ipam.deadline).refresh_pools();
                fresh.map_err(|source| IpamError::NoPools { source })
            },
            Ok,
        ),
        Environment::File => file::read(&ipam.boot_id),
    }
    .map_err(StatusError::unavailable)?;
    let usable = pools::usable(&known, netconf.ipam.subnet, netconf.master.as_deref())
        .map_err(StatusError::unavailable)?;
    let ledger = ipam
        .with_store(|store| {
            takeover::take_over(&ipam.run, store)?;
            Ok(store.ledger()?)
        })
        .map_err(StatusError::unavailable)?;
    match choose::exhausted(&usable, &ledger) {
        None => Ok(()),
        Some(exhausted) => Err(StatusError::unavailable(IpamError::Exhausted(exhausted))),
    }
}
