//! A kernel that fails: any operation of the plug-ins, and of what they start, on a file below a directory, a socket, or BPF.
//!
//! The kernel asks us about each such operation (seccomp's user notification), and we let it do its work or answer in its place.
//! So the products that are tried are those that are shipped; nothing in them knows of it.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::sync::mpsc;
use std::thread;

use nix::errno::Errno;
use nix::libc::{self, c_long, seccomp_notif, seccomp_notif_resp, sock_filter, sock_fprog};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::exec::{Answer, Exec};

/// What the kernel asks about, and which argument says on what.
const WATCHED: [(c_long, &str, Names); 21] = [
    (libc::SYS_openat, "open", Names::Path(1)),
    (libc::SYS_unlinkat, "unlink", Names::Path(1)),
    (libc::SYS_renameat2, "rename", Names::Path(1)),
    (libc::SYS_mkdirat, "mkdir", Names::Path(1)),
    (libc::SYS_linkat, "link", Names::Path(3)),
    (libc::SYS_inotify_add_watch, "watch", Names::Path(1)),
    (libc::SYS_statx, "stat", Names::Path(1)),
    (libc::SYS_flock, "lock", Names::Descriptor),
    (libc::SYS_read, "read", Names::Descriptor),
    (libc::SYS_getdents64, "list", Names::Descriptor),
    (libc::SYS_write, "write", Names::Descriptor),
    (libc::SYS_pwrite64, "write", Names::Descriptor),
    (libc::SYS_ftruncate, "truncate", Names::Descriptor),
    (libc::SYS_fsync, "sync", Names::Descriptor),
    (libc::SYS_connect, "connect", Names::Descriptor),
    (libc::SYS_sendto, "send", Names::Descriptor),
    (libc::SYS_recvfrom, "receive", Names::Descriptor),
    (libc::SYS_bpf, "call", Names::Nothing(BPF)),
    // What glibc still prefers on x86_64.
    (OLD[0], "unlink", Names::Path(0)),
    (OLD[1], "rename", Names::Path(0)),
    (OLD[2], "mkdir", Names::Path(0)),
];
#[cfg(target_arch = "x86_64")]
const OLD: [c_long; 3] = [libc::SYS_unlink, libc::SYS_rename, libc::SYS_mkdir];
#[cfg(not(target_arch = "x86_64"))]
const OLD: [c_long; 3] = [libc::SYS_unlinkat, libc::SYS_renameat, libc::SYS_mkdirat];

#[derive(Clone, Copy)]
enum Names {
    Path(usize),
    /// The first argument.
    Descriptor,
    Nothing(&'static str),
}

/// Every socket, as a [`Fault`]'s `below`: netlink's and the loader's.
pub(crate) const SOCKETS: &str = "socket:";
/// The kernel's BPF.
pub(crate) const BPF: &str = "bpf:";

nix::ioctl_readwrite!(receive, b'!', 0, seccomp_notif);
nix::ioctl_readwrite!(respond, b'!', 1, seccomp_notif_resp);

/// What fails.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    /// Files below this directory, or the directory itself; [`SOCKETS`]; [`BPF`].
    pub(crate) below: &'static str,
    /// The first operation on them that fails, from 0.
    pub(crate) first: usize,
    /// And all that follow.
    pub(crate) lasts: bool,
    pub(crate) errno: Errno,
}

impl Exec {
    /// Runs it on a disk that fails so; its answer, and all operations below the directory, such as `sync /run/x`.
    pub(crate) fn run_with(self, fault: Fault) -> (Answer, Vec<String>) {
        let (sender, listener) = mpsc::channel();
        thread::scope(|scope| {
            // The filter is this thread's, and of what it starts.
            let running = scope.spawn(move || {
                sender.send(listen().unwrap()).unwrap();
                self.run_leniently()
            });
            let operations = supervise(&listener.recv().unwrap(), fault);
            (running.join().unwrap(), operations)
        })
    }
}

/// Makes the kernel ask about the calling thread's operations.
fn listen() -> io::Result<OwnedFd> {
    let statement = |code: u32, k: u32| sock_filter {
        code: u16::try_from(code).unwrap(),
        jt: 0,
        jf: 0,
        k,
    };
    let mut filter = vec![statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0)];
    for (number, ..) in WATCHED {
        let mut equal = statement(
            libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
            u32::try_from(number).unwrap(),
        );
        equal.jf = 1;
        filter.push(equal);
        filter.push(statement(
            libc::BPF_RET | libc::BPF_K,
            libc::SECCOMP_RET_USER_NOTIF,
        ));
    }
    filter.push(statement(
        libc::BPF_RET | libc::BPF_K,
        libc::SECCOMP_RET_ALLOW,
    ));
    let program = sock_fprog {
        len: u16::try_from(filter.len()).unwrap(),
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: `program` and the filter that it points to outlive the call, which copies both.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
            &raw const program,
        )
    };
    match i32::try_from(fd) {
        // SAFETY: the kernel has just made this descriptor for us; nobody else knows it.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Answers until all that the filter is on have ended.
fn supervise(listener: &OwnedFd, fault: Fault) -> Vec<String> {
    let mut operations = Vec::new();
    loop {
        let mut polled = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        poll(&mut polled, PollTimeout::NONE).unwrap();
        let events = polled[0].revents().unwrap();
        if !events.contains(PollFlags::POLLIN) {
            return operations;
        }
        // SAFETY: all zeros is a value of this C structure, and what the kernel wants to be given.
        let mut asked: seccomp_notif = unsafe { std::mem::zeroed() };
        // SAFETY: the descriptor is a listener, and the structure is the one of this request.
        if unsafe { receive(listener.as_raw_fd(), &raw mut asked) }.is_err() {
            // Killed meanwhile.
            continue;
        }
        let mut fails = false;
        if let Some(operation) = operation(&asked, fault.below) {
            let number = operations.len();
            fails = number == fault.first || (fault.lasts && number > fault.first);
            operations.push(operation);
        }
        let mut answer = seccomp_notif_resp {
            id: asked.id,
            val: 0,
            error: if fails { -(fault.errno as i32) } else { 0 },
            flags: if fails {
                0
            } else {
                u32::try_from(libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE).unwrap()
            },
        };
        // SAFETY: as above. Whoever was killed meanwhile needs no answer.
        unsafe { respond(listener.as_raw_fd(), &raw mut answer) }.unwrap_or_default();
    }
}

/// The operation, if it is one of those that may fail.
fn operation(asked: &seccomp_notif, below: &str) -> Option<String> {
    let number = c_long::from(asked.data.nr);
    let (_, what, names) = WATCHED.iter().find(|(watched, ..)| *watched == number)?;
    let path = match names {
        Names::Path(at) => match text_at(asked.pid, asked.data.args[*at])? {
            // Of the open file itself, for example its length.
            empty if empty.is_empty() => file_of(asked)?,
            path => path,
        },
        Names::Descriptor if below == SOCKETS && is_pipe_like(asked) => return None,
        Names::Descriptor => file_of(asked)?,
        Names::Nothing(name) => (*name).to_owned(),
    };
    let rest = path.strip_prefix(below)?;
    let is_below = below.ends_with(':') || rest.is_empty() || rest.starts_with('/');
    is_below.then(|| format!("{what} {path}"))
}

/// What the descriptor is of that is the first argument.
fn file_of(asked: &seccomp_notif) -> Option<String> {
    let link = format!("/proc/{}/fd/{}", asked.pid, asked.data.args[0]);
    Some(fs::read_link(link).ok()?.to_str()?.to_owned())
}

/// The standard library starts a process over a pair of sockets, which no kernel breaks, and waits for ever if one does. It is
/// read without asking who sent; netlink is.
fn is_pipe_like(asked: &seccomp_notif) -> bool {
    match c_long::from(asked.data.nr) {
        libc::SYS_read | libc::SYS_write => true,
        libc::SYS_recvfrom => asked.data.args[4] == 0,
        _ => false,
    }
}

/// The text at an address of another process.
fn text_at(pid: u32, address: u64) -> Option<String> {
    let memory = File::open(format!("/proc/{pid}/mem")).ok()?;
    let mut bytes = vec![0; usize::try_from(libc::PATH_MAX).unwrap()];
    // Short at the end of the mapping.
    let length = memory.read_at(&mut bytes, address).ok()?;
    let end = bytes[..length].iter().position(|byte| *byte == 0)?;
    String::from_utf8(bytes[..end].to_vec()).ok()
}
