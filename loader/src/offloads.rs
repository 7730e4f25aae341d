//! Which offloads does an interface have? What `ethtool -k` prints, as far as an XDP program may cost it.

use std::ffi::c_void;
use std::io;
use std::os::fd::AsRawFd as _;

use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// `SIOCETHTOOL` of `linux/sockios.h`.
const SIOCETHTOOL: libc::c_ulong = 0x8946;
/// `ETHTOOL_GFLAGS` of `linux/ethtool.h`: several offloads in one word.
const GFLAGS: u32 = 0x25;

/// Name, command, and the bit of its answer.
const OFFLOADS: [(&str, u32, u32); 10] = [
    ("rx-checksumming", 0x14, 1),
    ("tx-checksumming", 0x16, 1),
    ("scatter-gather", 0x18, 1),
    ("tcp-segmentation-offload", 0x1e, 1),
    ("generic-segmentation-offload", 0x23, 1),
    ("generic-receive-offload", 0x2b, 1),
    ("large-receive-offload", GFLAGS, 1 << 15),
    ("rx-vlan-offload", GFLAGS, 1 << 8),
    ("tx-vlan-offload", GFLAGS, 1 << 7),
    ("receive-hashing", GFLAGS, 1 << 28),
];

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// Names of the offloads that are on. Those that the driver does not know are off.
pub(crate) fn enabled(ifname: &str) -> io::Result<Vec<&'static str>> {
    let control = socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    let mut enabled = Vec::new();
    for (name, command, bit) in OFFLOADS {
        let mut value = Value { command, data: 0 };
        // SAFETY: every bit pattern of the struct, zeros too, is a valid ifreq.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        if ifname.len() >= request.ifr_name.len() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        for (place, byte) in request.ifr_name.iter_mut().zip(ifname.bytes()) {
            *place = libc::c_char::from_ne_bytes([byte]);
        }
        request.ifr_ifru.ifru_data = (&raw mut value).cast::<c_void>().cast();
        // SAFETY: the name ends with a zero, and the pointer is to a live struct of the size that the command writes.
        let done = unsafe { libc::ioctl(control.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
        if done == 0 && value.data & bit != 0 {
            enabled.push(name);
        }
    }
    Ok(enabled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_has_offloads_and_a_missing_one_none() {
        let enabled = enabled("lo").unwrap();
        assert!(enabled.contains(&"scatter-gather"), "{enabled:?}");
        assert_eq!(super::enabled("no-such-nic").unwrap(), Vec::<&str>::new());
        assert!(super::enabled("a-name-that-is-too-long").is_err());
    }
}
