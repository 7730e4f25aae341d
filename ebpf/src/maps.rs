//! The BTF maps. Names are those of [`abi::pins::map`].

use abi::{
    Binding, BindingKey, CachedFlow, CachedPeer, CachedVeth, ClassEntry, Config, Counter,
    DropReason, Flow, FlowKey, Fragment, FragmentKey, IfIndex, Ip4, MAX_BINDINGS, MAX_CLASSES,
    MAX_DENIED, MAX_FLOWS, MAX_FRAGMENTS, MAX_PODS, Path, Pod, Secret, Veth, Watch,
};
use aya_ebpf::btf_maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, PerfEventArray};
use aya_ebpf::macros::btf_map;

const PODS_MAX: usize = MAX_PODS as usize;
const STATS_MAX: usize = (MAX_PODS * Path::STRIDE) as usize;
const DROPS_MAX: usize = DropReason::CAPACITY as usize;

/// Flags of the large hash tables.
const LARGE: usize = if cfg!(feature = "no-prealloc") {
    aya_ebpf::bindings::BPF_F_NO_PREALLOC as usize
} else {
    0
};

#[btf_map(name = "config")]
pub(crate) static CONFIG: Array<Config, 1> = Array::new();

#[btf_map(name = "pods")]
pub(crate) static PODS: HashMap<Ip4, Pod, PODS_MAX> = HashMap::new();

#[btf_map(name = "veths")]
pub(crate) static VETHS: HashMap<IfIndex, Veth, PODS_MAX> = HashMap::new();

#[btf_map(name = "dst4")]
pub(crate) static DST4: LpmTrie<Ip4, ClassEntry, { MAX_CLASSES as usize }> = LpmTrie::new();

#[btf_map(name = "flows")]
pub(crate) static FLOWS: HashMap<FlowKey, Flow, { MAX_FLOWS as usize }, LARGE> = HashMap::new();

#[btf_map(name = "snat")]
pub(crate) static SNAT: HashMap<BindingKey, Binding, { MAX_BINDINGS as usize }, LARGE> =
    HashMap::new();

#[btf_map(name = "stats")]
pub(crate) static STATS: PerCpuArray<Counter, STATS_MAX> = PerCpuArray::new();

#[btf_map(name = "drops")]
pub(crate) static DROPS: PerCpuArray<Counter, DROPS_MAX> = PerCpuArray::new();

#[btf_map(name = "secret")]
pub(crate) static SECRET: Array<Secret, 1> = Array::new();

#[btf_map(name = "snat_open")]
pub(crate) static SNAT_OPEN: Array<u32, PODS_MAX> = Array::new();

#[btf_map(name = "flows_lost")]
pub(crate) static FLOWS_LOST: Array<u32, 1> = Array::new();

#[btf_map(name = "fragments")]
pub(crate) static FRAGMENTS: LruHashMap<FragmentKey, Fragment, { MAX_FRAGMENTS as usize }> =
    LruHashMap::new();

#[btf_map(name = "deny")]
pub(crate) static DENY: LpmTrie<Ip4, u32, { MAX_DENIED as usize }> = LpmTrie::new();

#[btf_map(name = "peer_cache")]
pub(crate) static PEER_CACHE: PerCpuArray<CachedPeer, { CachedPeer::CAPACITY as usize }> =
    PerCpuArray::new();

#[btf_map(name = "veth_cache")]
pub(crate) static VETH_CACHE: PerCpuArray<CachedVeth, { CachedVeth::CAPACITY as usize }> =
    PerCpuArray::new();

#[btf_map(name = "flow_cache")]
pub(crate) static FLOW_CACHE: PerCpuArray<CachedFlow, { CachedFlow::CAPACITY as usize }> =
    PerCpuArray::new();

#[btf_map(name = "watch")]
pub(crate) static WATCH: Array<u32, { Watch::CAPACITY as usize }> = Array::new();

#[btf_map(name = "events0")]
pub(crate) static EVENTS_0: PerfEventArray = PerfEventArray::new();

#[btf_map(name = "events1")]
pub(crate) static EVENTS_1: PerfEventArray = PerfEventArray::new();

#[btf_map(name = "events2")]
pub(crate) static EVENTS_2: PerfEventArray = PerfEventArray::new();

#[btf_map(name = "events3")]
pub(crate) static EVENTS_3: PerfEventArray = PerfEventArray::new();
