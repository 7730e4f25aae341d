//! Who holds the SNAT bindings: how many each pod has open, and which remote ends take the most ports.

use std::collections::HashMap;

use abi::{Binding, BindingKey, Ip4, Pod, Port, Slot};
use aya::maps::MapError;
use foldhash::fast::RandomState;
use hooks::Maps;

/// Remote ends that are shown.
const SHOWN: usize = 10;

/// Pods by address. The standard library's hash would be most of what a sweep costs.
pub(crate) type PodsByAddress = HashMap<Ip4, Pod, RandomState>;

/// What the programs have counted, by slot.
pub(crate) type Counted = Vec<(Slot, u32)>;

/// Open bindings of a sweep, counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    open: HashMap<Slot, u32, RandomState>,
    ports: HashMap<(Ip4, Port, u8), u32, RandomState>,
}

impl Census {
    /// Counts a living binding of the pod with `slot`.
    pub(crate) fn count(&mut self, slot: Slot, key: &BindingKey, binding: &Binding) {
        if !binding.state().is_over() {
            let remote = (key.remote, key.remote_port, key.proto);
            *self.ports.entry(remote).or_default() += 1;
            *self.open.entry(slot).or_default() += 1;
        }
    }

    /// What the programs have counted for each pod when a sweep begins.
    pub(crate) fn counted(maps: &Maps, pods: &PodsByAddress) -> Result<Counted, MapError> {
        let slots = pods.values().map(|pod| pod.slot);
        slots
            .map(|slot| Ok((slot, maps.snat_open.get(&slot.index(), 0)?)))
            .collect()
    }

    /// Corrects what the programs count: they miss what expired, and what two CPUs counted at once. `before` is what they
    /// had counted when the sweep began.
    pub(crate) fn correct(&self, maps: &mut Maps, before: &Counted) -> Result<(), MapError> {
        for (slot, before) in before {
            let now = maps.snat_open.get(&slot.index(), 0)?;
            let found = self.open.get(slot).copied().unwrap_or(0);
            maps.snat_open
                .set(slot.index(), corrected(*before, found, now), 0)?;
        }
        Ok(())
    }

    /// How many bindings are open; the others keep their port until somebody needs it, or a minute has passed.
    pub(crate) fn open(&self) -> u32 {
        self.open.values().sum()
    }

    /// The remote ends (address, port, protocol) to which most bindings are open, and how many.
    pub(crate) fn busiest(&self) -> Vec<((Ip4, Port, u8), u32)> {
        let mut all: Vec<_> = self
            .ports
            .iter()
            .map(|(end, ports)| (*end, *ports))
            .collect();
        all.sort_unstable_by_key(|(end, ports)| (std::cmp::Reverse(*ports), *end));
        all.truncate(SHOWN);
        all
    }
}

/// The right count, when the programs had `before` at the start of a sweep and have `now` at its end, and the sweep has
/// `found` so many. What was opened during the sweep may be in `found` or not; nothing of it is taken away.
fn corrected(before: u32, found: u32, now: u32) -> u32 {
    match before.checked_sub(found) {
        Some(too_many) => now.saturating_sub(too_many),
        None => now.max(found),
    }
}

#[cfg(test)]
mod tests {
    use abi::{BindingState, proto};

    use super::*;

    #[test]
    fn the_count_is_corrected_and_what_is_opened_meanwhile_is_kept() {
        assert_eq!(corrected(100, 60, 100), 60, "expired");
        assert_eq!(corrected(100, 60, 500), 460, "expired, and 400 opened");
        assert_eq!(
            corrected(2000, 8000, 14_000),
            14_000,
            "opened during the sweep"
        );
        assert_eq!(corrected(10, 12, 10), 12, "two CPUs lost two");
    }

    #[test]
    fn the_busiest_remote_end_comes_first_and_closed_bindings_are_not_open() {
        let mut census = Census::default();
        let remotes = [(1, 443), (2, 443), (1, 443), (3, 80)];
        for (nat_port, (last, port)) in (1024..).zip(remotes) {
            let remote = (Ip4::new([203, 0, 113, last]), Port::from_u16(port));
            let key = BindingKey::new(remote, Port::from_u16(nat_port), proto::TCP);
            let state = if last == 3 {
                BindingState::Closed
            } else {
                BindingState::New
            };
            let pod = Ip4::new([10, 240, 1, 10]);
            census.count(
                Slot::new(1),
                &key,
                &Binding::new(pod, Port::from_u16(1), 1, state, 0),
            );
        }
        assert_eq!(census.open.get(&Slot::new(1)), Some(&3));
        let busiest = census.busiest();
        assert_eq!(busiest.len(), 2);
        assert_eq!(
            busiest.first(),
            Some(&(
                (Ip4::new([203, 0, 113, 1]), Port::from_u16(443), proto::TCP),
                2
            ))
        );
    }
}
