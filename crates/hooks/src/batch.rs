//! Reads a map thousands of entries at a time, and removes some at a time: one by one, a sweep over a full table takes
//! seconds of a busy node.
//!
//! `BPF_MAP_LOOKUP_BATCH` (Linux 5.6; of per-CPU arrays, 5.13) copies whole buckets of a hash map, so that an entry that is there
//! all the while is told exactly once, whatever comes and goes beside it.

use std::io;
use std::marker::PhantomData;
use std::mem::{size_of, swap, zeroed};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::Path;

use aya::maps::{MapData, MapError};
use aya_obj::generated::{bpf_attr, bpf_cmd};
use nix::libc;
use zerocopy::{FromBytes, Immutable, IntoBytes};

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

/// Shows `visit` every entry of the pinned hash map at `pin`.
pub fn each_entry<K, V>(pin: &Path, mut visit: impl FnMut(&K, &V)) -> Result<(), BatchError>
where
    K: FromBytes,
    V: FromBytes,
{
    let map = || name(pin);
    let data = MapData::from_pin(pin)?;
    let info = data.info()?;
    let sizes = (size_of::<K>(), size_of::<V>());
    let is = |found: u32, wanted: usize| usize::try_from(found) == Ok(wanted);
    if !is(info.key_size(), sizes.0) || !is(info.value_size(), sizes.1) {
        return Err(BatchError::Layout { map: map() });
    }
    let read = each(&data, sizes, |key, value| {
        if let (Ok(key), Ok(value)) = (K::read_from_bytes(key), V::read_from_bytes(value)) {
            visit(&key, &value);
        }
        Ok(())
    });
    read.map_err(|source| BatchError::Read { map: map(), source })
}

/// Shows `visit` every entry of a map whose keys and values have these sizes in bytes; of a per-CPU map, the values of all CPUs.
/// Ends at the first error.
pub(crate) fn each(
    data: &MapData,
    (key, value): (usize, usize),
    mut visit: impl FnMut(&[u8], &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let length = ENTRIES as usize;
    let (mut keys, mut values) = (vec![0; length * key], vec![0; length * value]);
    // Where the kernel has come to: a hash map says it in four bytes, others by a key.
    let (mut place, mut next) = (vec![0; key.max(4)], vec![0; key.max(4)]);
    let mut is_first = true;
    loop {
        // SAFETY: all bits zero are a valid attribute.
        let mut attribute: bpf_attr = unsafe { zeroed() };
        attribute.batch.in_batch = if is_first { 0 } else { address(&mut place) };
        attribute.batch.out_batch = address(&mut next);
        attribute.batch.keys = address(&mut keys);
        attribute.batch.values = address(&mut values);
        attribute.batch.count = ENTRIES;
        attribute.batch.map_fd = data.fd().as_fd().as_raw_fd().cast_unsigned();
        let done = call(bpf_cmd::BPF_MAP_LOOKUP_BATCH, &mut attribute);
        let is_last = match done {
            Ok(()) => false,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
            Err(error) => return Err(error),
        };
        // SAFETY: the kernel has written the count, whether there is more or not; every bit pattern is one.
        let filled = unsafe { attribute.batch.count }.min(ENTRIES) as usize;
        for (key, value) in keys.chunks(key).zip(values.chunks(value)).take(filled) {
            visit(key, value)?;
        }
        if is_last {
            return Ok(());
        }
        swap(&mut place, &mut next);
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

fn address(bytes: &mut [u8]) -> u64 {
    bytes.as_mut_ptr() as u64
}

fn call(command: bpf_cmd, attribute: &mut bpf_attr) -> io::Result<()> {
    let command = libc::c_long::from(command as u32);
    // SAFETY: the attribute is whole, and what it points to is alive and as long as it says: keys and values of the map's sizes,
    // which the callers have compared, and places as long as a key, of which a hash map uses four bytes. The kernel writes into
    // bytes only.
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
