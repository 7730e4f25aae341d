//! A program that does nothing, to measure the others by. No compiler has seen it, so it is loaded by the system call itself.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::time::Duration;

use nix::libc;

/// `r0 = 0; exit`.
const PROGRAM: [u64; 2] = [0x0000_0000_0000_00b7, 0x0000_0000_0000_0095];

/// Commands of bpf(2).
const PROG_LOAD: libc::c_int = 5;
const PROG_TEST_RUN: libc::c_int = 10;
const SCHED_CLS: u32 = 3;

/// The beginning of `union bpf_attr` for `BPF_PROG_LOAD` (`linux/bpf.h`). What follows is zero.
#[repr(C)]
#[derive(Default)]
struct Load {
    kind: u32,
    count: u32,
    program: u64,
    license: u64,
    rest: [u64; 12],
}

/// The same for `BPF_PROG_TEST_RUN`.
#[repr(C)]
#[derive(Default)]
struct TestRun {
    program: u32,
    returned: u32,
    size_in: u32,
    size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    rest: [u64; 4],
}

pub(crate) struct Empty(OwnedFd);

impl Empty {
    pub(crate) fn load() -> Self {
        let mut attributes = Load {
            kind: SCHED_CLS,
            count: 2,
            program: PROGRAM.as_ptr() as u64,
            license: c"GPL".as_ptr() as u64,
            ..Load::default()
        };
        let fd = bpf(PROG_LOAD, &mut attributes);
        // SAFETY: the kernel has just made this descriptor for us; nobody else knows it.
        Self(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    /// One run on a frame, as the kernel times it.
    pub(crate) fn run(&self, frame: &[u8]) -> Duration {
        let mut attributes = TestRun {
            program: self.0.as_raw_fd().unsigned_abs(),
            size_in: frame.len().try_into().unwrap(),
            data_in: frame.as_ptr() as u64,
            repeat: 1,
            ..TestRun::default()
        };
        bpf(PROG_TEST_RUN, &mut attributes);
        Duration::from_nanos(attributes.duration.into())
    }
}

fn bpf<T>(command: libc::c_int, attributes: &mut T) -> i32 {
    // SAFETY: the kernel reads and writes no more of the attributes than their size, and both kinds of attributes point to
    // memory that outlives the call and is at least as long as they say.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attributes),
            size_of::<T>(),
        )
    };
    let result = i32::try_from(result).unwrap();
    assert!(
        result >= 0,
        "bpf({command}): {}",
        io::Error::last_os_error()
    );
    result
}
