//! Reads a hash map thousands of entries at a time, and removes some at a time: one by one, a sweep over a full table takes
//! seconds of a busy node.
//!
//! `BPF_MAP_LOOKUP_BATCH` (Linux 5.6) copies whole buckets, so that an entry that is there all the while is told exactly once,
//! whatever comes and goes beside it.

use std::io;
use std::marker::PhantomData;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::Path;

use aya::maps::{MapData, MapError};
use aya_obj::generated::{bpf_attr, bpf_cmd};
use nix::libc;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

/// A table could not be read.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// Its pin cannot be opened.
    #[error(transparent)]
    Open(#[from] MapError),
    /// The map is not one of these keys and values.
    #[error("read map {map} in batches: its keys and values have other sizes than this build's")]
    Layout {
        /// The pin's name.
        map: String,
    },
    /// The kernel refuses.
    #[error("read map {map} in batches: {source}")]
    Read {
        /// The pin's name.
        map: String,
        /// The system's reason.
        source: io::Error,
    },
    /// The same of removing.
    #[error("remove from map {map} in batches: {source}")]
    Remove {
        /// The pin's name.
        map: String,
        /// The system's reason.
        source: io::Error,
    },
}

/// Entries of one system call.
const ENTRIES: u32 = 2048;
/// Where the kernel has come to.
type Place = [u32; 4];

/// Shows `visit` every entry of the pinned hash map at `pin`.
pub fn each_entry<K, V>(pin: &Path, mut visit: impl FnMut(&K, &V)) -> Result<(), BatchError>
where
    K: FromBytes + IntoBytes + FromZeros + Clone,
    V: FromBytes + IntoBytes + FromZeros + Clone,
{
    let map = || name(pin);
    let data = MapData::from_pin(pin)?;
    let info = data.info()?;
    let is = |found: u32, wanted: usize| usize::try_from(found) == Ok(wanted);
    if !is(info.key_size(), size_of::<K>()) || !is(info.value_size(), size_of::<V>()) {
        return Err(BatchError::Layout { map: map() });
    }
    let length = ENTRIES as usize;
    let mut keys = vec![K::new_zeroed(); length];
    let mut values = vec![V::new_zeroed(); length];
    let (mut place, mut next) = (Place::default(), Place::default());
    let mut is_first = true;
    loop {
        // SAFETY: all bits zero are a valid attribute.
        let mut attribute: bpf_attr = unsafe { zeroed() };
        attribute.batch.in_batch = if is_first { 0 } else { address(&mut place) };
        attribute.batch.out_batch = address(&mut next);
        attribute.batch.keys = keys.as_mut_ptr() as u64;
        attribute.batch.values = values.as_mut_ptr() as u64;
        attribute.batch.count = ENTRIES;
        attribute.batch.map_fd = data.fd().as_fd().as_raw_fd().cast_unsigned();
        let done = call(bpf_cmd::BPF_MAP_LOOKUP_BATCH, &mut attribute);
        // SAFETY: the kernel has written the count, whether there is more or not; every bit pattern is one.
        let count = unsafe { attribute.batch.count };
        let is_last = match done {
            Ok(()) => false,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
            Err(source) => return Err(BatchError::Read { map: map(), source }),
        };
        let filled = count.min(ENTRIES) as usize;
        for (key, value) in keys.iter().zip(&values).take(filled) {
            visit(key, value);
        }
        if is_last {
            return Ok(());
        }
        place = next;
        is_first = false;
    }
}

/// Removes entries of a pinned hash map, as many at a time as are given.
#[derive(Debug)]
pub struct Remover<K> {
    map: String,
    data: MapData,
    keys: PhantomData<K>,
}

impl<K: IntoBytes + Immutable> Remover<K> {
    /// Opens the map.
    pub fn open(pin: &Path) -> Result<Self, BatchError> {
        let (map, data) = (name(pin), MapData::from_pin(pin)?);
        if usize::try_from(data.info()?.key_size()) != Ok(size_of::<K>()) {
            return Err(BatchError::Layout { map });
        }
        Ok(Self {
            map,
            data,
            keys: PhantomData,
        })
    }

    /// Removes these. Returns how many were there.
    pub fn remove(&self, mut keys: &[K]) -> Result<u32, BatchError> {
        let mut removed = 0;
        while let Ok(count @ 1..) = u32::try_from(keys.len()) {
            // SAFETY: all bits zero are a valid attribute.
            let mut attribute: bpf_attr = unsafe { zeroed() };
            attribute.batch.keys = keys.as_ptr() as u64;
            attribute.batch.count = count;
            attribute.batch.map_fd = self.data.fd().as_fd().as_raw_fd().cast_unsigned();
            let done = call(bpf_cmd::BPF_MAP_DELETE_BATCH, &mut attribute);
            // SAFETY: the kernel has written how many it has removed; every bit pattern is a count.
            let here = unsafe { attribute.batch.count }.min(count);
            removed += here;
            match done {
                Ok(()) => break,
                // It stops at the first that is not there.
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                    keys = keys.get(here as usize + 1..).unwrap_or_default();
                }
                Err(source) => {
                    let map = self.map.clone();
                    return Err(BatchError::Remove { map, source });
                }
            }
        }
        Ok(removed)
    }
}

fn name(pin: &Path) -> String {
    let name = pin.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

fn address(place: &mut Place) -> u64 {
    place.as_mut_ptr() as u64
}

fn call(command: bpf_cmd, attribute: &mut bpf_attr) -> io::Result<()> {
    let command = libc::c_long::from(command as u32);
    // SAFETY: the attribute is whole, and what it points to is alive and as long as it says: keys and values of the map's sizes,
    // which the callers have compared, and a place of sixteen bytes, of which a hash map uses four. Keys and values that the
    // kernel writes are types for which every bit pattern is valid.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attribute),
            size_of::<bpf_attr>(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
