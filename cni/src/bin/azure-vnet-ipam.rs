//! The IPAM plug-in.

use std::process::ExitCode;

fn main() -> ExitCode {
    cni::azure_vnet_ipam()
}
