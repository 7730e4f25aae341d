//! Standard output is the protocol: one JSON document, written here and nowhere else.

use std::io::{self, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::libc;

use serde_json::Value;

use crate::error::Error;

/// Whether standard output was closed when the process began: Rust opens `/dev/null` in its place, which takes every answer.
static WAS_CLOSED: AtomicBool = AtomicBool::new(false);

/// Looked at by the C library, before Rust's own start.
// SAFETY: the section holds pointers to functions of this type, which the C library calls once each, in one thread.
#[used]
#[unsafe(link_section = ".init_array")]
static LOOK: extern "C" fn() = look;

extern "C" fn look() {
    // SAFETY: F_GETFD only reads the flags of a descriptor, whatever it is.
    let flags = unsafe { libc::fcntl(libc::STDOUT_FILENO, libc::F_GETFD) };
    WAS_CLOSED.store(flags == -1, Ordering::Relaxed);
}

/// Writes one document and a newline.
pub(crate) fn print(document: &Value) -> Result<(), Error> {
    text(&format!("{document}\n"))
}

/// Writes plain text: for `--version` and `--help` only.
pub(crate) fn text(text: &str) -> Result<(), Error> {
    if WAS_CLOSED.load(Ordering::Relaxed) {
        return Err(Error::Output {
            source: io::Error::from_raw_os_error(libc::EBADF),
        });
    }
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .map_err(|source| Error::Output { source })
}

/// One line for the runtime's own log. Nobody may read it, so failing is fine.
pub(crate) fn diagnose(line: &str) {
    drop(writeln!(io::stderr().lock(), "{line}"));
}
