//! A pinned map as bytes: for maps of another build, whose types this one does not have.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::Path;

use aya::maps::{MapData, MapError, MapInfo, MapType};
use nix::errno::Errno;
use nix::libc::{SYS_bpf, syscall};

use crate::batch::each;

/// `BPF_MAP_LOOKUP_ELEM`, `BPF_MAP_UPDATE_ELEM` and `BPF_MAP_DELETE_ELEM` of `linux/bpf.h`.
const LOOKUP: u32 = 1;
const UPDATE: u32 = 2;
const DELETE: u32 = 3;

/// `BPF_NOEXIST`: only if the key is not there.
const NO_EXIST: u64 = 1;

/// The part of `union bpf_attr` for elements of maps.
#[repr(C)]
struct Element {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// A map, its elements as bytes.
#[derive(Debug)]
pub struct RawMap {
    map: MapData,
    info: MapInfo,
    key: usize,
    /// Of a per-CPU map, the values of all CPUs.
    value: usize,
}

impl RawMap {
    /// Opens the map that is pinned there.
    pub fn open(pin: &Path) -> Result<Self, MapError> {
        Self::new(MapData::from_pin(pin)?)
    }

    /// Takes this map.
    pub fn new(map: MapData) -> Result<Self, MapError> {
        let info = map.info()?;
        let size = |size: u32| usize::try_from(size).unwrap_or(usize::MAX);
        let (key, mut value) = (size(info.key_size()), size(info.value_size()));
        if matches!(
            info.map_type()?,
            MapType::PerCpuArray | MapType::PerCpuHash | MapType::LruPerCpuHash
        ) {
            let cpus = aya::util::nr_cpus().map_err(|(_, error)| MapError::IoError(error))?;
            value = value.next_multiple_of(8) * cpus;
        }
        Ok(Self {
            map,
            info,
            key,
            value,
        })
    }

    /// What the kernel says of the map.
    pub fn info(&self) -> &MapInfo {
        &self.info
    }

    /// Shows `visit` every key and value, of tables under traffic those that are there all the while exactly once. Ends at the
    /// first error.
    pub fn each(&self, visit: impl FnMut(&[u8], &[u8]) -> io::Result<()>) -> io::Result<()> {
        each(&self.map, (self.key, self.value), visit)
    }

    /// The value of a key.
    pub fn get(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let mut value = vec![0; self.value];
        self.check(key, self.key)?;
        found(self.call(LOOKUP, key, value.as_mut_ptr(), 0)).map(|found| found.then_some(value))
    }

    /// Writes an entry, whether or not the key is there.
    pub fn put(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.update(key, value, 0)
    }

    /// Adds an entry, unless the key is there already. `false`: it is, or there is no room.
    pub fn add(&self, key: &[u8], value: &[u8]) -> io::Result<bool> {
        match self.update(key, value, NO_EXIST) {
            Ok(()) => Ok(true),
            Err(error)
                if [Errno::EEXIST, Errno::E2BIG]
                    .map(|errno| Some(errno as i32))
                    .contains(&error.raw_os_error()) =>
            {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Removes an entry; none is success.
    pub fn remove(&self, key: &[u8]) -> io::Result<()> {
        self.check(key, self.key)?;
        found(self.call(DELETE, key, std::ptr::null_mut(), 0)).map(|_| ())
    }

    fn update(&self, key: &[u8], value: &[u8], flags: u64) -> io::Result<()> {
        self.check(key, self.key)?;
        self.check(value, self.value)?;
        self.call(UPDATE, key, value.as_ptr().cast_mut(), flags)
    }

    /// The kernel reads and writes as many bytes as the map says.
    fn check(&self, bytes: &[u8], size: usize) -> io::Result<()> {
        if bytes.len() == size {
            return Ok(());
        }
        let name = self.info.name_as_str().unwrap_or_default();
        Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{} bytes for {size} of map `{name}`", bytes.len()),
        ))
    }

    /// `value`: as many bytes as a value has; read by [`UPDATE`], written by [`LOOKUP`], nothing to [`DELETE`].
    fn call(&self, command: u32, key: &[u8], value: *mut u8, flags: u64) -> io::Result<()> {
        let address = |pointer: *const u8| u64::try_from(pointer.expose_provenance()).unwrap_or(0);
        let element = Element {
            map: u32::try_from(self.map.fd().as_fd().as_raw_fd()).unwrap_or(u32::MAX),
            padding: 0,
            key: address(key.as_ptr()),
            value: address(value),
            flags,
        };
        // SAFETY: `element` is the whole of what these commands read of `bpf_attr` (DELETE takes only a prefix of it, and wants the
        // rest to be zero, which it is), and lives through the call, as do key and value, whose lengths are those that the kernel has for this map: `check` compared them, or they were allocated so.
        let done = unsafe { syscall(SYS_bpf, command, &raw const element, size_of::<Element>()) };
        if done == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }
}

/// `false`: no such entry.
fn found(done: io::Result<()>) -> io::Result<bool> {
    match done {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
