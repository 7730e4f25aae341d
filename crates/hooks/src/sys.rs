//! The commands of bpf(2) that aya has not, or not as they are needed here: its query opens each program by its id, which
//! takes `CAP_SYS_ADMIN`, where the ids alone take `CAP_NET_ADMIN`; and what is pinned it opens only as what it is.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use aya_obj::generated::{bpf_attach_type, bpf_attr, bpf_cmd};
use nix::libc;

use crate::hook::Direction;

/// More programs than anybody puts at one place.
const MOST: u32 = 64;

/// Opens what is pinned at `path`, whatever it is.
pub(crate) fn open(path: &Path) -> io::Result<OwnedFd> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = empty();
    attr.__bindgen_anon_4.pathname = address(name.as_ptr());
    let fd = bpf(bpf_cmd::BPF_OBJ_GET, &mut attr)?;
    // SAFETY: the kernel has just made the descriptor, for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Pins an object at `path`.
pub(crate) fn pin(object: &impl AsFd, path: &Path) -> io::Result<()> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = empty();
    attr.__bindgen_anon_4.pathname = address(name.as_ptr());
    attr.__bindgen_anon_4.bpf_fd = number(object);
    bpf(bpf_cmd::BPF_OBJ_PIN, &mut attr).map(drop)
}

/// Takes the program of a link off its interface, whoever holds the link.
pub(crate) fn detach(link: &impl AsFd) -> io::Result<()> {
    let mut attr = empty();
    attr.link_detach.link_fd = number(link);
    bpf(bpf_cmd::BPF_LINK_DETACH, &mut attr).map(drop)
}

/// Waits until every program that has begun before has ended, with what it then knew of maps and links: they run as readers of RCU,
/// and `membarrier(2)` for all processes waits for a grace period. Refused by a kernel with `nohz_full` CPUs.
pub fn wait_for_programs() -> io::Result<()> {
    // `MEMBARRIER_CMD_GLOBAL` of `linux/membarrier.h`.
    const GLOBAL: libc::c_long = 1;
    // SAFETY: the call takes three numbers and touches no memory of ours.
    match unsafe { libc::syscall(libc::SYS_membarrier, GLOBAL, 0, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The ids of TCX's programs on one side of an interface, in the order in which they run.
pub(crate) fn tcx_programs(ifindex: u32, direction: Direction) -> io::Result<Vec<u32>> {
    let mut ids = vec![0_u32; MOST as usize];
    let mut attr = empty();
    attr.query.__bindgen_anon_1.target_ifindex = ifindex;
    attr.query.attach_type = match direction {
        Direction::Ingress => bpf_attach_type::BPF_TCX_INGRESS,
        Direction::Egress => bpf_attach_type::BPF_TCX_EGRESS,
    } as u32;
    attr.query.prog_ids = address(ids.as_mut_ptr());
    attr.query.__bindgen_anon_2.prog_cnt = MOST;
    bpf(bpf_cmd::BPF_PROG_QUERY, &mut attr)?;
    // SAFETY: both variants of the union are a `u32` that the kernel has written.
    let count = unsafe { attr.query.__bindgen_anon_2.prog_cnt };
    ids.truncate(count as usize);
    Ok(ids)
}

fn empty() -> bpf_attr {
    // SAFETY: a union of plain numbers, for all of which zero is a value.
    unsafe { std::mem::zeroed() }
}

fn address<T>(of: *const T) -> u64 {
    of.addr() as u64
}

fn number(fd: &impl AsFd) -> u32 {
    // A descriptor is never negative.
    fd.as_fd().as_raw_fd().unsigned_abs()
}

fn bpf(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<i32> {
    let size = size_of::<bpf_attr>();
    // SAFETY: the pointer leads to a whole, initialised `bpf_attr` of the size that is told; the addresses in it are of
    // buffers that the callers keep until this returns.
    let done = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command as u32,
            std::ptr::from_mut(attr),
            size,
        )
    };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    i32::try_from(done).map_err(io::Error::other)
}
