//! The operator's tool `vnetctl`.

use std::process::ExitCode;

fn main() -> ExitCode {
    loader::vnetctl::main()
}
