//! Per-interface sysctls, written in the calling thread's network namespace.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A sysctl could not be written.
#[derive(Debug, thiserror::Error)]
#[error("write {value} to {path}: {source}; /proc/sys must be writable")]
pub(crate) struct SysctlError {
    path: PathBuf,
    value: &'static str,
    source: io::Error,
}

/// The host veth's settings.
///
/// - IPv6 off: there is no IPv6 in the data path yet, and a veth with IPv6 joins groups, solicits and probes into the pod and
///   believes the pod's router advertisements.
/// - No ICMP redirects from the pod: a pod must not change the node's routes.
///
/// `rp_filter` stays as the node has it: the pod's route goes over this very veth, so that even the strict filter passes what
/// `from_pod` passes. `proxy_arp` is not needed: `from_pod` answers, and the pod's next hop is a permanent neighbour.
pub(crate) fn host_veth(ifname: &str) -> Result<(), SysctlError> {
    write("ipv6", ifname, "disable_ipv6", "1")?;
    write("ipv4", ifname, "accept_redirects", "0")
}

/// The pod's interface: no router solicitations, and no router on the veth is ever believed.
pub(crate) fn pod_interface(ifname: &str) -> Result<(), SysctlError> {
    write("ipv6", ifname, "accept_ra", "0")
}

/// A kernel without the protocol has nothing to be told.
fn write(family: &str, ifname: &str, name: &str, value: &'static str) -> Result<(), SysctlError> {
    let path = Path::new("/proc/sys/net")
        .join(family)
        .join("conf")
        .join(ifname)
        .join(name);
    match fs::write(&path, value) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(SysctlError {
            path,
            value,
            source,
        }),
        Ok(()) | Err(_) => Ok(()),
    }
}
