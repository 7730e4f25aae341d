//! TCX links, pinned, with the heal algorithm: a link that is there gets the new program, a severed one is made anew.

use std::fs;
use std::io;
use std::path::Path;

use aya::programs::links::{FdLink, LinkError, PinnedLink};
use aya::programs::tc::{SchedClassifier, SchedClassifierLink, TcAttachOptions};
use aya::programs::{LinkOrder, ProgramError, TcAttachType};
use aya::sys::SyscallError;
use nix::errno::Errno;

use crate::attach::refused;
use crate::hook::Direction;
use crate::xdp::detach_guard;
use crate::{AttachError, Hook, Outcome, Pins};

/// Whether this kernel has TCX links. One that does not know them refuses the question as an invalid argument; the
/// loopback interface is in every network namespace.
pub(crate) fn supported() -> Result<bool, AttachError> {
    match SchedClassifier::query_tcx("lo", TcAttachType::Ingress) {
        Ok(_) => Ok(true),
        Err(ProgramError::SyscallError(SyscallError { io_error, .. }))
            if io_error.raw_os_error() == Some(Errno::EINVAL as i32) =>
        {
            Ok(false)
        }
        Err(source) => Err(AttachError::Probe(source)),
    }
}

pub(crate) fn attach(
    pins: &Pins,
    hook: Hook,
    program: &mut SchedClassifier,
    ifname: &str,
) -> Result<Outcome, AttachError> {
    let pin = pins.link(ifname, hook.program);
    if replace(&pin, |link: SchedClassifierLink| {
        let id = program.attach_to_link(link)?;
        program.take_link(id)
    })? {
        return Ok(Outcome::Replaced);
    }
    let order = match hook.direction {
        Direction::Ingress => LinkOrder::first(),
        Direction::Egress => LinkOrder::last(),
    };
    let id = program
        .attach_with_options(ifname, hook.attach_type(), TcAttachOptions::TcxOrder(order))
        .map_err(|source| refused(hook, ifname, source))?;
    let link = program
        .take_link(id)
        .map_err(|source| refused(hook, ifname, source))?;
    let link: FdLink = link.try_into().map_err(|source| link_error(&pin, source))?;
    link.pin(&pin).map_err(|source| link_error(&pin, source))?;
    Ok(Outcome::Attached)
}

/// Asks the interface: a link whose interface was made anew still names its program.
pub(crate) fn runs(hook: Hook, program: u32, ifname: &str) -> bool {
    SchedClassifier::query_tcx(ifname, hook.attach_type())
        .is_ok_and(|(_, running)| running.iter().any(|found| found.id() == program))
}

/// Removes every link pin of `ifname`, which detaches the programs. Nothing pinned is success.
pub(crate) fn remove(pins: &Pins, ifname: &str) -> Result<(), AttachError> {
    for hook in Hook::ALL {
        unpin(&pins.link(ifname, hook.program))?;
    }
    detach_guard(pins, ifname)?;
    Ok(())
}

/// The interfaces whose links are pinned, whether or not the interface still exists.
pub(crate) fn pinned(pins: &Pins) -> Result<Vec<String>, AttachError> {
    let path = pins.links();
    let unreadable = |source| AttachError::Pins {
        path: path.clone(),
        source,
    };
    let mut found = Vec::new();
    for entry in fs::read_dir(&path).map_err(unreadable)? {
        let name = entry.map_err(unreadable)?.file_name();
        let parsed = name.to_str().and_then(Pins::parse_link);
        found.extend(parsed.map(|(ifname, _)| ifname));
    }
    Ok(found)
}

/// Puts a program behind the link pinned at `pin`, in one atomic step. `false`: there is no link, or its interface was gone
/// and its pin is gone now, too.
pub(crate) fn replace<L: TryFrom<FdLink, Error = LinkError>>(
    pin: &Path,
    put: impl FnOnce(L) -> Result<L, ProgramError>,
) -> Result<bool, AttachError> {
    let link = match PinnedLink::from_pin(pin) {
        Ok(link) => FdLink::from(link),
        Err(LinkError::SyscallError(SyscallError { io_error, .. }))
            if io_error.kind() == io::ErrorKind::NotFound =>
        {
            return Ok(false);
        }
        Err(source) => return Err(link_error(pin, source)),
    };
    let link = L::try_from(link).map_err(|source| link_error(pin, source))?;
    match put(link) {
        // Dropping our descriptor leaves the link to its pin.
        Ok(_link) => Ok(true),
        Err(ProgramError::SyscallError(SyscallError { io_error, .. }))
            if io_error.raw_os_error() == Some(Errno::ENOLINK as i32) =>
        {
            unpin(pin).map(|_was_there| false)
        }
        Err(source) => Err(link_error(pin, source)),
    }
}

/// Removes a link's pin, which detaches its program. Not there is success. `true`: it was there.
pub(crate) fn unpin(pin: &Path) -> Result<bool, AttachError> {
    match fs::remove_file(pin) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(AttachError::Pins {
            path: pin.to_owned(),
            source,
        }),
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
