//! STATUS: could ADD be served now?

use hooks::Hook;
use netconf::{Netconf, code};

use super::Node;
use crate::delegate::{Delegate, DelegateError};
use crate::error::Error;
use crate::program::Call;

/// STATUS does not succeed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StatusError {
    /// ADD would fail.
    #[error("pods cannot be added now: {0}")]
    Unavailable(Box<Error>),
    /// And those that are there are not served as they should be.
    #[error(
        "pods cannot be added now, and those that are there are not connected as they should be: {0}; the loader repairs within seconds what it can, see its log (journalctl -u azure-vnet-loader)"
    )]
    Limited(String),
}

impl StatusError {
    /// The CNI code.
    pub(crate) fn code(&self) -> u32 {
        match self {
            Self::Unavailable(_) => code::UNAVAILABLE,
            Self::Limited(_) => code::LIMITED,
        }
    }

    /// Whatever is wrong, it keeps ADD from working.
    pub(crate) fn unavailable(reason: impl Into<Error>) -> Error {
        Self::Unavailable(Box::new(reason.into())).into()
    }
}

pub(super) fn status(call: &mut Call) -> Result<(), Error> {
    let netconf = Netconf::parse(&call.stdin)?;
    call.require_verb(netconf.version)?;
    call.require_root()?;
    let ipam = Delegate::find(call, netconf.ipam_plugin()?, &call.stdin)
        .map_err(StatusError::unavailable)?;

    call.steps.begin("loader");
    let node = Node::open(&call.deadline)?;
    let view = node.loader.node().map_err(StatusError::unavailable)?;

    let limits = node.loader.limits().map_err(StatusError::unavailable)?;
    if !limits.is_empty() {
        return Err(StatusError::Limited(limits.join("; ")).into());
    }

    call.steps.begin("programs");
    for hook in Hook::POD {
        hooks::open(&node.pins, hook).map_err(StatusError::unavailable)?;
    }
    for hook in Hook::NIC {
        if !hooks::runs(&node.pins, hook, &view.nic) {
            let what = format!("program {} does not run on {}", hook.program, view.nic);
            return Err(StatusError::Limited(what).into());
        }
    }

    call.steps.begin("ipam");
    ipam.status(&node.runtime).map_err(|error| {
        if matches!(error, DelegateError::Failed { .. }) {
            error.into()
        } else {
            StatusError::unavailable(error)
        }
    })
}
