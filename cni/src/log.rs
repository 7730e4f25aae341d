//! The log file: one JSON object a line, 5 MB × 8 files as Azure's. Whatever fails here is nobody's business.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde_json::Value;

/// A file that grows beyond this is rotated, bytes.
const MOST_BYTES: u64 = 5_000_000;
/// Files in all: the one that is written and seven old ones.
const FILES: u32 = 8;

/// Appends `entry` to the log at `path`.
pub(crate) fn write(path: &Path, entry: &Value) {
    // A log that cannot be written must never fail a call.
    drop(append(path, entry));
}

fn append(path: &Path, entry: &Value) -> io::Result<()> {
    let mut file = open(path)?;
    if file.metadata()?.len() >= MOST_BYTES && rotate(path, &file)? {
        file = open(path)?;
    }
    // One write of a file opened for appending: lines of parallel calls do not mix.
    file.write_all(format!("{entry}\n").as_bytes())
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
}

/// Moves every file one on. `false` when another call does it just now.
fn rotate(path: &Path, file: &File) -> io::Result<bool> {
    if file.try_lock().is_err() {
        return Ok(false);
    }
    let (ours, there) = (file.metadata()?, fs::metadata(path)?);
    if ours.ino() == there.ino() {
        for number in (1..FILES).rev() {
            let from = if number == 1 {
                path.to_owned()
            } else {
                old(path, number - 1)
            };
            match fs::rename(from, old(path, number)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
    }
    Ok(true)
}

fn old(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_full_log_is_rotated_and_eight_files_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.log");
        for round in 0..10 {
            write(&path, &json!({"round": round}));
            let file = open(&path).unwrap();
            file.set_len(MOST_BYTES).unwrap();
        }
        write(&path, &json!({"round": "last"}));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 8);
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\"round\":\"last\"}\n");
        assert!(
            fs::read_to_string(old(&path, 1))
                .unwrap()
                .starts_with("{\"round\":9}")
        );
        assert!(
            fs::read_to_string(old(&path, 7))
                .unwrap()
                .starts_with("{\"round\":3}")
        );
    }

    #[test]
    fn a_log_that_cannot_be_written_is_ignored() {
        write(Path::new("/nowhere/x.log"), &json!({}));
        write(Path::new("/dev/full"), &json!({}));
    }
}
