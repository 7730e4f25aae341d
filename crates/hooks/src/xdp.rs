//! `xdp_guard` on the NIC: a pinned link, in the driver or nowhere.
//!
//! Never in the kernel's generic hook: see docs/adr/0009-xdp-guard.md.

use std::fs;
use std::io;
use std::path::Path;

use abi::pins::program::XDP_GUARD;
use aya::programs::links::{FdLink, LinkError, PinnedLink};
use aya::programs::xdp::XdpLink;
use aya::programs::{ProgramError, Xdp, XdpMode};
use aya::sys::SyscallError;
use aya_obj::programs::XdpAttachType;
use nix::errno::Errno;

use crate::{AttachError, Outcome, Pins};

/// Attaches the pinned guard to `ifname`, or replaces, in one atomic step, the one that an earlier start attached; the
/// same one again is no work for the driver. It outlives this process.
pub fn attach_guard(pins: &Pins, ifname: &str) -> Result<Outcome, AttachError> {
    let path = pins.program(XDP_GUARD);
    let mut program = Xdp::from_pin(&path, XdpAttachType::Interface)
        .map_err(|source| AttachError::Open { path, source })?;
    let pin = pins.link(ifname, XDP_GUARD);
    if replace(&mut program, &pin)? {
        return Ok(Outcome::Replaced);
    }
    // Of an interface that was made anew.
    detach_guard(pins, ifname)?;
    let id = program
        .attach(ifname, XdpMode::Driver)
        .map_err(|error| refused(ifname, explain(&error)))?;
    let link = program
        .take_link(id)
        .map_err(|error| refused(ifname, error))?;
    let link: FdLink = link.try_into().map_err(|error| refused(ifname, error))?;
    link.pin(&pin).map_err(|error| refused(ifname, error))?;
    Ok(Outcome::Attached)
}

/// Takes the guard off `ifname`. Not there is success. `true`: it was there.
pub fn detach_guard(pins: &Pins, ifname: &str) -> Result<bool, AttachError> {
    let path = pins.link(ifname, XDP_GUARD);
    match fs::remove_file(&path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(AttachError::Pins { path, source }),
    }
}

/// Puts `program` behind the link pinned at `pin`. `false`: there is none, or its interface is gone.
fn replace(program: &mut Xdp, pin: &Path) -> Result<bool, AttachError> {
    let link = match PinnedLink::from_pin(pin) {
        Ok(link) => FdLink::from(link),
        Err(LinkError::SyscallError(SyscallError { io_error, .. }))
            if io_error.kind() == io::ErrorKind::NotFound =>
        {
            return Ok(false);
        }
        Err(source) => return Err(link_error(pin, source)),
    };
    let link: XdpLink = link.try_into().map_err(|error| link_error(pin, error))?;
    match program.attach_to_link(link) {
        Ok(id) => {
            // Dropping our descriptor leaves the link to its pin.
            drop(
                program
                    .take_link(id)
                    .map_err(|error| link_error(pin, error))?,
            );
            Ok(true)
        }
        Err(ProgramError::SyscallError(SyscallError { io_error, .. }))
            if io_error.raw_os_error() == Some(Errno::ENOLINK as i32) =>
        {
            Ok(false)
        }
        Err(source) => Err(link_error(pin, source)),
    }
}

/// What the operator can do about it.
fn explain(error: &ProgramError) -> String {
    let ProgramError::SyscallError(SyscallError { io_error, .. }) = error else {
        return error.to_string();
    };
    let busy = [Errno::EBUSY, Errno::EEXIST].map(|errno| Some(errno as i32));
    let remedy = if busy.contains(&io_error.raw_os_error()) {
        "another XDP program is attached; remove it"
    } else {
        "the driver takes no XDP program, or not with the NIC's MTU, queues or LRO; see the kernel's log"
    };
    format!("{io_error}: {remedy}, or set `xdp: off`")
}

fn refused(
    ifname: &str,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> AttachError {
    AttachError::Attach {
        program: XDP_GUARD,
        ifname: ifname.to_owned(),
        source: source.into(),
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
