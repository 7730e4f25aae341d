//! `cargo xtask build`: the static product binaries, the eBPF object inside.

use crate::{build_ebpf, command, workspace};
use anyhow::{Context as _, Result};
use std::process::Command;

/// Package and binary.
const PRODUCTS: [(&str, &str); 4] = [
    ("cni", "azure-vnet"),
    ("cni", "azure-vnet-ipam"),
    ("loader", "azure-vnet-loader"),
    ("loader", "vnetctl"),
];

pub(crate) fn run() -> Result<()> {
    build_ebpf::run()?;
    let mut cargo = statically(&PRODUCTS);
    command::run(&mut cargo).context("build the product binaries")?;
    println!("build: {}", workspace::product_dir().display());
    Ok(())
}

/// Builds these as the product's are.
pub(crate) fn statically(products: &[(&str, &str)]) -> Command {
    let mut cargo = command::cargo();
    // With `--target`, the flag does not reach build scripts and proc macros, which cannot be static.
    cargo
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .args(["build", "--release", "--target"]);
    cargo.arg(workspace::triple());
    for (package, binary) in products {
        cargo.args(["--package", package, "--bin", binary]);
    }
    cargo
}
