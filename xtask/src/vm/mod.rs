//! `cargo xtask vm`: the same programs on other kernels, each in a virtual machine.

mod boot;
mod checks;
mod kernel;
mod machine;
mod packages;

use crate::{build, command, setup, workspace};
use anyhow::{Context as _, Result, ensure};
use checks::{CHECKS, Results};
use kernel::Kernel;
use machine::Accelerator;
use packages::Apt;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// What the `--help` says beyond the first line.
const HELP: &str = "\
Boots each kernel in a virtual machine without a network device, with this machine's files as its root, read-only. In it:
  load       every program passes the verifier and is attached, to the NIC by TCX links or clsact filters
  attach     restart, other programs on the NIC, a deleted qdisc, another NIC
  agree      the agreement test, without its times
  traffic    a core of the system tests: pods, VNet, Internet, portmap, wireserver, fragments, path MTU
  snat       a lost binding, ports that the node uses itself
  ipvs       kube-proxy's Services in its IPVS shape, which this machine's kernel may not have
  lifecycle  restart, lost maps, DEL
and prints a table in Markdown. A check that fails makes the exit status 1.

Kernels are Debian's cloud kernels, of whatever suite has them; they are kept in target/vm/KERNEL (remove that folder to
get a newer package). What the kernel and the checks printed is there, too: console.log, output.log.

A guest that dies before it runs a check is booted once more, and that is told.

Takes 3 to 5 minutes a kernel in software emulation (where there is no KVM) on two cores; the first time also a
minute for packages. Tests of speed are left out, because emulation says nothing about them.";

#[derive(Debug, clap::Args)]
#[command(after_long_help = HELP)]
pub(crate) struct Arguments {
    /// Kernels by major and minor: 6.1 6.12
    #[arg(required = true, value_name = "KERNEL", value_parser = version)]
    kernels: Vec<String>,
    /// What runs the guest's instructions, instead of what seems best
    #[arg(long, value_enum)]
    accelerator: Option<Accelerator>,
}

fn version(text: &str) -> Result<String, String> {
    let parts: Vec<&str> = text.split('.').collect();
    if parts.len() == 2 && parts.iter().all(|part| part.parse::<u16>().is_ok()) {
        Ok(text.to_owned())
    } else {
        Err("a kernel is named by its major and minor version, 6.1 for example".into())
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "the VM reads this machine's files as root: run it as root"
    );
    ensure!(
        std::env::consts::ARCH == "x86_64",
        "`vm` boots x86-64 kernels with this machine's programs in them: it needs an x86-64 machine"
    );
    setup::ensure(setup::Needs {
        run_time: true,
        vm: true,
        ..setup::Needs::BUILD
    })?;
    // First, because a kernel that nobody has is known in seconds.
    let kernels = fetch(&arguments.kernels)?;
    build::run()?;
    let lines = checks::lines(&test_programs()?)?;
    let accelerator = arguments
        .accelerator
        .unwrap_or_else(Accelerator::of_this_machine);
    let mut rows = Vec::new();
    let mut failed = Vec::new();
    for kernel in &kernels {
        let started = Instant::now();
        let results = boot::boot(kernel, &lines, accelerator)?;
        if !results.passed() {
            failed.push(kernel.version.clone());
        }
        rows.push(row(kernel, accelerator, &results, started.elapsed()));
    }
    print_table(&rows);
    ensure!(
        failed.is_empty(),
        "failed on {}; see above and target/vm/KERNEL/output.log",
        failed.join(", ")
    );
    Ok(())
}

fn fetch(versions: &[String]) -> Result<Vec<Kernel>> {
    let mut apt = None;
    let mut kernels = Vec::new();
    for version in versions {
        let kernel = match (Kernel::unpacked(version)?, &mut apt) {
            (Some(kernel), _) => kernel,
            (None, Some(apt)) => Kernel::fetch(version, apt)?,
            (None, none) => {
                println!("vm: reading Debian's package lists");
                let opened = Apt::open(&workspace::target_dir().join("vm/apt"))?;
                Kernel::fetch(version, none.insert(opened))?
            }
        };
        kernels.push(kernel);
    }
    Ok(kernels)
}

/// Builds the test programs of the checks: names and files.
fn test_programs() -> Result<BTreeMap<String, PathBuf>> {
    let mut cargo = command::cargo();
    // All of the workspace, for the reason that `cargo xtask test` has.
    cargo.args([
        "test",
        "--workspace",
        "--no-run",
        "--message-format",
        "json-render-diagnostics",
    ]);
    for check in &CHECKS {
        cargo.args(["--test", check.program]);
    }
    let messages = command::output(&mut cargo).context("build the test programs")?;
    let messages = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let programs = messages.filter_map(|message| {
        let file = message.get("executable")?.as_str()?;
        let name = message.pointer("/target/name")?.as_str()?;
        Some((name.to_owned(), PathBuf::from(file)))
    });
    Ok(programs.collect())
}

/// One kernel's line of the table.
fn row(
    kernel: &Kernel,
    accelerator: Accelerator,
    results: &Results,
    time: Duration,
) -> Vec<String> {
    let mut cells = vec![kernel.version.clone(), results.held_by.clone()];
    for program in abi::pins::program::ALL {
        cells.push(
            results
                .verified
                .get(program)
                .cloned()
                .unwrap_or_else(|| "?".into()),
        );
    }
    for check in &CHECKS {
        cells.push(results.of(check).map_or_else(
            || "not run".into(),
            |outcome| match (outcome.passed, outcome.tally.failed) {
                (true, _) => format!("{} passed", outcome.tally.passed),
                (false, 0) => "FAILED".into(),
                (false, failed) => format!("{failed} FAILED"),
            },
        ));
    }
    cells.push(format!("{} s, {}", time.as_secs(), accelerator.name()));
    cells
}

fn print_table(rows: &[Vec<String>]) {
    let programs = abi::pins::program::ALL;
    let names = ["Linux", "NIC by"].into_iter().chain(programs);
    let names = names
        .chain(CHECKS.iter().map(|check| check.name))
        .chain(["took"]);
    let names: Vec<String> = names.map(str::to_owned).collect();
    let rule = vec!["---".to_owned(); names.len()];
    println!();
    for cells in [&names, &rule].into_iter().chain(rows) {
        println!("| {} |", cells.join(" | "));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_is_named_by_major_and_minor() {
        assert_eq!(version("6.12"), Ok("6.12".into()));
        for wrong in ["6", "6.1.192", "six", "6.x", "", "../6.1"] {
            version(wrong).unwrap_err();
        }
    }
}
