//! `cargo xtask build-ebpf`: the eBPF object, built by a toolchain that has `rust-src`.
//!
//! A build of its own, not a `build.rs`: the user-space compiler stays the stable one, and `cargo check` stays fast.

use crate::toolchain::{self, Toolchain};
use crate::{command, workspace};
use anyhow::{Context as _, Result};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

const TARGET: &str = "bpfel-unknown-none";
/// The binary of the package `ebpf`.
const BINARY: &str = "azure-vnet-bpf";
/// What to do without a toolchain.
const MISSING: &str = "run `cargo xtask setup`, which installs what is missing";

pub(crate) fn run() -> Result<()> {
    make(&[], &workspace::bpf_object())
}

/// Builds the object with features of the package, into a file of its own.
pub(crate) fn make(features: &[&str], object: &Path) -> Result<()> {
    let tools = toolchain::find().context(MISSING)?;
    let start = Instant::now();
    println!("build-ebpf: rustc {}, linker {}", tools.rust, tools.linker);
    let mut build = cargo(&tools, &tools.rust.cargo, "build");
    build.args(["--bin", BINARY]).args(features);
    command::run(&mut build).context("build the eBPF object")?;
    let built = target_dir().join(TARGET).join("release").join(BINARY);
    let bytes = std::fs::read(&built)
        .with_context(|| format!("read the eBPF object {}", built.display()))?;
    // The name that the loader embeds: what cargo made may have a new modification time with the same content.
    let news = if workspace::write_if_changed(object, &bytes)? {
        "new"
    } else {
        "unchanged"
    };
    let (path, size, seconds) = (object.display(), bytes.len(), start.elapsed().as_secs_f32());
    println!("build-ebpf: {path}, {size} bytes, {news} ({seconds:.1} s)");
    Ok(())
}

/// Lints the same code for the same target; on the host most of it is not even compiled.
pub(crate) fn clippy() -> Result<()> {
    let tools = toolchain::find().context(MISSING)?;
    let program = tools.rust.clippy().with_context(|| {
        format!(
            "no cargo-clippy beside {}; `cargo xtask setup` installs it",
            tools.rust.cargo.display()
        )
    })?;
    let mut clippy = cargo(&tools, &program, "clippy");
    command::run(
        clippy
            .env("CARGO", &tools.rust.cargo)
            .args(["--", "--deny", "warnings"]),
    )
}

fn cargo(tools: &Toolchain, program: &Path, verb: &str) -> Command {
    let flags = [
        format!("--cfg=bpf_target_arch=\"{}\"", std::env::consts::ARCH),
        "-Cdebuginfo=2".to_owned(), // becomes BTF
        "-Clink-arg=--btf".to_owned(),
        // Packet fields are not aligned. Without this, every one of them is loaded byte by byte (a quarter more
        // instructions); the kernel's verifier allows it wherever the CPU does, x86-64 and arm64 included.
        "-Clink-arg=--cpu-features=+allows-misaligned-mem-access".to_owned(),
        // Block placement may put the end of a loop's body right before its head, so that it falls through backwards.
        // Linux 6.1 takes a way back for a loop only when it is a jump, and says "back-edge from insn" otherwise.
        "-Clink-arg=--llvm-args=-disable-block-placement".to_owned(),
        format!("-Clinker={}", tools.linker.path.display()),
    ];
    let mut cargo = command::foreign(program);
    cargo
        .env("RUSTC_BOOTSTRAP", "1") // -Z build-std on a stable compiler
        .env("RUSTC", &tools.rust.rustc)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        .args([
            verb,
            "--release",
            "-Z",
            "build-std=core",
            "--target",
            TARGET,
            "--package",
            "ebpf",
        ])
        .arg("--target-dir")
        .arg(target_dir());
    cargo
}

fn target_dir() -> PathBuf {
    workspace::root().join("target/ebpf")
}
