//! How many of the pods' addresses are used, free, and resting.

use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;

use rpc::{COOL_DOWN_MS, Pools, RunDirectory};

use crate::pools::boottime_ms;

/// The pools' addresses, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Addresses {
    /// Given to somebody.
    pub(crate) used: u64,
    /// Given back a moment ago.
    pub(crate) cooling: u64,
    /// Those that the next ADD could get.
    pub(crate) free: u64,
}

impl Addresses {
    /// By the names of the IPAM plug-in's files: two listings.
    pub(crate) fn count(run: &RunDirectory, pools: Option<&Pools>) -> Self {
        let subnets = pools.into_iter().flat_map(|pools| &pools.interfaces);
        let subnets = subnets.flat_map(|interface| &interface.subnets);
        let all = subnets.flat_map(|subnet| subnet.secondary.iter().copied());
        let leased: BTreeSet<Ipv4Addr> =
            names(&run.leases()).flat_map(|name| name.parse()).collect();
        let now = boottime_ms();
        let resting: BTreeSet<Ipv4Addr> = names(&run.released())
            .filter_map(|name| resting(&name, now))
            .collect();
        let mut counted = Self {
            // Those of a pool that is gone, or of another source than ours, too.
            used: u64::try_from(leased.len()).unwrap_or(u64::MAX),
            ..Self::default()
        };
        for address in all.filter(|address| !leased.contains(address)) {
            if resting.contains(&address) {
                counted.cooling += 1;
            } else {
                counted.free += 1;
            }
        }
        counted
    }
}

/// The address that a mark `<address>@<ms>` is about, if it rests at `now`.
fn resting(mark: &str, now: u64) -> Option<Ipv4Addr> {
    let (address, at_ms) = mark.split_once('@')?;
    let at_ms: u64 = at_ms.parse().ok()?;
    (at_ms.saturating_add(COOL_DOWN_MS) > now).then_some(address.parse().ok()?)
}

fn names(directory: &Path) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use rpc::{Interface, MacAddr, Subnet};

    use super::*;

    #[test]
    fn every_address_of_the_pools_is_used_free_or_resting() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDirectory::at(dir.path());
        for directory in [run.leases(), run.released()] {
            fs::create_dir_all(directory).unwrap();
        }
        let now = boottime_ms();
        for path in [
            run.leases().join("10.0.0.5"),
            run.leases().join("10.0.0.6.123.tmp"),
            run.released().join(format!("10.0.0.5@{now}")),
            run.released().join(format!("10.0.0.6@{now}")),
            run.released().join("10.0.0.7@0"),
        ] {
            fs::write(path, "").unwrap();
        }
        let subnet = Subnet {
            prefix: "10.0.0.0/24".parse().unwrap(),
            primary: None,
            secondary: (5..=8).map(|last| Ipv4Addr::new(10, 0, 0, last)).collect(),
        };
        let pools = Pools {
            boot_id: String::new(),
            source: String::new(),
            read_at_ms: 0,
            interfaces: vec![Interface {
                name: "eth0".into(),
                mac: MacAddr([2; 6]),
                is_primary: true,
                subnets: vec![subnet],
            }],
        };
        let (used, cooling, mut free) = (1, 1, 2);
        if now < COOL_DOWN_MS {
            // The machine has just started.
            free -= 1;
        }
        let counted = Addresses::count(&run, Some(&pools));
        assert_eq!((counted.used, counted.cooling), (used, cooling));
        assert_eq!(counted.free, free);
    }
}
