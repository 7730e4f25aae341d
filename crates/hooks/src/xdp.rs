//! `xdp_guard` on the NIC: a pinned link, in the driver or nowhere.
//!
//! Never in the kernel's generic hook: see docs/adr/0009-xdp-guard.md.

use abi::pins::program::XDP_GUARD;
use aya::programs::links::FdLink;
use aya::programs::xdp::XdpLink;
use aya::programs::{ProgramError, Xdp, XdpMode};
use aya::sys::SyscallError;
use aya_obj::programs::XdpAttachType;
use nix::errno::Errno;

use crate::link::{replace, unpin};
use crate::{AttachError, Pins};

/// Puts the pinned guard behind the link by which an earlier start attached it to `ifname`, in one atomic step; the same one again is
/// no work for the driver. `false`: there is no such link.
pub fn replace_guard(pins: &Pins, ifname: &str) -> Result<bool, AttachError> {
    let mut program = pinned(pins)?;
    replace(&pins.link(ifname, XDP_GUARD), |link: XdpLink| {
        let id = program.attach_to_link(link)?;
        program.take_link(id)
    })
}

/// Attaches the pinned guard to `ifname`, which has no link of it. It outlives this process.
pub fn attach_guard(pins: &Pins, ifname: &str) -> Result<(), AttachError> {
    let mut program = pinned(pins)?;
    let id = program
        .attach(ifname, XdpMode::Driver)
        .map_err(|error| refused(ifname, explain(&error)))?;
    let link = program
        .take_link(id)
        .map_err(|error| refused(ifname, error))?;
    let link: FdLink = link.try_into().map_err(|error| refused(ifname, error))?;
    link.pin(pins.link(ifname, XDP_GUARD))
        .map_err(|error| refused(ifname, error))?;
    Ok(())
}

fn pinned(pins: &Pins) -> Result<Xdp, AttachError> {
    let path = pins.program(XDP_GUARD);
    Xdp::from_pin(&path, XdpAttachType::Interface)
        .map_err(|source| AttachError::Open { path, source })
}

/// Whether the guard was attached to `ifname` and not taken off since.
pub fn has_guard(pins: &Pins, ifname: &str) -> bool {
    pins.link(ifname, XDP_GUARD).exists()
}

/// Takes the guard off `ifname`. Not there is success. `true`: it was there.
pub fn detach_guard(pins: &Pins, ifname: &str) -> Result<bool, AttachError> {
    unpin(&pins.link(ifname, XDP_GUARD))
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
