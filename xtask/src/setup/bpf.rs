//! Installs the eBPF toolchain: a Rust that has its source, and a bpf-linker on the same LLVM.

use super::install::Installer;
use super::system;
use crate::{command, toolchain, workspace::MINIMUM_RUST};
use anyhow::{Context as _, Result, bail};
use std::process::Command;

const LINKER_VERSION: &str = "0.13.0";
/// The LLVM majors that this bpf-linker has a feature for.
const LINKER_LLVM: std::ops::RangeInclusive<u32> = 21..=23;

/// Packages that hold rustc, cargo, their source, and clippy. Debian's stable releases carry a current compiler as
/// `rustc-web` (the one that builds browsers); the plain one is older than this workspace needs.
const RUST_PACKAGES: [[&str; 4]; 2] = [
    ["rustc-web", "cargo-web", "rust-web-src", "rust-web-clippy"],
    ["rustc", "cargo", "rust-src", "rust-clippy"],
];
/// What linking with libLLVM needs, beside libLLVM.
const LLVM_PACKAGES: [&str; 4] = ["g++", "libzstd-dev", "zlib1g-dev", "libxml2-dev"];

impl Installer {
    pub(super) fn toolchain_from_packages(&self, why: &anyhow::Error) -> Result<()> {
        let usable = |rust: &toolchain::Rust| {
            LINKER_LLVM.contains(&rust.llvm_major)
                && has_candidate(&format!("llvm-{}-dev", rust.llvm_major))
        };
        // Without package lists, a dry run cannot tell what they will have: it shows the first choice.
        let unknown = self.dry_run && !has_candidate("rustc");
        if !toolchain::rust_toolchains().iter().any(usable) {
            match RUST_PACKAGES.iter().find(|names| {
                names
                    .first()
                    .is_some_and(|rustc| unknown || is_new_enough(rustc))
            }) {
                Some(names) => self.apt_install(names, &why.to_string())?,
                None => self.rustup_nightly(why)?,
            }
        }
        let Some(rust) = toolchain::rust_toolchains().into_iter().find(usable) else {
            if self.dry_run {
                println!(
                    "setup: then llvm-N-dev and a bpf-linker for LLVM N, the one that the new `rustc -vV` names"
                );
                return Ok(());
            }
            bail!(
                "no compiler here has an LLVM in {LINKER_LLVM:?} whose llvm-N-dev can be installed from packages; install a \
                 toolchain with rust-src (`rustup toolchain install nightly --component rust-src`) and the bpf-linker of its \
                 LLVM by hand, and name the toolchain with EBPF_CARGO and EBPF_RUSTC"
            );
        };
        let llvm = format!("llvm-{}-dev", rust.llvm_major);
        let names: Vec<&str> = std::iter::once(llvm.as_str())
            .chain(LLVM_PACKAGES)
            .collect();
        self.apt_install(
            &names,
            &format!("bpf-linker is built on the LLVM of {rust}"),
        )?;
        self.linker(
            rust.llvm_major,
            &format!("/usr/lib/llvm-{}", rust.llvm_major),
        )
    }

    pub(super) fn toolchain_elsewhere(&self, why: &anyhow::Error) -> Result<()> {
        if toolchain::rust_toolchains().is_empty() {
            self.rustup_nightly(why)?;
        }
        let Some(rust) = toolchain::rust_toolchains().into_iter().next() else {
            anyhow::ensure!(
                self.dry_run,
                "the new toolchain was not found with `rustup toolchain list`"
            );
            return Ok(());
        };
        let major = rust.llvm_major;
        anyhow::ensure!(
            LINKER_LLVM.contains(&major),
            "{rust}: bpf-linker {LINKER_VERSION} is for LLVM {LINKER_LLVM:?}; name another toolchain with EBPF_CARGO and EBPF_RUSTC"
        );
        let configs = [format!("llvm-config-{major}"), "llvm-config".to_owned()];
        let prefix = configs.iter().find_map(|config| {
            let asked = |what| command::output(Command::new(config).arg(what)).ok();
            (toolchain::version(&asked("--version")?).0 == major).then(|| asked("--prefix"))?
        });
        let prefix = prefix.with_context(|| {
            format!("no llvm-config of LLVM {major}: install LLVM's development files, or a released bpf-linker, into PATH")
        })?;
        self.linker(major, prefix.trim())
    }

    fn rustup_nightly(&self, why: &anyhow::Error) -> Result<()> {
        if system::find_program("rustup").is_none() {
            bail!(
                "{why}; neither packages nor rustup can give a compiler of {MINIMUM_RUST} or later with its source: install rustup, or name a toolchain with EBPF_CARGO and EBPF_RUSTC"
            );
        }
        let arguments =
            "toolchain install nightly --profile minimal --component rust-src --component clippy";
        self.step(
            Command::new("rustup").args(arguments.split(' ')),
            &why.to_string(),
        )
    }

    /// For a toolchain that was here without it.
    pub(super) fn clippy(&self, rust: &toolchain::Rust) -> Result<()> {
        let why = format!("`check` lints the eBPF programs with the clippy of {rust}");
        let installed = |package| {
            command::output(Command::new("dpkg-query").args(["--status", package])).is_ok()
        };
        if rust.rustc.starts_with("/usr") {
            let packages = RUST_PACKAGES.iter().find(|[rustc, ..]| installed(rustc));
            let [.., clippy] =
                packages.with_context(|| format!("no package known; {why}; install it"))?;
            return self.apt_install(&[clippy], &why);
        }
        let name = rust
            .cargo
            .ancestors()
            .nth(2)
            .and_then(std::path::Path::file_name);
        let name =
            name.with_context(|| format!("not one of rustup's toolchains; {why}; install it"))?;
        self.step(
            Command::new("rustup")
                .args(["component", "add", "clippy", "--toolchain"])
                .arg(name),
            &why,
        )
    }

    fn linker(&self, major: u32, prefix: &str) -> Result<()> {
        let mut cargo = command::foreign_cargo();
        // Without LLVM_PREFIX it looks in /usr only: "unable to find library -lLLVM".
        cargo.env("LLVM_PREFIX", prefix);
        cargo.args([
            "install",
            "bpf-linker",
            "--version",
            LINKER_VERSION,
            "--locked",
            "--force",
        ]);
        cargo.args([
            "--no-default-features",
            "--features",
            &format!("llvm-{major}"),
        ]);
        self.step(
            &mut cargo,
            "links eBPF programs; its LLVM must be the compiler's (about a minute)",
        )
    }
}

fn policy(package: &str) -> String {
    command::output(Command::new("apt-cache").args(["policy", package])).unwrap_or_default()
}

fn has_candidate(package: &str) -> bool {
    system::candidate(&policy(package)).is_some()
}

fn is_new_enough(package: &str) -> bool {
    let policy = policy(package);
    system::candidate(&policy)
        .is_some_and(|found| toolchain::version(found) >= toolchain::version(MINIMUM_RUST))
}
