//! The CNI plug-ins `azure-vnet` and `azure-vnet-ipam`.
//!
//! One exec does one verb and ends. What the runtime says comes in through `env`, `args` and `netconf`, and is all validated
//! before anything is touched; `verb` holds the main plug-in's verbs, `ipam` the IPAM plug-in's. All netlink is in `link`;
//! everything that a failed ADD, an interrupted one and DEL must take away is in `teardown`.

#[cfg(any(test, feature = "never-free"))]
mod bump;
mod clock;
mod deadline;
mod delegate;
mod ended;
mod env;
mod error;
mod ipam;
mod link;
mod loader;
mod lock;
mod log;
mod names;
mod netns;
mod output;
mod pod;
mod program;
mod record;
mod signals;
mod steps;
mod sysctl;
mod teardown;
mod verb;

use std::process::ExitCode;

/// The main plug-in, `azure-vnet`.
pub fn azure_vnet() -> ExitCode {
    program::run(&verb::PROGRAM)
}

/// The IPAM plug-in, `azure-vnet-ipam`.
pub fn azure_vnet_ipam() -> ExitCode {
    program::run(&ipam::PROGRAM)
}
