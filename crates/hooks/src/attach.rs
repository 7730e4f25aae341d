//! Attaching with the heal algorithm: a link that is pinned already gets the new program, a severed one is made anew.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use abi::pins::program;
use aya::programs::links::{FdLink, LinkError, PinnedLink};
use aya::programs::tc::{SchedClassifier, SchedClassifierLink, TcAttachOptions};
use aya::programs::{LinkOrder, ProgramError, TcAttachType};
use aya::sys::SyscallError;
use nix::errno::Errno;

use crate::Pins;

/// Where a program belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hook {
    /// Name of the program, which is the name of its pin too.
    pub program: &'static str,
    direction: Direction,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    /// Before all other programs: reverse SNAT and the source check come before anybody's logic.
    Ingress,
    /// After all other programs: they still see our mark.
    Egress,
}

impl Hook {
    /// Host veth, ingress.
    pub const FROM_POD: Self = Self {
        program: program::FROM_POD,
        direction: Direction::Ingress,
    };
    /// Host veth, egress.
    pub const TO_POD: Self = Self {
        program: program::TO_POD,
        direction: Direction::Egress,
    };
    /// NIC, ingress.
    pub const FROM_WIRE: Self = Self {
        program: program::FROM_WIRE,
        direction: Direction::Ingress,
    };
    /// NIC, egress.
    pub const TO_WIRE: Self = Self {
        program: program::TO_WIRE,
        direction: Direction::Egress,
    };

    /// The programs of a host veth, in the order in which they are attached: learning before sending.
    pub const POD: [Self; 2] = [Self::TO_POD, Self::FROM_POD];
    /// The programs of the NIC.
    pub const NIC: [Self; 2] = [Self::TO_WIRE, Self::FROM_WIRE];
    /// Every hook.
    pub const ALL: [Self; 4] = [Self::TO_POD, Self::FROM_POD, Self::TO_WIRE, Self::FROM_WIRE];

    /// The hook that the program of this name belongs to.
    pub fn of(program: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|hook| hook.program == program)
    }

    fn attach_type(self) -> TcAttachType {
        match self.direction {
            Direction::Ingress => TcAttachType::Ingress,
            Direction::Egress => TcAttachType::Egress,
        }
    }

    fn options(self) -> TcAttachOptions {
        TcAttachOptions::TcxOrder(match self.direction {
            Direction::Ingress => LinkOrder::first(),
            Direction::Egress => LinkOrder::last(),
        })
    }
}

/// What [`attach`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A new link was made and pinned.
    Attached,
    /// The link was there; its program was replaced, atomically.
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
    #[error("attach {program} to {ifname}: {source}; TCX links need Linux 6.6 or newer")]
    Attach {
        /// The program.
        program: &'static str,
        /// The interface.
        ifname: String,
        /// aya's reason.
        source: ProgramError,
    },
    /// The link pins cannot be listed or removed.
    #[error("read the link pins in {path}: {source}")]
    Pins {
        /// The directory or pin.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

/// Opens the pinned program of `hook`.
pub fn open(pins: &Pins, hook: Hook) -> Result<SchedClassifier, AttachError> {
    let path = pins.program(hook.program);
    SchedClassifier::from_pin(&path).map_err(|source| AttachError::Open { path, source })
}

/// Attaches `program` to `ifname` at `hook` and pins the link, or replaces the program behind the link that is pinned.
///
/// The interface is looked up in the calling thread's network namespace.
pub fn attach(
    pins: &Pins,
    hook: Hook,
    program: &mut SchedClassifier,
    ifname: &str,
) -> Result<Outcome, AttachError> {
    let pin = pins.link(ifname, hook.program);
    if let Some(link) = live_link(&pin)?
        && replace(program, link, &pin)?
    {
        return Ok(Outcome::Replaced);
    }
    let refused = |source| AttachError::Attach {
        program: hook.program,
        ifname: ifname.to_owned(),
        source,
    };
    let id = program
        .attach_with_options(ifname, hook.attach_type(), hook.options())
        .map_err(refused)?;
    let link: FdLink = program
        .take_link(id)
        .map_err(refused)?
        .try_into()
        .map_err(|source| link_error(&pin, source))?;
    link.pin(&pin).map_err(|source| link_error(&pin, source))?;
    Ok(Outcome::Attached)
}

/// Removes every link pin of `ifname`, which detaches the programs. Nothing pinned is success.
pub fn remove(pins: &Pins, ifname: &str) -> Result<(), AttachError> {
    for hook in Hook::ALL {
        let path = pins.link(ifname, hook.program);
        match fs::remove_file(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(AttachError::Pins { path, source }),
        }
    }
    Ok(())
}

/// The interfaces and hooks whose links are pinned, whether or not the interface still exists.
pub fn pinned(pins: &Pins) -> Result<Vec<(String, Hook)>, AttachError> {
    let path = pins.links();
    let unreadable = |source| AttachError::Pins {
        path: path.clone(),
        source,
    };
    let mut found = Vec::new();
    for entry in fs::read_dir(&path).map_err(unreadable)? {
        let name = entry.map_err(unreadable)?.file_name();
        if let Some(parsed) = name.to_str().and_then(Pins::parse_link) {
            found.push(parsed);
        }
    }
    found.sort_by(|a, b| (&a.0, a.1.program).cmp(&(&b.0, b.1.program)));
    Ok(found)
}

/// Whether the kernel runs the program of `hook` on `ifname` now. `false` when the interface is gone.
pub fn runs(hook: Hook, ifname: &str) -> bool {
    SchedClassifier::query_tcx(ifname, hook.attach_type()).is_ok_and(|(_revision, programs)| {
        programs
            .iter()
            .any(|info| info.name_as_str() == Some(hook.program))
    })
}

/// The link pinned at `pin`, if there is one.
fn live_link(pin: &Path) -> Result<Option<SchedClassifierLink>, AttachError> {
    match PinnedLink::from_pin(pin) {
        Ok(link) => FdLink::from(link)
            .try_into()
            .map(Some)
            .map_err(|source: LinkError| link_error(pin, source)),
        Err(LinkError::SyscallError(SyscallError { io_error, .. }))
            if io_error.kind() == io::ErrorKind::NotFound =>
        {
            Ok(None)
        }
        Err(source) => Err(link_error(pin, source)),
    }
}

/// Puts `program` behind `link`. `false`: the link's interface is gone and its pin was removed.
fn replace(
    program: &mut SchedClassifier,
    link: SchedClassifierLink,
    pin: &Path,
) -> Result<bool, AttachError> {
    match program.attach_to_link(link) {
        Ok(id) => {
            // Dropping our descriptor leaves the link to its pin.
            drop(
                program
                    .take_link(id)
                    .map_err(|source| link_error(pin, source))?,
            );
            Ok(true)
        }
        Err(ProgramError::SyscallError(SyscallError { io_error, .. }))
            if io_error.raw_os_error() == Some(Errno::ENOLINK as i32) =>
        {
            fs::remove_file(pin).map_err(|source| AttachError::Pins {
                path: pin.to_owned(),
                source,
            })?;
            Ok(false)
        }
        Err(source) => Err(link_error(pin, source)),
    }
}

fn link_error(
    pin: &Path,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> AttachError {
    AttachError::Link {
        path: pin.to_owned(),
        source: source.into(),
    }
}
