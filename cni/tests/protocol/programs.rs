//! Programs that pass every packet on, pinned where the loader's would be: enough for ADD to attach something.

use std::ffi::{CStr, CString, c_long};
use std::fs;
use std::io;

use nix::libc;

/// `union bpf_attr`, as far as `BPF_PROG_LOAD` reads it.
#[repr(C)]
#[derive(Default)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
}

/// `union bpf_attr`, as far as `BPF_OBJ_PIN` reads it.
#[repr(C)]
#[derive(Default)]
struct ObjPin {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

const BPF_PROG_LOAD: i32 = 5;
const BPF_OBJ_PIN: i32 = 6;
const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;
/// `r0 = -1` (`TCX_NEXT`), `exit`; little-endian or big-endian alike, as no field is longer than a byte but the constant.
const PASS: [[u8; 8]; 2] = [
    [0xb7, 0, 0, 0, 0xff, 0xff, 0xff, 0xff],
    [0x95, 0, 0, 0, 0, 0, 0, 0],
];
const LICENSE: &CStr = c"GPL";

/// Pins all four programs in this sandbox's bpffs.
pub(crate) fn pin() {
    let root = format!("/sys/fs/bpf/azure-vnet/v{}", abi_version());
    for directory in ["maps", "programs", "links"] {
        fs::create_dir_all(format!("{root}/{directory}")).unwrap();
    }
    for name in ["to_pod", "from_pod", "to_wire", "from_wire"] {
        let mut load = ProgLoad {
            prog_type: BPF_PROG_TYPE_SCHED_CLS,
            insn_cnt: 2,
            insns: PASS.as_ptr() as u64,
            license: LICENSE.as_ptr() as u64,
            ..ProgLoad::default()
        };
        load.prog_name[..name.len()].copy_from_slice(name.as_bytes());
        let program = bpf(BPF_PROG_LOAD, &load);
        let path = CString::new(format!("{root}/programs/{name}")).unwrap();
        let pinned = ObjPin {
            pathname: path.as_ptr() as u64,
            bpf_fd: u32::try_from(program).unwrap(),
            ..ObjPin::default()
        };
        bpf(BPF_OBJ_PIN, &pinned);
    }
}

/// The directory's version, taken from the plug-in's own idea of it.
fn abi_version() -> String {
    let root = hooks::Pins::default().root().to_owned();
    let name = root.file_name().unwrap().to_str().unwrap();
    name.trim_start_matches('v').to_owned()
}

fn bpf<T>(command: i32, attribute: &T) -> c_long {
    // SAFETY: `attribute` is a prefix of `union bpf_attr` of exactly this size, and what it points to outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attribute, size_of::<T>()) };
    assert!(result >= 0, "{}", io::Error::last_os_error());
    result
}
