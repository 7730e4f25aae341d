//! Which address is next: a pure function, always the same for the same state.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;

use super::pools::Pool;

pub(super) use rpc::COOL_DOWN_MS;

/// What is known of the addresses.
#[derive(Clone, Debug, Default)]
pub(super) struct Ledger {
    /// Given to somebody.
    pub(super) leased: BTreeSet<Ipv4Addr>,
    /// When each address was last given back in this boot, `CLOCK_BOOTTIME` in milliseconds.
    pub(super) released: BTreeMap<Ipv4Addr, u64>,
}

/// Whether a released address must have rested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    /// For [`COOL_DOWN_MS`]: others may be free, or become known.
    Full,
    /// Not when nothing else is left: a pod without address is worse than one whose address had another owner lately.
    Waived,
}

/// No address is left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Exhausted {
    prefixes: Vec<String>,
    used: usize,
    total: usize,
}

/// Whether nobody will get an address until somebody gives one back.
pub(super) fn exhausted(pools: &[Pool], ledger: &Ledger) -> Option<Exhausted> {
    let all: BTreeSet<Ipv4Addr> = for_anybody(pools)
        .flat_map(|pool| pool.addresses.iter().copied())
        .collect();
    let used = all.intersection(&ledger.leased).count();
    (used == all.len()).then(|| Exhausted {
        prefixes: for_anybody(pools)
            .map(|pool| pool.prefix.to_string())
            .collect(),
        used,
        total: all.len(),
    })
}

impl fmt::Display for Exhausted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            prefixes,
            used,
            total,
        } = self;
        let pools = prefixes.join(", ");
        write!(f, "pool {pools}: {used} of {total} used")
    }
}

/// The first pool that has one: an address that was never used, in ascending order; then the one that was given back longest
/// ago, if it has rested. With the rest waived at last the one that was given back longest ago, in any pool.
pub(super) fn choose<'a>(
    pools: &'a [Pool],
    ledger: &Ledger,
    rest: Rest,
    now_ms: u64,
) -> Option<(&'a Pool, Ipv4Addr)> {
    let rested = |released_ms: u64| released_ms.saturating_add(COOL_DOWN_MS) <= now_ms;
    let mut longest_released: Option<(u64, &Pool, Ipv4Addr)> = None;
    for pool in for_anybody(pools) {
        let free = || {
            let all = pool.addresses.iter().copied();
            all.filter(|address| !ledger.leased.contains(address))
        };
        if let Some(never_used) = free().find(|address| !ledger.released.contains_key(address)) {
            return Some((pool, never_used));
        }
        let Some((released_ms, address)) = free()
            .filter_map(|address| Some((*ledger.released.get(&address)?, address)))
            .min()
        else {
            continue;
        };
        if rested(released_ms) {
            return Some((pool, address));
        }
        if longest_released.is_none_or(|(earliest, ..)| released_ms < earliest) {
            longest_released = Some((released_ms, pool, address));
        }
    }
    let (_, pool, address) = longest_released.filter(|_| rest == Rest::Waived)?;
    Some((pool, address))
}

/// The pools for whoever names neither subnet nor NIC.
fn for_anybody(pools: &[Pool]) -> impl Iterator<Item = &Pool> {
    pools.iter().filter(|pool| pool.is_for_anybody)
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
            is_for_anybody: true,
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
            let chosen = choose(&pools, &ledger(&leased, &released), Rest::Full, late)
                .unwrap()
                .1
                .octets();
            let (a, b, d) = next.unwrap();
            assert_eq!(chosen, [a, b, 0, d], "{leased:?} {released:?}");
        }
    }

    #[test]
    fn with_the_rest_waived_the_longest_rested_address_of_all_pools_comes_last() {
        let pools = [pool("10.0.0.0/24", &[4, 5]), pool("10.1.0.0/24", &[4])];
        let now = COOL_DOWN_MS;
        let other = Ipv4Addr::new(10, 1, 0, 4);
        let mut state = ledger(&[], &[(4, 7), (5, 5)]);
        let next = |state: &Ledger, rest| choose(&pools, state, rest, now).map(|(_, ip)| ip);
        assert_eq!(next(&state, Rest::Waived), Some(other), "never used");
        state.released.insert(other, 6);
        assert_eq!(next(&state, Rest::Full), None);
        let ip = |d| Some(Ipv4Addr::new(10, 0, 0, d));
        assert_eq!(next(&state, Rest::Waived), ip(5));
        state.released.insert(other, 4);
        assert_eq!(next(&state, Rest::Waived), Some(other));
        state.released.insert(Ipv4Addr::new(10, 0, 0, 4), 0);
        assert_eq!(next(&state, Rest::Waived), ip(4), "rested, in the first");
        assert_eq!(exhausted(&pools, &state), None);
    }

    #[test]
    fn a_released_address_rests_exactly_as_long_as_it_must() {
        let pools = [pool("10.0.0.0/24", &[4])];
        let state = ledger(&[], &[(4, 1000)]);
        choose(&pools, &state, Rest::Full, 1000 + COOL_DOWN_MS).unwrap();
        let early = choose(&pools, &state, Rest::Full, 999 + COOL_DOWN_MS);
        assert!(early.is_none());
    }
}
