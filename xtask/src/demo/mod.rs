//! `cargo xtask demo`.

use anyhow::{Result, bail};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Leave the lab up and say how to enter a pod
    #[arg(long)]
    pub(crate) keep: bool,
    /// Remove a lab that `--keep` left
    #[arg(long, conflicts_with = "keep")]
    pub(crate) down: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    bail!("the demo is not written yet ({arguments:?})")
}
