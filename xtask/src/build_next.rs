//! `cargo xtask build-next`: a loader as the next version might have it, with other programs and three maps of another layout, for
//! the tests of upgrades.
//!
//! In the profile of the tests, whose dependencies are built anyway: only what knows the layouts is compiled another time.

use crate::{build_ebpf, command, workspace};
use anyhow::{Context as _, Result};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Instant;

const LOADER: &str = "azure-vnet-loader";

pub(crate) fn run() -> Result<()> {
    let object = workspace::root().join("target/ebpf/azure-vnet-next.bpf.o");
    build_ebpf::make(&["--features", "ebpf/next-layout"], &object)?;
    loader_with(
        &object,
        "loader/next-layout",
        &workspace::next_dir().join(LOADER),
    )
}

/// Builds the loader with this object and feature inside, and leaves it at `path`.
pub(crate) fn loader_with(object: &Path, feature: &str, path: &Path) -> Result<()> {
    let start = Instant::now();
    let mut cargo = command::cargo();
    cargo
        .env("AZURE_VNET_BPF_OBJECT", object)
        .args(["build", "--workspace", "--features", feature])
        .args(["--bin", LOADER]);
    command::run(&mut cargo).with_context(|| format!("build {}", path.display()))?;
    // Where cargo leaves it, the next build of this version's takes its place.
    let built = workspace::target_dir().join("debug").join(LOADER);
    let bytes = std::fs::read(&built).with_context(|| format!("read {}", built.display()))?;
    workspace::write_if_changed(path, &bytes)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
        .with_context(|| format!("make {} executable", path.display()))?;
    let seconds = start.elapsed().as_secs_f32();
    println!("build: {} ({seconds:.1} s)", path.display());
    Ok(())
}
