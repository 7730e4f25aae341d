//! What does each map look like in this build, and who writes it?

use abi::pins::map;
use abi::{
    Binding, BindingKey, CachedFlow, CachedPeer, CachedVeth, ClassEntry, Config, Counter,
    DropReason, Flow, FlowKey, Fragment, FragmentKey, IfIndex, Ip4, MAX_BINDINGS, MAX_CLASSES,
    MAX_DENIED, MAX_FLOWS, MAX_FRAGMENTS, MAX_PODS, Pod, Secret, Veth, Watch,
};
use aya::maps::MapType;
use aya::util::nr_cpus;

/// What the kernel says of a map.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Shape {
    pub(crate) kind: MapType,
    pub(crate) key: usize,
    pub(crate) value: usize,
    pub(crate) entries: u32,
}

/// Who writes a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The loader only.
    Settings,
    /// The programs, and what one has written another one must find.
    Table,
    /// The programs; nobody decides by it.
    Counters,
    /// The programs for themselves, or listeners; worthless in another layout.
    Cache,
}

/// Length of a prefix in bits, and address.
type Prefix = (u32, Ip4);

/// Who writes a map, and its shape in this build.
pub(crate) fn expected(name: &str) -> Option<(Role, Shape)> {
    use MapType::{Array, Hash, LpmTrie, LruHash, PerCpuArray};
    use Role::{Cache, Counters, Settings, Table};
    Some(match name {
        map::CONFIG => (Settings, shape::<u32, Config>(Array, 1)),
        map::SECRET => (Settings, shape::<u32, Secret>(Array, 1)),
        map::PODS => (Settings, shape::<Ip4, Pod>(Hash, MAX_PODS)),
        map::VETHS => (Settings, shape::<IfIndex, Veth>(Hash, MAX_PODS)),
        map::DST4 => (Settings, shape::<Prefix, ClassEntry>(LpmTrie, MAX_CLASSES)),
        map::DENY => (Settings, shape::<Prefix, u32>(LpmTrie, MAX_DENIED)),
        map::FLOWS => (Table, shape::<FlowKey, Flow>(Hash, MAX_FLOWS)),
        map::SNAT => (Table, shape::<BindingKey, Binding>(Hash, MAX_BINDINGS)),
        map::FRAGMENTS => {
            let shape = shape::<FragmentKey, Fragment>(LruHash, MAX_FRAGMENTS);
            (Table, shape)
        }
        map::STATS => {
            let entries = MAX_PODS * abi::Path::STRIDE;
            (Counters, shape::<u32, Counter>(PerCpuArray, entries))
        }
        map::DROPS => {
            let entries = DropReason::CAPACITY;
            (Counters, shape::<u32, Counter>(PerCpuArray, entries))
        }
        map::SNAT_OPEN => (Counters, shape::<u32, u32>(Array, MAX_PODS)),
        map::FLOWS_LOST => (Counters, shape::<u32, u32>(Array, 1)),
        map::VETH_CACHE => (Cache, cache::<CachedVeth>(CachedVeth::CAPACITY)),
        map::PEER_CACHE => (Cache, cache::<CachedPeer>(CachedPeer::CAPACITY)),
        map::FLOW_CACHE => (Cache, cache::<CachedFlow>(CachedFlow::CAPACITY)),
        map::WATCH => (Cache, shape::<u32, u32>(Array, Watch::CAPACITY)),
        name if map::EVENTS.contains(&name) => {
            // One entry for each CPU that the machine may have.
            let cpus = u32::try_from(nr_cpus().ok()?).ok()?;
            (Cache, shape::<u32, u32>(MapType::PerfEventArray, cpus))
        }
        _ => return None,
    })
}

fn cache<V>(entries: u32) -> Shape {
    shape::<u32, V>(MapType::PerCpuArray, entries)
}

fn shape<K, V>(kind: MapType, entries: u32) -> Shape {
    Shape {
        kind,
        key: size_of::<K>(),
        value: size_of::<V>(),
        entries,
    }
}
