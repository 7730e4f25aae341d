//! `cargo xtask bench`: what a connection costs a pod, against the node itself.

use crate::{build, command, setup, workspace};
use anyhow::{Context as _, Result, ensure};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Handed to the benchmark: --rounds N, --seconds S
    #[arg(last = true)]
    rest: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "the benchmark makes network namespaces and loads BPF programs: run it as root"
    );
    setup::ensure(setup::Needs {
        run_time: true,
        ..setup::Needs::BUILD
    })?;
    build::run()?;
    let mut cargo = command::cargo();
    cargo.env("AZURE_VNET_BIN_DIR", workspace::product_dir());
    cargo.args(["run", "--release", "--quiet", "--package", "bench", "--"]);
    command::run(cargo.args(&arguments.rest)).context("run the benchmark")
}
