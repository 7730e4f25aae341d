//! Holds what is pinned, so that it outlives its pins.

use std::collections::BTreeMap;
use std::fs::{self, DirEntry};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirEntryExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use crate::{Pins, sys};

/// Maps, programs and links, each with its pin. While they are held, removing a pin, or unmounting bpffs with all of them,
/// takes nothing out of the kernel, and the pins can be made again.
#[derive(Debug, Default)]
pub struct Held(BTreeMap<PathBuf, Object>);

#[derive(Debug)]
struct Object {
    descriptor: OwnedFd,
    pin: Pin,
}

/// Which file it is: device and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pin(u64, u64);

impl Pin {
    fn at(path: &Path) -> io::Result<Self> {
        let file = fs::symlink_metadata(path)?;
        Ok(Self(file.dev(), file.ino()))
    }
}

impl Held {
    /// Holds what is pinned now, and nothing else. After an error, what was held before.
    pub fn hold(&mut self, pins: &Pins) -> io::Result<()> {
        let mut fresh = BTreeMap::new();
        let mut same = Vec::new();
        for directory in pins.directories() {
            for (path, pin) in pinned(&directory)? {
                if self.0.get(&path).is_some_and(|object| object.pin == pin) {
                    same.push(path);
                } else {
                    let descriptor = sys::open(&path)?;
                    fresh.insert(path, Object { descriptor, pin });
                }
            }
        }
        self.0.retain(|path, _| same.contains(path));
        self.0.append(&mut fresh);
        Ok(())
    }

    /// Pins again what has lost its pin, or whose pin is another file by now. Returns their paths.
    ///
    /// The caller has made sure that there is a bpffs.
    pub fn restore(&mut self, pins: &Pins) -> io::Result<Vec<PathBuf>> {
        let mut there = BTreeMap::new();
        for directory in pins.directories() {
            match pinned(&directory) {
                Ok(pins) => there.extend(pins),
                Err(absent) if absent.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        let mut restored = Vec::new();
        for (path, object) in &mut self.0 {
            let is_other = match there.get(path) {
                Some(pin) if *pin == object.pin => continue,
                Some(_) => true,
                None => false,
            };
            if restored.is_empty() {
                pins.make_directories()?;
            }
            if is_other {
                fs::remove_file(path)?;
            }
            sys::pin(&object.descriptor, path)?;
            object.pin = Pin::at(path)?;
            restored.push(path.clone());
        }
        Ok(restored)
    }
}

/// What is pinned in a directory, in a few system calls, because it is asked every other second: the list has the files' numbers.
fn pinned(directory: &Path) -> io::Result<Vec<(PathBuf, Pin)>> {
    let device = fs::metadata(directory)?.dev();
    let pin = |entry: io::Result<DirEntry>| {
        let entry = entry?;
        Ok((entry.path(), Pin(device, entry.ino())))
    };
    fs::read_dir(directory)?.map(pin).collect()
}
