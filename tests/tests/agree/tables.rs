//! Do both sides remember the same? Times are left out: the clock may tick between the two runs.

use std::collections::BTreeMap;

use abi::{Binding, Counter, DropReason, Flow, Fragment, MAX_PODS, Path};
use aya::maps::{HashMap, MapData};
use datapath::model::Memory;
use hooks::{Abi, Maps, total};

pub(crate) fn assert_same(maps: &Maps, memory: &Memory) {
    let flags = |flow: &Flow| flow.flags;
    assert_same_map("flows", &maps.flows, &memory.flows.borrow(), flags);
    let timeless = |binding: &Binding| {
        let mut binding = *binding;
        binding.see(binding.state(), 0);
        binding
    };
    assert_same_map("snat", &maps.snat, &memory.bindings.borrow(), timeless);
    let whose = |fragment: &Fragment| (fragment.to, fragment.generation);
    assert_same_map(
        "fragments",
        &maps.fragments,
        &memory.fragments.borrow(),
        whose,
    );
    assert_eq!(
        maps.flows_lost.get(&0, 0).unwrap(),
        memory.lost.get(),
        "flows_lost"
    );
    assert_same_counts(maps, memory);
}

/// Compares the entries' keys, and of the values what `of` takes from them.
fn assert_same_map<K, V, T>(
    name: &str,
    theirs: &HashMap<MapData, Abi<K>, Abi<V>>,
    ours: &BTreeMap<K, V>,
    of: impl Fn(&V) -> T,
) where
    Abi<K>: aya::Pod,
    Abi<V>: aya::Pod,
    K: Copy + Ord + std::fmt::Debug,
    T: PartialEq + std::fmt::Debug,
{
    let theirs: BTreeMap<_, _> = theirs
        .iter()
        .map(|entry| entry.map(|(key, value)| (key.0, of(&value.0))).unwrap())
        .collect();
    let ours: BTreeMap<_, _> = ours.iter().map(|(key, value)| (*key, of(value))).collect();
    assert_eq!(theirs, ours, "{name}");
}

fn assert_same_counts(maps: &Maps, memory: &Memory) {
    let drops = memory.drops.borrow();
    for reason in DropReason::ALL {
        let theirs = total(&maps.drops, reason.index()).unwrap();
        assert_eq!(theirs, counted(&drops, reason.index()), "drops: {reason:?}");
    }
    let (stats, open) = (memory.stats.borrow(), memory.open.borrow());
    for pod in memory.pods.values() {
        let slot = u32::from(pod.slot.get());
        assert!(slot < MAX_PODS);
        let ours = open.get(&pod.slot).copied().unwrap_or(0);
        assert_eq!(maps.snat_open.get(&slot, 0).unwrap(), ours, "snat_open");
        for path in Path::ALL {
            let index = path.index(pod.slot);
            let theirs = total(&maps.stats, index).unwrap();
            assert_eq!(theirs, counted(&stats, index), "stats: {path:?}");
        }
    }
}

fn counted(counters: &BTreeMap<u32, Counter>, index: u32) -> Counter {
    counters.get(&index).copied().unwrap_or_default()
}
