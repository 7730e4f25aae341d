//! `cargo xtask`: the developers' and CI's only entry point. One file (or folder) per verb.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a developers' tool talks on the terminal"
)]

mod bench;
mod build;
mod build_ebpf;
mod build_next;
mod build_variants;
mod check;
mod command;
mod demo;
mod docs;
mod fuzz;
mod metadata;
mod setup;
mod test;
mod toolchain;
mod vm;
mod workspace;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Builds, tests and shows azure-vnet-ebpf.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make this machine able to do all the rest; changes nothing when it already is
    Setup(setup::Arguments),
    /// Build the eBPF object, target/ebpf/azure-vnet.bpf.o
    BuildEbpf,
    /// Build the eBPF object and the static product binaries
    Build,
    /// Build the loader that the tests of upgrades upgrade to, target/next; `test` does it by itself
    BuildNext,
    /// Build other programs for the product that is built, target/variants; `bench experiments` and `test load` do it by themselves
    BuildVariants {
        /// Only these folders
        names: Vec<String>,
    },
    /// Run the tests, all or by group; sets up and builds first
    Test(test::Arguments),
    /// Formatting, lints, documents, licences, and what only the object and the dependency graph show
    Check(check::Arguments),
    /// Write the generated documents
    Docs,
    /// Look for frames that a hook judges wrongly, hook by hook
    Fuzz(fuzz::Arguments),
    /// Two simulated nodes, four pods, and a table of what they can and cannot reach
    Demo(demo::Arguments),
    /// What a pod's network costs, against the node itself and today's plug-ins
    Bench(bench::Arguments),
    /// Load, attach, agreement and core system tests on other kernels, in virtual machines; a few minutes a kernel
    Vm(vm::Arguments),
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}"); // without the backtrace that RUST_BACKTRACE would add
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    match Arguments::parse().verb {
        Verb::Setup(arguments) => setup::run(&arguments),
        Verb::BuildEbpf => {
            setup::ensure(setup::Needs::BUILD)?;
            build_ebpf::run()
        }
        Verb::Build => {
            setup::ensure(setup::Needs::BUILD)?;
            build::run()
        }
        Verb::BuildNext => {
            setup::ensure(setup::Needs::BUILD)?;
            build_next::run()
        }
        Verb::BuildVariants { names } => {
            setup::ensure(setup::Needs::BUILD)?;
            build_variants::run(&names)
        }
        Verb::Test(arguments) => test::run(&arguments),
        Verb::Check(arguments) => check::run(&arguments),
        Verb::Docs => docs::run(),
        Verb::Fuzz(arguments) => fuzz::run(&arguments),
        Verb::Bench(arguments) => bench::run(&arguments),
        Verb::Vm(arguments) => vm::run(&arguments),
        Verb::Demo(arguments) => {
            demo::require_root()?;
            if arguments.builds() {
                setup::ensure(setup::Needs {
                    run_time: true,
                    ..setup::Needs::BUILD
                })?;
                build::run()?;
            }
            demo::run(&arguments)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_arguments_are_consistent() {
        Arguments::command().debug_assert();
    }
}
