//! Which address is next: a pure function, always the same for the same state.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;

use super::pools::Pool;

/// How long a released address rests, milliseconds: peers may still have connections, ARP and conntrack entries for it.
pub(super) const COOL_DOWN_MS: u64 = 30_000;

/// What is known of the addresses.
#[derive(Clone, Debug, Default)]
pub(super) struct Ledger {
    /// Given to somebody.
    pub(super) leased: BTreeSet<Ipv4Addr>,
    /// When each address was last given back in this boot, `CLOCK_BOOTTIME` in milliseconds.
    pub(super) released: BTreeMap<Ipv4Addr, u64>,
}

/// No address is left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Exhausted {
    prefixes: Vec<String>,
    used: usize,
    cooling: usize,
    total: usize,
}

impl Exhausted {
    fn of(pools: &[Pool], ledger: &Ledger) -> Self {
        let all: BTreeSet<Ipv4Addr> = pools
            .iter()
            .flat_map(|pool| pool.addresses.iter().copied())
            .collect();
        let used = all.intersection(&ledger.leased).count();
        Self {
            prefixes: pools.iter().map(|pool| pool.prefix.to_string()).collect(),
            used,
            cooling: all.len() - used,
            total: all.len(),
        }
    }
}

/// Whether nobody will get an address until somebody gives one back. One that still rests will be free in a moment.
pub(super) fn exhausted(pools: &[Pool], ledger: &Ledger) -> Option<Exhausted> {
    let found = Exhausted::of(pools, ledger);
    (found.cooling == 0).then_some(found)
}

impl fmt::Display for Exhausted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            prefixes,
            used,
            cooling,
            total,
        } = self;
        let pools = prefixes.join(", ");
        write!(
            f,
            "pool {pools}: {used} of {total} used, {cooling} cooling down for {} s",
            COOL_DOWN_MS / 1000
        )
    }
}

/// The first pool that has one: an address that was never used, in ascending order; then the one that was given back longest
/// ago, if it has rested.
pub(super) fn choose<'a>(
    pools: &'a [Pool],
    ledger: &Ledger,
    now_ms: u64,
) -> Result<(&'a Pool, Ipv4Addr), Exhausted> {
    let rested = |released_ms: u64| released_ms.saturating_add(COOL_DOWN_MS) <= now_ms;
    for pool in pools {
        let free = || {
            pool.addresses
                .iter()
                .copied()
                .filter(|address| !ledger.leased.contains(address))
        };
        let never_used = free().find(|address| !ledger.released.contains_key(address));
        let longest_rested = || {
            free()
                .filter_map(|address| Some((*ledger.released.get(&address)?, address)))
                .filter(|(released_ms, _)| rested(*released_ms))
                .min()
                .map(|(_, address)| address)
        };
        if let Some(address) = never_used.or_else(longest_rested) {
            return Ok((pool, address));
        }
    }
    Err(Exhausted::of(pools, ledger))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(prefix: &str, last: &[u8]) -> Pool {
        let prefix: ipnet::Ipv4Net = prefix.parse().unwrap();
        let [a, b, c, _] = prefix.network().octets();
        Pool {
            prefix,
            gateway: Ipv4Addr::new(a, b, c, 1),
            addresses: last.iter().map(|d| Ipv4Addr::new(a, b, c, *d)).collect(),
        }
    }

    fn ledger(leased: &[u8], released: &[(u8, u64)]) -> Ledger {
        let ip = |d| Ipv4Addr::new(10, 0, 0, d);
        Ledger {
            leased: leased.iter().map(|d| ip(*d)).collect(),
            released: released.iter().map(|(d, ms)| (ip(*d), *ms)).collect(),
        }
    }

    #[test]
    fn never_used_addresses_come_first_then_those_that_rested_longest() {
        let pools = [pool("10.0.0.0/24", &[4, 5, 6]), pool("10.1.0.0/24", &[4])];
        let late = COOL_DOWN_MS * 10;
        for (leased, released, next) in [
            (vec![], vec![], Some((10, 0, 4))),
            (vec![4], vec![], Some((10, 0, 5))),
            (vec![], vec![(4, 0)], Some((10, 0, 5))),
            (vec![6], vec![(4, 7), (5, 3)], Some((10, 0, 5))),
            (vec![4, 5, 6], vec![], Some((10, 1, 4))),
            (vec![4, 5], vec![(6, late)], Some((10, 1, 4))),
        ] {
            let chosen = choose(&pools, &ledger(&leased, &released), late)
                .unwrap()
                .1
                .octets();
            let (a, b, d) = next.unwrap();
            assert_eq!(chosen, [a, b, 0, d], "{leased:?} {released:?}");
        }
    }

    #[test]
    fn a_released_address_rests_exactly_as_long_as_it_must() {
        let pools = [pool("10.0.0.0/24", &[4])];
        let state = ledger(&[], &[(4, 1000)]);
        choose(&pools, &state, 1000 + COOL_DOWN_MS).unwrap();
        let exhausted = choose(&pools, &state, 999 + COOL_DOWN_MS).unwrap_err();
        assert_eq!(
            exhausted.to_string(),
            "pool 10.0.0.0/24: 0 of 1 used, 1 cooling down for 30 s"
        );
    }
}
