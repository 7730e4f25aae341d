//! TCX links, pinned, with the heal algorithm: a link that is there gets the new program, a severed one is made anew.

use std::fs;
use std::io;
use std::path::Path;

use abi::pins::program::XDP_GUARD;
use aya::programs::links::{FdLink, LinkError, PinnedLink};
use aya::programs::tc::{SchedClassifier, SchedClassifierLink, TcAttachOptions};
use aya::programs::{LinkOrder, ProgramError};
use aya::sys::SyscallError;
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;

use crate::attach::refused;
use crate::hook::Direction;
use crate::xdp::detach_guard;
use crate::{AttachError, Hook, Outcome, Pins, sys};

/// Whether this kernel has TCX links. One that does not know them refuses the question as an invalid argument; the
/// loopback interface is in every network namespace.
pub(crate) fn supported() -> Result<bool, AttachError> {
    let probed = if_nametoindex("lo")
        .map_err(io::Error::from)
        .and_then(|lo| sys::tcx_programs(lo, Direction::Ingress));
    match probed {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(Errno::EINVAL as i32) => Ok(false),
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

/// Removes every link pin of `ifname`, which detaches the programs. Nothing pinned is success.
pub(crate) fn remove(pins: &Pins, ifname: &str) -> Result<(), AttachError> {
    for hook in Hook::ALL {
        unpin(&pins.link(ifname, hook.program))?;
    }
    detach_guard(pins, ifname)?;
    Ok(())
}

/// Gives the link pins of an interface the names that belong to its new name. Nothing pinned is success.
pub(crate) fn rename(pins: &Pins, from: &str, to: &str) -> Result<(), AttachError> {
    let programs = Hook::NIC.map(|hook| hook.program);
    for program in programs.into_iter().chain([XDP_GUARD]) {
        let old = pins.link(from, program);
        match fs::rename(&old, pins.link(to, program)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(AttachError::Pins {
                    path: old,
                    source: error,
                });
            }
            Ok(()) | Err(_) => {}
        }
    }
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
    let entries = match fs::read_dir(&path) {
        // Nothing is pinned; filters hold programs without pins.
        Err(absent) if absent.kind() == io::ErrorKind::NotFound => return Ok(found),
        entries => entries.map_err(unreadable)?,
    };
    for entry in entries {
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

/// Detaches the program of a pinned link, which others may hold as well, and removes the pin. Not there is success. `true`:
/// it was there.
pub(crate) fn unpin(pin: &Path) -> Result<bool, AttachError> {
    match sys::open(pin).and_then(|link| sys::detach(&link)) {
        Ok(()) => {}
        // Its interface is gone, or the link is.
        Err(error)
            if [Errno::ENOLINK, Errno::ENOENT]
                .map(|errno| Some(errno as i32))
                .contains(&error.raw_os_error()) => {}
        Err(source) => return Err(link_error(pin, source)),
    }
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
