//! Do both sides remember the same?

use std::collections::{BTreeMap, BTreeSet};

use abi::{Counter, DropReason, MAX_PODS, Path};
use aya::maps::{HashMap, MapData};
use datapath::model::Memory;
use hooks::{Abi, Maps, total};

pub(crate) fn assert_same(maps: &Maps, memory: &Memory) {
    assert_same_map("flows", &maps.flows, &memory.flows.borrow());
    assert_same_map("snat", &maps.snat, &memory.bindings.borrow());
    let fragments = memory.fragments.borrow();
    assert_same_map("fragments", &maps.fragments, &fragments);
    assert_eq!(
        maps.flows_lost.get(&0, 0).unwrap(),
        memory.lost.get(),
        "flows_lost"
    );
    assert_same_counts(maps, memory);
}

fn assert_same_map<K, V>(
    name: &str,
    theirs: &HashMap<MapData, Abi<K>, Abi<V>>,
    ours: &BTreeMap<K, V>,
) where
    Abi<K>: aya::Pod,
    Abi<V>: aya::Pod,
    K: Copy + Ord + std::fmt::Debug,
    V: Copy + PartialEq + std::fmt::Debug,
{
    let theirs: BTreeMap<_, _> = theirs
        .iter()
        .map(|entry| entry.map(|(key, value)| (key.0, value.0)).unwrap())
        .collect();
    let keys: BTreeSet<_> = theirs.keys().chain(ours.keys()).collect();
    let differ = keys
        .into_iter()
        .filter(|key| theirs.get(key) != ours.get(key));
    let differ: Vec<_> = differ
        .map(|key| (key, theirs.get(key), ours.get(key)))
        .collect();
    assert!(differ.is_empty(), "{name}: key, kernel, host: {differ:#?}");
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
