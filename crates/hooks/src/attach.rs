//! Attaching, replacing and asking, whatever the mechanism.

use std::io;
use std::path::PathBuf;

use aya::programs::tc::SchedClassifier;
use aya::programs::{ProgramError, ProgramInfo};
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;

use crate::hook::{Direction, Mechanism};
use crate::netlink::Asker;
use crate::{Hook, Pins, filter, link, sys};

/// What [`attach`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The program was not there.
    Attached,
    /// Another program, or the same, was there; it was replaced, atomically.
    Replaced,
}

/// A program could not be attached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The program's pin cannot be opened.
    #[error(
        "open the pinned program {path}: {source}; is azure-vnet-loader running and bpffs mounted on /sys/fs/bpf?"
    )]
    Open {
        /// The pin.
        path: PathBuf,
        /// aya's reason.
        source: ProgramError,
    },
    /// The pinned link cannot be opened, replaced or removed.
    #[error("take over the pinned link {path}: {source}")]
    Link {
        /// The pin.
        path: PathBuf,
        /// aya's reason.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The kernel refuses the program on this interface.
    #[error("attach {program} to {ifname}: {source}")]
    Attach {
        /// The program.
        program: &'static str,
        /// The interface.
        ifname: String,
        /// The kernel's reason.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The link pins cannot be listed or removed.
    #[error("read the link pins in {path}: {source}")]
    Pins {
        /// The directory or pin.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Whether the kernel has TCX is unknown.
    #[error("ask the kernel whether it has TCX links: {0}")]
    Probe(io::Error),
    /// The filters of an interface cannot be listed or removed.
    #[error("look at the filters of {ifname}: {source}")]
    Filters {
        /// The interface.
        ifname: String,
        /// The system's reason.
        source: io::Error,
    },
}

/// Opens the pinned program of `hook`.
pub fn open(pins: &Pins, hook: Hook) -> Result<SchedClassifier, AttachError> {
    let path = pins.program(hook.program);
    SchedClassifier::from_pin(&path).map_err(|source| AttachError::Open { path, source })
}

/// Attaches `program` to `ifname` at `hook`, or replaces the program that is there. It outlives this process.
///
/// The interface is looked up in the calling thread's network namespace.
pub fn attach(
    pins: &Pins,
    hook: Hook,
    program: &mut SchedClassifier,
    ifname: &str,
) -> Result<Outcome, AttachError> {
    match hook.mechanism()? {
        Mechanism::Tcx => link::attach(pins, hook, program, ifname),
        Mechanism::Clsact => filter::attach(hook, program, ifname),
    }
}

/// Whether the kernel runs the pinned program of `hook`, and not an older one of the same name, on `ifname` now.
/// `false` when the interface or the program is gone.
pub fn runs(pins: &Pins, hook: Hook, ifname: &str) -> bool {
    let looked = |ifindex| Look::open(pins, &[hook]).is_ok_and(|look| look.runs(hook, ifindex));
    if_nametoindex(ifname).is_ok_and(looked)
}

/// Whether programs of TCX see what comes in by an interface, before all filters.
pub fn has_tcx(ifindex: u32) -> bool {
    sys::tcx_programs(ifindex, Direction::Ingress).is_ok_and(|programs| !programs.is_empty())
}

/// What runs on many interfaces: each pinned program is opened once, and there is one socket for all questions.
#[derive(Debug)]
pub struct Look {
    asker: Asker,
    /// The ids of pinned programs.
    ours: Vec<(Hook, u32)>,
}

impl Look {
    /// At these hooks, in the caller's network namespace. A program that is not pinned runs nowhere.
    pub fn open(pins: &Pins, hooks: &[Hook]) -> io::Result<Self> {
        let id = |hook: &Hook| {
            let program = ProgramInfo::from_pin(pins.program(hook.program)).ok()?;
            Some((*hook, program.id()))
        };
        Ok(Self {
            asker: Asker::open(NETLINK_ROUTE)?,
            ours: hooks.iter().filter_map(id).collect(),
        })
    }

    fn ours(&self, hook: Hook) -> Option<u32> {
        let found = self.ours.iter().find(|(of, _)| *of == hook);
        found.map(|(_, id)| *id)
    }

    /// Whether the pinned program of `hook` runs on the interface. A link whose interface was made anew still names its program, so
    /// the interface is asked.
    pub fn runs(&self, hook: Hook, ifindex: u32) -> bool {
        let running = match hook.mechanism() {
            Ok(Mechanism::Tcx) => sys::tcx_programs(ifindex, hook.direction),
            Ok(Mechanism::Clsact) => filter::programs(&self.asker, ifindex, hook.direction),
            Err(_) => return false,
        };
        let ours = self.ours(hook);
        running.is_ok_and(|running| ours.is_some_and(|ours| running.contains(&ours)))
    }

    /// The ids of others' programs that judge a packet before the pinned program of `hook` does. Only those of the way in matter:
    /// they see what nobody has checked, and may let it pass.
    pub fn ahead(&self, hook: Hook, ifindex: u32) -> io::Result<Vec<u32>> {
        let Some(ours) = self.ours(hook) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let mut programs = match sys::tcx_programs(ifindex, hook.direction) {
            Err(error) if error.raw_os_error() == Some(Errno::EINVAL as i32) => Vec::new(),
            found => found?,
        };
        // TCX's come before the qdisc's.
        if !programs.contains(&ours) {
            programs.extend(filter::programs(&self.asker, ifindex, hook.direction)?);
        }
        Ok(programs.into_iter().take_while(|id| *id != ours).collect())
    }
}

/// The interfaces that hold the NIC's programs, in order of their names. More than one: the NIC was another once.
pub fn nics(pins: &Pins) -> Result<Vec<String>, AttachError> {
    let mut names = link::pinned(pins)?;
    if !link::supported()? {
        names.extend(filter::nics()?);
    }
    names.sort();
    names.dedup();
    Ok(names)
}

/// The NIC has got another name: its programs stay where they are, and are found under the new one.
pub fn rename(pins: &Pins, from: &str, to: &str) -> Result<(), AttachError> {
    link::rename(pins, from, to)
}

/// Takes the NIC's programs off `ifname`, whatever holds them there. None there, or no such interface, is success.
pub fn remove(pins: &Pins, ifname: &str) -> Result<(), AttachError> {
    link::remove(pins, ifname)?;
    if link::supported()? {
        return Ok(());
    }
    filter::remove(ifname)
}

pub(crate) fn refused(
    hook: Hook,
    ifname: &str,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> AttachError {
    AttachError::Attach {
        program: hook.program,
        ifname: ifname.to_owned(),
        source: source.into(),
    }
}
