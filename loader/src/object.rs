//! The BPF object: embedded, loaded over the maps that are pinned already, and pinned in its turn.

use std::fs;
use std::io;
use std::mem::size_of;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use abi::pins::{BPFFS, map, program};
use abi::{
    Binding, BindingKey, CachedFlow, CachedPeer, CachedVeth, ClassEntry, Config, Counter,
    DropReason, Flow, FlowKey, Fragment, FragmentKey, IfIndex, Ip4, MAX_BINDINGS, MAX_CLASSES,
    MAX_DENIED, MAX_FLOWS, MAX_FRAGMENTS, MAX_PODS, Pod, Secret, Veth, Watch,
};
use aya::maps::{MapError, MapInfo, MapType};
use aya::programs::{Program, ProgramError, SchedClassifier};
use aya::{Ebpf, EbpfError, EbpfLoader, include_bytes_aligned};
use hooks::{Maps, MapsError, Pins};
use nix::sys::statfs::statfs;
use tracing::{debug, info, warn};

use crate::config::TableSizes;

pub(crate) static OBJECT: &[u8] = include_bytes_aligned!(env!("BPF_OBJECT"));

/// `BPF_FS_MAGIC` of `linux/magic.h`.
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;

/// The kernel's types.
pub(crate) const BTF: &str = "/sys/kernel/btf/vmlinux";

/// Whether bpffs is mounted where it belongs.
pub(crate) fn has_bpffs() -> bool {
    statfs(BPFFS).is_ok_and(|fs| fs.filesystem_type().0 == BPF_FS_MAGIC)
}

/// Programs and maps are in the kernel and pinned.
#[expect(missing_debug_implementations, reason = "aya's arrays have none")]
pub struct Loaded {
    /// The maps.
    pub maps: Maps,
    /// Whether maps of an earlier start were taken over.
    pub adopted: bool,
}

/// The object cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// This build carries no object.
    #[error(
        "this build of azure-vnet-loader has no BPF object in it; build it with `cargo xtask build`"
    )]
    Empty,
    /// No bpffs.
    #[error("{BPFFS} is not a BPF file system; mount it: mount -t bpf bpf {BPFFS}")]
    NoBpffs,
    /// No BTF.
    #[error(
        "the kernel has no BTF (/sys/kernel/btf/vmlinux); use a kernel with CONFIG_DEBUG_INFO_BTF=y"
    )]
    NoBtf,
    /// A pin directory cannot be made.
    #[error("make the pin directory {path}: {source}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The object does not parse, or the kernel refuses a map.
    #[error("load the BPF object: {0}")]
    Load(#[from] EbpfError),
    /// A pinned map cannot be looked at.
    #[error("look at the pinned map {path}: {source}")]
    Inspect {
        /// The pin.
        path: PathBuf,
        /// aya's reason.
        source: MapError,
    },
    /// A map is missing or of another type.
    #[error(transparent)]
    Maps(#[from] MapsError),
    /// The verifier refuses a program.
    #[error("load program {name}: {source}")]
    Verify {
        /// The program.
        name: &'static str,
        /// aya's reason, the verifier's log included.
        source: ProgramError,
    },
    /// A program cannot be pinned.
    #[error("pin program {name}: {why}")]
    Pin {
        /// The program.
        name: &'static str,
        /// What went wrong.
        why: String,
    },
}

/// Loads and pins everything. Maps that are pinned already and have the right layout are used again, so that bindings
/// and flows live on; programs are always the new ones, but nothing is attached yet.
///
/// A kernel that refuses `xdp_guard` has everything else.
pub fn load(pins: &Pins, sizes: TableSizes) -> Result<Loaded, ObjectError> {
    if OBJECT.is_empty() {
        return Err(ObjectError::Empty);
    }
    if !has_bpffs() {
        return Err(ObjectError::NoBpffs);
    }
    if !Path::new(BTF).exists() {
        return Err(ObjectError::NoBtf);
    }
    for path in [pins.maps(), pins.programs(), pins.links()] {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)
            .map_err(|source| ObjectError::Directory { path, source })?;
    }
    let adopted = keep_matching(pins)?;
    let mut loader = EbpfLoader::new();
    loader.map_max_entries(map::FLOWS, sizes.flows);
    loader.map_max_entries(map::SNAT, sizes.bindings);
    for name in map::ALL {
        loader.map_pin_path(name, pins.map(name));
    }
    let mut object = loader.load(OBJECT)?;
    for name in program::ALL {
        load_program(&mut object, name, pins)?;
    }
    if let Err(error) = load_program(&mut object, program::XDP_GUARD, pins) {
        warn!("{}", crate::report::one_line(&error.into()));
    }
    Ok(Loaded {
        maps: Maps::from_object(&mut object)?,
        adopted,
    })
}

fn load_program(object: &mut Ebpf, name: &'static str, pins: &Pins) -> Result<(), ObjectError> {
    let failed = |source| ObjectError::Verify { name, source };
    let program = object.program_mut(name).ok_or_else(|| ObjectError::Pin {
        name,
        why: "the BPF object has no such program".into(),
    })?;
    if let Program::Xdp(xdp) = program {
        xdp.load().map_err(failed)?;
    } else {
        let classifier: &mut SchedClassifier = program.try_into().map_err(failed)?;
        classifier.load().map_err(failed)?;
    }
    let info = program.info().map_err(failed)?;
    debug!(
        program = name,
        verified_instructions = info.verified_instruction_count(),
        translated_bytes = info.size_translated(),
        "loaded"
    );
    let pin_error = |why: String| ObjectError::Pin { name, why };
    // Pinned beside the old one and renamed over it, so that ADD finds a program at every instant.
    let beside = pins.program(&format!("{name}+new"));
    if let Err(error) = fs::remove_file(&beside)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(pin_error(error.to_string()));
    }
    program
        .pin(&beside)
        .map_err(|error| pin_error(error.to_string()))?;
    fs::rename(&beside, pins.program(name)).map_err(|error| pin_error(error.to_string()))
}

/// What a map must look like to be used again.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Layout {
    kind: MapType,
    key: usize,
    value: usize,
    entries: u32,
}

fn layout(name: &str) -> Option<Layout> {
    let (kind, key, value, entries) = match name {
        map::CONFIG => (MapType::Array, size_of::<u32>(), size_of::<Config>(), 1),
        map::SECRET => (MapType::Array, size_of::<u32>(), size_of::<Secret>(), 1),
        map::PODS => (MapType::Hash, size_of::<Ip4>(), size_of::<Pod>(), MAX_PODS),
        map::VETHS => (
            MapType::Hash,
            size_of::<IfIndex>(),
            size_of::<Veth>(),
            MAX_PODS,
        ),
        map::DST4 => (
            MapType::LpmTrie,
            size_of::<u32>() + size_of::<Ip4>(),
            size_of::<ClassEntry>(),
            MAX_CLASSES,
        ),
        map::DENY => (
            MapType::LpmTrie,
            size_of::<u32>() + size_of::<Ip4>(),
            size_of::<u32>(),
            MAX_DENIED,
        ),
        map::FLOWS => (
            MapType::Hash,
            size_of::<FlowKey>(),
            size_of::<Flow>(),
            MAX_FLOWS,
        ),
        map::SNAT => (
            MapType::Hash,
            size_of::<BindingKey>(),
            size_of::<Binding>(),
            MAX_BINDINGS,
        ),
        map::STATS => (
            MapType::PerCpuArray,
            size_of::<u32>(),
            size_of::<Counter>(),
            MAX_PODS * abi::Path::STRIDE,
        ),
        map::DROPS => (
            MapType::PerCpuArray,
            size_of::<u32>(),
            size_of::<Counter>(),
            DropReason::CAPACITY,
        ),
        map::SNAT_OPEN => (MapType::Array, size_of::<u32>(), size_of::<u32>(), MAX_PODS),
        map::FLOWS_LOST => (MapType::Array, size_of::<u32>(), size_of::<u32>(), 1),
        map::VETH_CACHE => (
            MapType::PerCpuArray,
            size_of::<u32>(),
            size_of::<CachedVeth>(),
            CachedVeth::CAPACITY,
        ),
        map::PEER_CACHE => (
            MapType::PerCpuArray,
            size_of::<u32>(),
            size_of::<CachedPeer>(),
            CachedPeer::CAPACITY,
        ),
        map::FLOW_CACHE => (
            MapType::PerCpuArray,
            size_of::<u32>(),
            size_of::<CachedFlow>(),
            CachedFlow::CAPACITY,
        ),
        map::FRAGMENTS => (
            MapType::LruHash,
            size_of::<FragmentKey>(),
            size_of::<Fragment>(),
            MAX_FRAGMENTS,
        ),
        map::WATCH => (
            MapType::Array,
            size_of::<u32>(),
            size_of::<u32>(),
            Watch::CAPACITY,
        ),
        // One entry for each CPU.
        name if map::EVENTS.contains(&name) => (
            MapType::PerfEventArray,
            size_of::<u32>(),
            size_of::<u32>(),
            0,
        ),
        _ => return None,
    };
    Some(Layout {
        kind,
        key,
        value,
        entries,
    })
}

/// Removes the pins of maps whose layout differs from this build's. `true`: at least one map stays.
fn keep_matching(pins: &Pins) -> Result<bool, ObjectError> {
    let mut kept = false;
    for name in map::ALL {
        let path = pins.map(name);
        if !path.exists() {
            continue;
        }
        let found = MapInfo::from_pin(&path)
            .and_then(|info| {
                Ok(Layout {
                    kind: info.map_type()?,
                    key: widen(info.key_size()),
                    value: widen(info.value_size()),
                    // A size that is configured counts for a new table only: to make one anew breaks its connections.
                    entries: match name {
                        map::FLOWS => MAX_FLOWS,
                        map::SNAT => MAX_BINDINGS,
                        name if map::EVENTS.contains(&name) => 0,
                        _ => info.max_entries(),
                    },
                })
            })
            .map_err(|source| ObjectError::Inspect {
                path: path.clone(),
                source,
            })?;
        if layout(name) == Some(found) {
            kept = true;
        } else {
            warn!(map = name, ?found, expected = ?layout(name), "pinned map has another layout: starting it anew");
            fs::remove_file(&path).map_err(|source| ObjectError::Directory { path, source })?;
        }
    }
    if kept {
        info!("took over the maps of an earlier start");
    }
    Ok(kept)
}

fn widen(size: u32) -> usize {
    usize::try_from(size).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_map_has_a_layout_or_each_start_would_make_it_anew() {
        for name in map::ALL {
            assert!(layout(name).is_some(), "{name}");
        }
    }
}
