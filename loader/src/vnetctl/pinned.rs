//! What the kernel holds, read from the pins: the same with the loader as without it.

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;

use anyhow::Context as _;
use aya::maps::{MapError, MapInfo};
use hooks::{Abi, Maps, Pins};
use rpc::{Endpoint, RunDirectory};

use crate::census::PodsByAddress;
use crate::podname;
use crate::reconcile::endpoints;

/// Rows that are shown unless more are asked for.
pub(super) const ROWS: usize = 1000;

/// The pinned maps, and the records that name what is in them.
pub(super) struct Pinned {
    pub(super) pins: Pins,
    pub(super) maps: Maps,
    pub(super) records: Vec<Endpoint>,
}

impl Pinned {
    pub(super) fn open() -> anyhow::Result<Self> {
        let pins = Pins::default();
        Ok(Self {
            maps: Maps::from_pins(&pins)?,
            pins,
            records: endpoints(&RunDirectory::default()),
        })
    }

    pub(super) fn pods(&self) -> anyhow::Result<PodsByAddress> {
        crate::gc::pods(&self.maps).context("read the pinned map `pods`")
    }

    /// Namespace and name of the pod with an address, as far as a record tells.
    pub(super) fn names(&self) -> HashMap<Ipv4Addr, String> {
        let name = |record: &Endpoint| (record.address.addr(), podname::name(record));
        self.records.iter().map(name).collect()
    }

    /// The addresses that an operator means by `pod`: an address, a name, or namespace and name.
    pub(super) fn addresses_of(&self, pod: &str) -> anyhow::Result<Vec<Ipv4Addr>> {
        if let Ok(address) = pod.parse() {
            return Ok(vec![address]);
        }
        let is_meant = |record: &&Endpoint| record.pod_name == pod || podname::name(record) == pod;
        let meant = self.records.iter().filter(is_meant);
        let addresses: Vec<Ipv4Addr> = meant.map(|record| record.address.addr()).collect();
        anyhow::ensure!(
            !addresses.is_empty(),
            "find pod `{pod}`: no record has this name; `vnetctl endpoints` lists the pods of this node"
        );
        Ok(addresses)
    }

    /// How many entries a table may have. A walk takes no more steps: deletions meanwhile can send it back to the start.
    pub(super) fn capacity(&self, map: &str) -> anyhow::Result<usize> {
        let entries = MapInfo::from_pin(self.pins.map(map)).map(|info| info.max_entries());
        Ok(usize::try_from(entries.with_context(|| {
            format!("look at the pinned map `{map}`")
        })?)?)
    }
}

/// Everything that a walk over a table finds, each key once: a walk that begins anew meets entries again. Those that vanish
/// meanwhile are none.
pub(super) fn walk<K: Ord, V>(
    entries: impl Iterator<Item = Result<(Abi<K>, Abi<V>), MapError>>,
    capacity: usize,
) -> Result<BTreeMap<K, V>, MapError> {
    let mut found = BTreeMap::new();
    for entry in entries.take(capacity) {
        match entry {
            Ok((key, value)) => drop(found.insert(key.0, value.0)),
            Err(MapError::KeyNotFound) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// `1000 of 262144 shown` where it is so.
pub(super) fn tail(shown: usize, total: usize) -> String {
    if shown == total {
        return String::new();
    }
    format!("{shown} of {total} shown; --limit {total} shows all\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_that_begins_anew_finds_each_key_once_and_one_that_is_refused_is_an_error() {
        let entries = |last| {
            let vanished = Err(MapError::KeyNotFound);
            let found = |key, value| Ok((Abi(key), Abi(value)));
            [found(1, 'a'), found(2, 'b'), vanished, found(1, 'c'), last].into_iter()
        };
        let found = walk(entries(Ok((Abi(3), Abi('d')))), 9).unwrap();
        assert_eq!(found, BTreeMap::from([(1, 'c'), (2, 'b'), (3, 'd')]));
        let refused = MapError::SyscallError(aya::sys::SyscallError {
            call: "bpf_map_get_next_key",
            io_error: std::io::ErrorKind::PermissionDenied.into(),
        });
        assert!(walk(entries(Err(refused)), 9).is_err());
    }
}
