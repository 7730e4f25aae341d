//! Rust toolchains on this machine that can build `core` for BPF.

use crate::{command, workspace::MINIMUM_RUST};
use anyhow::{Context as _, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A cargo and a rustc that belong together, with `rust-src`.
#[derive(Clone, Debug)]
pub(crate) struct Rust {
    pub(crate) cargo: PathBuf,
    pub(crate) rustc: PathBuf,
    pub(crate) release: String,
    pub(crate) llvm: String,
    pub(crate) llvm_major: u32,
}

impl Rust {
    /// This toolchain's own `cargo-clippy`.
    pub(crate) fn clippy(&self) -> Option<PathBuf> {
        Some(self.cargo.with_file_name("cargo-clippy")).filter(|clippy| clippy.exists())
    }
}

impl std::fmt::Display for Rust {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} ({}, LLVM {})",
            self.rustc.display(),
            self.release,
            self.llvm
        )
    }
}

/// All usable toolchains, best first: the one named by `EBPF_CARGO` and `EBPF_RUSTC` (then no other counts), the
/// default one, rustup's others, the system's.
pub(crate) fn rust_toolchains() -> Vec<Rust> {
    let named = |name| std::env::var_os(name).map(PathBuf::from);
    if let (Some(cargo), Some(rustc)) = (named("EBPF_CARGO"), named("EBPF_RUSTC")) {
        return inspect(&cargo, &rustc).into_iter().collect();
    }
    let mut roots = rustup_toolchains();
    roots.push("/usr".into());
    roots
        .iter()
        .filter_map(|root| inspect(&root.join("bin/cargo"), &root.join("bin/rustc")).ok())
        .collect()
}

/// The folders of rustup's toolchains, the default one first. Their own `bin` is used, not rustup's proxies, so that
/// `RUSTUP_TOOLCHAIN` and override files have no say.
fn rustup_toolchains() -> Vec<PathBuf> {
    let list = command::output(Command::new("rustup").args(["toolchain", "list", "--verbose"]));
    list.map_or_else(|_| Vec::new(), |list| parse_rustup(&list))
}

fn parse_rustup(list: &str) -> Vec<PathBuf> {
    let mut lines: Vec<&str> = list.lines().collect();
    lines.sort_by_key(|line| !line.contains("default"));
    lines
        .iter()
        .filter_map(|line| Some(PathBuf::from(line.get(line.find('/')?..)?.trim())))
        .collect()
}

/// Asks the compiler what it is; an error when it is missing, too old, or without `rust-src`.
fn inspect(cargo: &Path, rustc: &Path) -> Result<Rust> {
    anyhow::ensure!(cargo.exists(), "no {}", cargo.display());
    let sysroot = command::output(Command::new(rustc).args(["--print", "sysroot"]))?;
    let source = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/Cargo.lock");
    anyhow::ensure!(source.exists(), "{} has no rust-src", rustc.display());
    let (release, llvm) = parse_version(&command::output(Command::new(rustc).arg("-vV"))?)
        .with_context(|| format!("understand `{} -vV`", rustc.display()))?;
    anyhow::ensure!(
        version(&release) >= version(MINIMUM_RUST),
        "{} is older than {MINIMUM_RUST}",
        rustc.display()
    );
    let llvm_major = version(&llvm).0;
    Ok(Rust {
        cargo: cargo.into(),
        rustc: rustc.into(),
        release,
        llvm,
        llvm_major,
    })
}

/// Release and LLVM version from the output of `rustc -vV`.
fn parse_version(text: &str) -> Option<(String, String)> {
    let field = |name| {
        text.lines()
            .find_map(|line| line.strip_prefix(name))
            .map(|value| value.trim().to_owned())
    };
    Some((field("release:")?, field("LLVM version:")?))
}

/// Major and minor of a version; what is not a number counts as 0.
pub(crate) fn version(text: &str) -> (u32, u32) {
    let mut numbers = text
        .split(|c: char| !c.is_ascii_digit())
        .map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEBIAN: &str = "rustc 1.96.0 (ac68faa20 2026-05-25) (built from a source tarball)\nbinary: rustc\n\
        commit-date: 2026-05-25\nhost: x86_64-unknown-linux-gnu\nrelease: 1.96.0\nLLVM version: 22.1.8\n";

    #[test]
    fn release_and_llvm_are_read() {
        assert_eq!(
            parse_version(DEBIAN),
            Some(("1.96.0".into(), "22.1.8".into()))
        );
        assert_eq!(parse_version("rustc 1.20.0\nrelease: 1.20.0\n"), None);
    }

    #[test]
    fn versions_compare_by_number() {
        assert!(version("1.100.0") > version("1.95"));
        assert!(version("1.97.0-nightly") > version("1.95"));
        assert_eq!(version("22.1.8"), (22, 1));
        assert_eq!(version(""), (0, 0));
    }

    #[test]
    fn rustups_default_comes_first() {
        let list = "nightly-x86_64-unknown-linux-gnu /r/toolchains/nightly-x86_64-unknown-linux-gnu\n\
                    stable-x86_64-unknown-linux-gnu (active, default) /r/toolchains/stable-x86_64-unknown-linux-gnu\n";
        let expected = [
            "/r/toolchains/stable-x86_64-unknown-linux-gnu",
            "/r/toolchains/nightly-x86_64-unknown-linux-gnu",
        ];
        assert_eq!(parse_rustup(list), expected.map(PathBuf::from));
        assert_eq!(
            parse_rustup("no installed toolchains\n"),
            Vec::<PathBuf>::new()
        );
    }
}
