//! The maps, typed.

use std::path::PathBuf;

use abi::pins::map;
use abi::{
    Binding, BindingKey, ClassEntry, Config, Counter, Flow, FlowKey, Fragment, FragmentKey,
    IfIndex, Ip4, Pod, Secret, Veth,
};
use aya::Ebpf;
use aya::maps::{Array, HashMap, LpmTrie, Map, MapData, MapError, PerCpuArray};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::Pins;

/// An [`abi`] type as aya takes it.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abi<T>(pub T);

// SAFETY: `IntoBytes` proves that there is no padding, `FromBytes` that every bit pattern is valid.
unsafe impl<T: FromBytes + IntoBytes + Immutable + Copy + 'static> aya::Pod for Abi<T> {}

/// A map could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum MapsError {
    /// The pin cannot be opened, or is a map of another type.
    #[error(
        "open the pinned map {path}: {source}; is azure-vnet-loader running and bpffs mounted on /sys/fs/bpf?"
    )]
    Pin {
        /// The pin.
        path: PathBuf,
        /// aya's reason.
        source: MapError,
    },
    /// The object has no such map, or one of another type.
    #[error("take map `{name}` out of the BPF object: {why}")]
    Object {
        /// The map's name.
        name: &'static str,
        /// What is wrong.
        why: String,
    },
}

/// Every map.
#[expect(missing_debug_implementations, reason = "aya's arrays have none")]
pub struct Maps {
    /// One entry.
    pub config: Array<MapData, Abi<Config>>,
    /// One entry.
    pub secret: Array<MapData, Abi<Secret>>,
    /// By the pod's address.
    pub pods: HashMap<MapData, Abi<Ip4>, Abi<Pod>>,
    /// By the host veth.
    pub veths: HashMap<MapData, Abi<IfIndex>, Abi<Veth>>,
    /// Destination classes.
    pub dst4: LpmTrie<MapData, Abi<Ip4>, Abi<ClassEntry>>,
    /// Flows whose side is known.
    pub flows: HashMap<MapData, Abi<FlowKey>, Abi<Flow>>,
    /// SNAT bindings.
    pub snat: HashMap<MapData, Abi<BindingKey>, Abi<Binding>>,
    /// Counters per pod and path.
    pub stats: PerCpuArray<MapData, Abi<Counter>>,
    /// Counters per reason.
    pub drops: PerCpuArray<MapData, Abi<Counter>>,
    /// How many bindings a pod holds open, by slot.
    pub snat_open: Array<MapData, u32>,
    /// One entry: how many flows found no room.
    pub flows_lost: Array<MapData, u32>,
    /// Datagrams on their way in, in fragments.
    pub fragments: HashMap<MapData, Abi<FragmentKey>, Abi<Fragment>>,
    /// Sources that `xdp_guard` drops.
    pub deny: LpmTrie<MapData, Abi<Ip4>, u32>,
}

impl Maps {
    /// Opens the pinned maps.
    pub fn from_pins(pins: &Pins) -> Result<Self, MapsError> {
        Self::collect(|name| {
            let path = pins.map(name);
            MapData::from_pin(&path)
                .and_then(Map::from_map_data)
                .map_err(|source| MapsError::Pin { path, source })
        })
    }

    /// Takes the maps out of a loaded object.
    pub fn from_object(object: &mut Ebpf) -> Result<Self, MapsError> {
        Self::collect(|name| {
            object.take_map(name).ok_or_else(|| MapsError::Object {
                name,
                why: "there is none".into(),
            })
        })
    }

    fn collect(
        mut open: impl FnMut(&'static str) -> Result<Map, MapsError>,
    ) -> Result<Self, MapsError> {
        Ok(Self {
            config: typed(map::CONFIG, &mut open)?,
            secret: typed(map::SECRET, &mut open)?,
            pods: typed(map::PODS, &mut open)?,
            veths: typed(map::VETHS, &mut open)?,
            dst4: typed(map::DST4, &mut open)?,
            flows: typed(map::FLOWS, &mut open)?,
            snat: typed(map::SNAT, &mut open)?,
            stats: typed(map::STATS, &mut open)?,
            drops: typed(map::DROPS, &mut open)?,
            snat_open: typed(map::SNAT_OPEN, &mut open)?,
            flows_lost: typed(map::FLOWS_LOST, &mut open)?,
            fragments: typed(map::FRAGMENTS, &mut open)?,
            deny: typed(map::DENY, &mut open)?,
        })
    }
}

fn typed<M: TryFrom<Map, Error = MapError>>(
    name: &'static str,
    open: &mut impl FnMut(&'static str) -> Result<Map, MapsError>,
) -> Result<M, MapsError> {
    M::try_from(open(name)?).map_err(|source| MapsError::Object {
        name,
        why: source.to_string(),
    })
}

/// The sum of a per-CPU counter over all CPUs.
pub fn total(
    counters: &PerCpuArray<MapData, Abi<Counter>>,
    index: u32,
) -> Result<Counter, MapError> {
    let per_cpu = counters.get(&index, 0)?;
    Ok(per_cpu.iter().fold(Counter::default(), |sum, cpu| Counter {
        packets: sum.packets + cpu.0.packets,
        bytes: sum.bytes + cpu.0.bytes,
    }))
}
