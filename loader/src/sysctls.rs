//! The kernel's settings that pods' traffic needs, and who flips them finds them flipped back.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A setting cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("set {path} to {value}: {source}; pods need it")]
pub struct SysctlError {
    /// The file below /proc/sys.
    path: PathBuf,
    value: &'static str,
    source: io::Error,
}

/// Turns IPv4 forwarding on. `true`: it was off.
pub fn enable_forwarding() -> Result<bool, SysctlError> {
    ensure(Path::new("/proc/sys/net/ipv4/ip_forward"), "1")
}

/// Turns forwarding of what comes in by the NIC on.
pub(crate) fn ensure_nic(nic: &str) -> Result<bool, SysctlError> {
    ensure(&of("ipv4", nic, "forwarding"), "1")
}

/// A host veth's: forwarding, and what ADD has set (`cni/src/sysctl.rs`). `true`: one of them was another.
pub(crate) fn ensure_veth(veth: &str) -> Result<bool, SysctlError> {
    let settings = [
        ("ipv4", "forwarding", "1"),
        ("ipv4", "accept_redirects", "0"),
        ("ipv6", "disable_ipv6", "1"),
    ];
    let set = settings.map(|(family, name, value)| ensure(&of(family, veth, name), value));
    // All of them, whatever comes of the first.
    set.into_iter()
        .try_fold(false, |changed, set| Ok(changed | set?))
}

fn of(family: &str, interface: &str, name: &str) -> PathBuf {
    Path::new("/proc/sys/net")
        .join(family)
        .join("conf")
        .join(interface)
        .join(name)
}

/// An interface that is gone and a kernel without the protocol have nothing to be told.
fn ensure(path: &Path, value: &'static str) -> Result<bool, SysctlError> {
    let set = || -> io::Result<bool> {
        if fs::read_to_string(path)?.trim() == value {
            return Ok(false);
        }
        fs::write(path, value)?;
        Ok(true)
    };
    match set() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        done => done.map_err(|source| SysctlError {
            path: path.to_owned(),
            value,
            source,
        }),
    }
}
