//! `cargo xtask build-next`: a loader as the next version might have it, with other programs and three maps of another layout, for
//! the tests of upgrades.
//!
//! In the profile of the tests, whose dependencies are built anyway: only what knows the layouts is compiled another time.

use crate::{build_ebpf, command, workspace};
use anyhow::{Context as _, Result};
use std::time::Instant;

const LOADER: &str = "azure-vnet-loader";

pub(crate) fn run() -> Result<()> {
    let object = workspace::root().join("target/ebpf/azure-vnet-next.bpf.o");
    build_ebpf::make(&["--features", "ebpf/next-layout"], &object)?;
    let start = Instant::now();
    let mut cargo = command::cargo();
    cargo
        .env("AZURE_VNET_BPF_OBJECT", &object)
        .args(["build", "--workspace", "--features", "loader/next-layout"])
        .args(["--bin", LOADER]);
    command::run(&mut cargo).context("build the next version's loader")?;
    // Where cargo leaves it, the next build of this version's takes its place.
    let built = workspace::target_dir().join("debug").join(LOADER);
    let bytes = std::fs::read(&built).with_context(|| format!("read {}", built.display()))?;
    let path = workspace::next_dir().join(LOADER);
    workspace::write_if_changed(&path, &bytes)?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&path, mode)
        .with_context(|| format!("make {} executable", path.display()))?;
    let seconds = start.elapsed().as_secs_f32();
    println!("build-next: {} ({seconds:.1} s)", path.display());
    Ok(())
}
