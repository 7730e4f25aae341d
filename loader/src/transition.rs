//! How does `dst4` get from one set of classes to the next, so that in between every address has its old class or its
//! new one, and never a third?
//!
//! New prefixes go in first, the longest before the shorter: an address that a new long prefix takes out of a new short
//! one never sees the short one alone. Old prefixes go out last, the shortest before the longer, for the same reason.
//! What stays as it is, is not touched.

use std::collections::BTreeMap;

use abi::Class;
use ipnet::Ipv4Net;

/// Prefixes with their classes.
pub(crate) type Table = BTreeMap<Ipv4Net, Class>;

/// One write to `dst4`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Write the prefix, whether it is there or not.
    Put(Ipv4Net, Class),
    /// Take it out.
    Remove(Ipv4Net),
}

/// The writes that turn `old` into `new`, in order.
pub(crate) fn steps(old: &Table, new: &Table) -> Vec<Step> {
    let mut puts: Vec<_> = new
        .iter()
        .filter(|(prefix, class)| old.get(prefix) != Some(class))
        .collect();
    puts.sort_by_key(|(prefix, _)| u8::MAX - prefix.prefix_len());
    let mut removes: Vec<_> = old
        .keys()
        .filter(|prefix| !new.contains_key(prefix))
        .collect();
    removes.sort_by_key(|prefix| prefix.prefix_len());
    let puts = puts
        .into_iter()
        .map(|(prefix, class)| Step::Put(*prefix, *class));
    puts.chain(removes.into_iter().map(|prefix| Step::Remove(*prefix)))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;

    use super::*;

    /// The trie's answer.
    fn lookup(table: &Table, addr: Ipv4Addr) -> Class {
        let matching = table.iter().filter(|(prefix, _)| prefix.contains(&addr));
        matching
            .max_by_key(|(prefix, _)| prefix.prefix_len())
            .map_or(Class::Stack, |(_, class)| *class)
    }

    fn apply(table: &mut Table, step: Step) {
        match step {
            Step::Put(prefix, class) => table.insert(prefix, class),
            Step::Remove(prefix) => table.remove(&prefix),
        };
    }

    /// Few bits, so that prefixes nest and meet.
    fn addr() -> impl Strategy<Value = Ipv4Addr> {
        (0_u32..256).prop_map(|bits| Ipv4Addr::from(bits << 24))
    }

    fn table() -> impl Strategy<Value = Table> {
        let prefix =
            (addr(), 0_u8..=8).prop_map(|(addr, len)| Ipv4Net::new(addr, len).unwrap().trunc());
        btree_map(prefix, prop::sample::select(Class::ALL.to_vec()), 0..24)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

        #[test]
        fn in_between_every_address_has_its_old_class_or_its_new_one(old in table(), new in table(), addrs in vec(addr(), 64)) {
            let mut now = old.clone();
            for step in steps(&old, &new) {
                apply(&mut now, step);
                for addr in &addrs {
                    let class = lookup(&now, *addr);
                    let allowed = [lookup(&old, *addr), lookup(&new, *addr)];
                    prop_assert!(allowed.contains(&class), "{}: {:?} after {:?}", addr, class, step);
                }
            }
            prop_assert_eq!(now, new);
        }

        #[test]
        fn what_stays_is_not_touched(old in table(), new in table()) {
            for step in steps(&old, &new) {
                let prefix = match step {
                    Step::Put(prefix, _) | Step::Remove(prefix) => prefix,
                };
                prop_assert_ne!(old.get(&prefix), new.get(&prefix), "{}", prefix);
            }
        }
    }
}
