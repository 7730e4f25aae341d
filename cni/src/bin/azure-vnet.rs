//! The main plug-in.

use std::process::ExitCode;

fn main() -> ExitCode {
    cni::azure_vnet()
}
