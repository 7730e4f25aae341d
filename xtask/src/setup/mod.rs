//! `cargo xtask setup`: makes a fresh machine able to do everything; says each step and why.
//!
//! Facts are looked at first, and nothing is changed (and nobody asked for a password) when all is there.

mod bpf;
mod install;
mod system;

use crate::{command, toolchain};
use anyhow::{Context as _, Result};
use std::path::PathBuf;
use std::process::Command;
pub(crate) use system::find_program;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only print the steps that are needed, and why
    #[arg(long)]
    dry_run: bool,
    /// Also what only `cargo xtask vm` uses
    #[arg(long)]
    vm: bool,
}

/// What a verb needs beside the eBPF toolchain.
#[derive(Clone, Copy, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each stands for a list of its own"
)]
pub(crate) struct Needs {
    /// The programs that demo and tests run: `ip`, `nft`, `bpftool`, …
    pub(crate) run_time: bool,
    /// What `check` alone uses: `cargo-deny`, and the eBPF toolchain's clippy.
    pub(crate) lint: bool,
    /// What `vm` alone uses: qemu and what goes with it.
    pub(crate) vm: bool,
    /// What `bench` alone uses.
    pub(crate) bench: bool,
}

impl Needs {
    /// Only building.
    pub(crate) const BUILD: Self = Self {
        run_time: false,
        lint: false,
        vm: false,
        bench: false,
    };
}

/// What is wrong with this machine.
#[derive(Debug)]
struct Missing {
    tools: Vec<&'static system::Tool>,
    toolchain: Option<anyhow::Error>,
    /// The toolchain without it.
    clippy: Option<toolchain::Rust>,
    deny: bool,
}

impl Missing {
    fn look(needs: Needs) -> Self {
        let toolchain = toolchain::find();
        let rust = toolchain
            .as_ref()
            .ok()
            .map(|toolchain| toolchain.rust.clone());
        Self {
            tools: system::missing_tools(needs),
            toolchain: toolchain.err(),
            clippy: rust.filter(|rust| needs.lint && rust.clippy().is_none()),
            deny: needs.lint && !deny_is_there(),
        }
    }

    fn nothing(&self) -> bool {
        self.tools.is_empty() && self.toolchain.is_none() && self.clippy.is_none() && !self.deny
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let needs = Needs {
        run_time: true,
        lint: true,
        vm: arguments.vm,
        bench: true,
    };
    let missing = Missing::look(needs);
    if missing.nothing() {
        let tools = toolchain::find()?;
        println!(
            "setup: nothing to do; rustc {}, linker {}",
            tools.rust, tools.linker
        );
        return Ok(());
    }
    install_missing(&missing, needs, arguments.dry_run)
}

/// For the other verbs: sets up what they need, silent when it is there.
pub(crate) fn ensure(needs: Needs) -> Result<()> {
    let missing = Missing::look(needs);
    if missing.nothing() {
        Ok(())
    } else {
        install_missing(&missing, needs, false)
    }
}

fn install_missing(missing: &Missing, needs: Needs, dry_run: bool) -> Result<()> {
    let installer = install::Installer::new(dry_run);
    installer
        .packages(&missing.tools, missing.toolchain.as_ref())
        .context("set up this machine")?;
    if let Some(rust) = &missing.clippy {
        installer
            .clippy(rust)
            .context("install clippy for the eBPF toolchain")?;
    }
    if missing.deny {
        installer.deny().context("install cargo-deny")?;
    }
    if dry_run {
        println!("setup: dry run, nothing was changed");
        return Ok(());
    }
    let left = Missing::look(needs);
    if let Some(error) = left.toolchain {
        return Err(error.context("the toolchain does not fit together even now"));
    }
    let files: Vec<&str> = left.tools.iter().map(|tool| tool.file).collect();
    anyhow::ensure!(
        files.is_empty(),
        "installed, yet not found: {}; is /usr/sbin in PATH?",
        files.join(", ")
    );
    anyhow::ensure!(
        !left.deny,
        "installed, yet `cargo-deny` was not found in PATH or cargo's bin folder"
    );
    println!("setup: done");
    Ok(())
}

/// The `cargo-deny` to use.
pub(crate) fn deny_program() -> Option<PathBuf> {
    find_program("cargo-deny")
}

/// Present, and new enough for `deny.toml`.
fn deny_is_there() -> bool {
    let version =
        deny_program().and_then(|deny| command::output(Command::new(deny).arg("--version")).ok());
    version.is_some_and(|version| deny_is_new_enough(&version))
}

fn deny_is_new_enough(printed: &str) -> bool {
    let number = printed.trim().rsplit(' ').next().unwrap_or_default();
    toolchain::version(number) >= toolchain::version(install::DENY_VERSION)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_cargo_deny_does_not_count() {
        assert!(deny_is_new_enough("cargo-deny 0.20.2\n"));
        assert!(!deny_is_new_enough("cargo-deny 0.14.2\n"));
        assert!(!deny_is_new_enough(""));
    }
}
