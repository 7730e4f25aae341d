//! The BPF object: embedded, loaded over the maps that are pinned already, and pinned in its turn.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use abi::pins::{BPFFS, DIRECTORY, map, program};
use aya::maps::MapError;
use aya::programs::{Program, ProgramError, SchedClassifier};
use aya::{Ebpf, EbpfError, EbpfLoader, include_bytes_aligned};
use hooks::{Maps, MapsError, Pins};
use nix::sys::statfs::statfs;
use tracing::{debug, info, warn};

use crate::carry::{Carry, CarryError};
use crate::config::TableSizes;
use crate::layouts::{self, Notes, Plan};

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
    /// Whether maps of an earlier start, or their entries, were taken over.
    pub adopted: bool,
    /// Entries of maps of another layout, on their way.
    pub carry: Carry,
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
    /// A pinned map looks otherwise, and nobody knows how to get its entries over.
    #[error(
        "the pinned map {path} has another layout: {found}; this build has {expected}, and knows no way; start the version that \
         made it, or one in between, or give its connections up: rm -r {BPFFS}/{DIRECTORY}"
    )]
    Layout {
        /// The pin.
        path: PathBuf,
        /// Its layout.
        found: String,
        /// This build's.
        expected: String,
    },
    /// A pin was not made by a loader.
    #[error(
        "{path} was not pinned by azure-vnet-loader, or by one that was never released; if no other program needs it, remove it: \
         rm -r {path}"
    )]
    NotOurs {
        /// The pin.
        path: PathBuf,
    },
    /// Pins that are arranged otherwise.
    #[error(
        "{path} holds the pins of another version of azure-vnet-loader, which are arranged otherwise; start that version, or \
         give its connections up: rm -r {path}"
    )]
    OtherVersion {
        /// Their directory.
        path: PathBuf,
    },
    /// Entries cannot be carried over.
    #[error(transparent)]
    Carry(#[from] CarryError),
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

/// Loads and pins everything. Maps that are pinned already and have the right layout are used again, and the entries of those that
/// look otherwise are carried over, so that bindings and flows live on; programs are always the new ones, but nothing is
/// attached yet. What is refused is refused before anything is changed.
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
    make_directories(pins)?;
    let mut notes = Notes::open(pins)?;
    let plans = map::ALL.map(|name| layouts::plan(pins, &notes, name));
    let plans: Vec<Plan> = plans.into_iter().collect::<Result<_, _>>()?;

    let mut loader = EbpfLoader::new();
    loader.map_max_entries(map::FLOWS, sizes.flows);
    loader.map_max_entries(map::SNAT, sizes.bindings);
    for plan in &plans {
        loader.map_pin_path(plan.name, plan.pin.clone());
        if let Some(entries) = plan.entries {
            loader.map_max_entries(plan.name, entries);
        }
    }
    let mut object = loader.load(OBJECT)?;
    for plan in plans.iter().filter(|plan| !plan.is_there) {
        notes.write(plan)?;
    }
    let mut carry = Carry::new(pins, &plans)?;
    let settings = carry.settings().map_err(ObjectError::from);
    let programs = match settings.and_then(|()| load_programs(&mut object)) {
        Ok(programs) => programs,
        Err(error) => {
            layouts::remove_made(&plans)?;
            return Err(error);
        }
    };
    let maps = Maps::from_object(&mut object)?;
    carry.place_unrivalled()?;
    notes.tidy(pins)?;
    for name in programs {
        pin_program(&mut object, name, pins)?;
    }
    let adopted = plans
        .iter()
        .any(|plan| plan.is_there || plan.source.is_some());
    if adopted {
        info!("took over the maps of an earlier start");
    }
    Ok(Loaded {
        maps,
        adopted,
        carry,
    })
}

/// What loading the object took, the kernel's types above all, and what the C library would keep for the next time.
pub(crate) fn give_back_memory() {
    // SAFETY: it only gives free pages back to the kernel, and takes the allocator's own locks.
    #[cfg(target_env = "gnu")]
    unsafe {
        nix::libc::malloc_trim(0);
    }
}

/// Makes the pin directories, unless there are those of another version.
fn make_directories(pins: &Pins) -> Result<(), ObjectError> {
    let home = pins.root().parent().into_iter();
    let others = home.filter_map(|home| fs::read_dir(home).ok()).flatten();
    let mut others = others.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    if let Some(path) = others.find(|path| path != pins.root()) {
        return Err(ObjectError::OtherVersion { path });
    }
    pins.make_directories()
        .map_err(|source| ObjectError::Directory {
            path: pins.root().to_owned(),
            source,
        })
}

/// Loads the programs, and says which: a kernel may refuse the guard.
fn load_programs(object: &mut Ebpf) -> Result<Vec<&'static str>, ObjectError> {
    for name in program::ALL {
        load_program(object, name)?;
    }
    let mut loaded = program::ALL.to_vec();
    match load_program(object, program::XDP_GUARD) {
        Ok(()) => loaded.push(program::XDP_GUARD),
        Err(error) => warn!("{}", crate::report::one_line(&error.into())),
    }
    Ok(loaded)
}

fn load_program(object: &mut Ebpf, name: &'static str) -> Result<(), ObjectError> {
    let failed = |source| ObjectError::Verify { name, source };
    let program = find_program(object, name)?;
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
    Ok(())
}

/// Pins a program beside the old one and renames it over that, so that ADD finds a program at every instant.
fn pin_program(object: &mut Ebpf, name: &'static str, pins: &Pins) -> Result<(), ObjectError> {
    let pin_error = |why: String| ObjectError::Pin { name, why };
    let beside = pins.program(&format!("{name}+new"));
    layouts::remove(&beside)?;
    find_program(object, name)?
        .pin(&beside)
        .map_err(|error| pin_error(error.to_string()))?;
    fs::rename(&beside, pins.program(name)).map_err(|error| pin_error(error.to_string()))
}

fn find_program<'a>(
    object: &'a mut Ebpf,
    name: &'static str,
) -> Result<&'a mut Program, ObjectError> {
    object.program_mut(name).ok_or_else(|| ObjectError::Pin {
        name,
        why: "the BPF object has no such program".into(),
    })
}
