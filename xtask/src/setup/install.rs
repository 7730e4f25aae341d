//! Installs what is missing: from packages on Debian and its kin, through rustup elsewhere.

use super::system::{self, System, Tool};
use crate::command;
use anyhow::{Result, bail};
use std::process::{Command, Stdio};

pub(super) const DENY_VERSION: &str = "0.20.2";

#[derive(Debug)]
pub(super) struct Installer {
    pub(super) dry_run: bool,
    system: System,
    sudo: bool,
}

impl Installer {
    pub(super) fn new(dry_run: bool) -> Self {
        Self {
            dry_run,
            system: System::detect(),
            sudo: !nix::unistd::geteuid().is_root(),
        }
    }

    /// Run-time tools and the eBPF toolchain; `unfit` says why the latter is needed.
    pub(super) fn packages(&self, tools: &[&Tool], unfit: Option<&anyhow::Error>) -> Result<()> {
        if tools.is_empty() && unfit.is_none() {
            return Ok(());
        }
        let files = tools
            .iter()
            .map(|tool| tool.file)
            .collect::<Vec<_>>()
            .join(", ");
        if let System::Other(name) = &self.system {
            if let Some(why) = unfit {
                self.toolchain_elsewhere(why)?;
            }
            if !tools.is_empty() {
                bail!(
                    "{name} is not a system that setup knows; install what has these programs, then try again: {files}"
                );
            }
            return Ok(());
        }
        if self.sudo && !self.dry_run && system::find_program("sudo").is_none() {
            bail!(
                "packages are missing, and installing them needs root; run `cargo xtask setup` as root once"
            );
        }
        self.apt(&["update", "-q"], "the package lists must be current")?;
        let mut names: Vec<&str> = tools.iter().map(|tool| tool.package).collect();
        names.dedup();
        if !names.is_empty() {
            self.apt_install(&names, &format!("to run: {files}"))?;
        }
        unfit.map_or(Ok(()), |why| self.toolchain_from_packages(why))
    }

    /// Without optimisation: a release build of it (fat LTO) takes more than three minutes on two cores, this one half
    /// of that, and checking takes two seconds all the same. Debian has no package, and pip's is too old for cargo's metadata.
    pub(super) fn deny(&self) -> Result<()> {
        let mut cargo = command::foreign_cargo();
        cargo.args([
            "install",
            "cargo-deny",
            "--version",
            DENY_VERSION,
            "--locked",
            "--force",
        ]);
        cargo.args(["--profile", "dev", "--config", "profile.dev.debug=false"]);
        self.step(
            &mut cargo,
            "`check` looks at licences and sources of dependencies (about 90 seconds)",
        )
    }

    pub(super) fn apt_install(&self, names: &[&str], why: &str) -> Result<()> {
        self.apt(
            &[&["install", "-q", "-y", "--no-install-recommends"], names].concat(),
            why,
        )
    }

    fn apt(&self, arguments: &[&str], why: &str) -> Result<()> {
        let mut apt = Command::new(if self.sudo { "sudo" } else { "env" });
        apt.args(if self.sudo { &["env"][..] } else { &[] });
        apt.args([
            "DEBIAN_FRONTEND=noninteractive",
            "apt-get",
            "-o",
            "DPkg::Lock::Timeout=300",
            "-o",
            "Dpkg::Use-Pty=0",
        ])
        .args(arguments);
        self.step(&mut apt, why)
    }

    pub(super) fn step(&self, command: &mut Command, why: &str) -> Result<()> {
        println!("setup: {why}\n  $ {}", command::shown(command));
        if self.dry_run {
            Ok(())
        } else {
            command::run(command.stdin(Stdio::null()))
        }
    }
}
