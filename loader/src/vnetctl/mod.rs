//! `vnetctl`: what an operator asks this node. One module per command.
//!
//! | Question | Module |
//! |---|---|
//! | How is everything? | `status` |
//! | What is wrong with the node? | `doctor` |
//! | Which pods are there, and is each whole? | `endpoints` |
//! | Who holds which SNAT ports? | `snat` |
//! | Which flows are known, and which way do they go? | `flows` |
//! | What does a code or a reason mean? | `explain` |
//! | What does somebody need who looks for a fault elsewhere? | `sysdump` |
//! | Does every path of packets work? | `selftest` |
//! | How does all of it go away? | `uninstall` |
//! | What do the pinned maps hold? | `pinned` |
//! | How is an answer printed? | `output` |
//! | What shape has it for programs? | `schemas` |

mod doctor;
mod endpoints;
mod explain;
mod flows;
pub(crate) mod output;
mod pinned;
#[cfg(feature = "documents")]
mod schemas;
mod selftest;
mod snat;
mod status;
mod sysdump;
mod uninstall;

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{bail, ensure};
use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;
use nix::unistd::geteuid;
use rpc::{Reply, Request, RunDirectory, call};

use output::Output;
#[cfg(feature = "documents")]
pub use schemas::schemas;

/// Looks at the data path of azure-vnet-ebpf on this node.
#[derive(Debug, Parser)]
#[command(
    name = "vnetctl",
    version,
    after_help = "Exit status: 0 done, and nothing is wrong with what was asked about, 1 something is or the answer could not be had, \
                  2 wrong arguments. `status` only shows; `status --brief` judges."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// How to print.
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Loader, NIC, address pools, programs, pods, destination classes, drops, and what is wrong.
    Status(status::Arguments),
    /// The class of each destination and the rule that decides; without addresses all rules, longest prefix first.
    Classes {
        /// Destinations, IPv4.
        #[arg(value_name = "ADDRESS", value_parser = address)]
        addresses: Vec<Ipv4Addr>,
    },
    /// Whether a conflist is right; nothing is touched. Ends with 1 when pods could not be added with it.
    Validate {
        /// The file.
        #[arg(default_value = crate::validate::CONFLIST)]
        conflist: PathBuf,
    },
    /// The addresses that are given to pods. Needs no loader.
    Ipam {
        #[command(subcommand)]
        action: Ipam,
    },
    /// What is wrong with this node, why that matters, and what to do. Ends with 1 when anything is. Needs no loader.
    Doctor,
    /// The pods of this node, and whether all of each is there. Needs no loader.
    Endpoints,
    /// The ports of the primary address that stand for pods', and who has them. Needs no loader.
    Snat(snat::Arguments),
    /// The flows whose way is known. Needs no loader.
    Flows(flows::Arguments),
    /// What would happen to a packet of a pod, and why, step by step. Nothing is sent. Needs no loader.
    Trace(crate::trace::Query),
    /// Packets that are dropped, as it happens, and with --pod what becomes of all packets of a pod. Needs no loader.
    Monitor(crate::events::Monitor),
    /// A pod's packets in a pcapng file, for Wireshark and tcpdump: the first 256 bytes of each, and what became of it as a comment.
    Capture(crate::events::Capture),
    /// Adds two throw-away pods, tries every path of packets, and takes them away. Ends with 1 when one does not work.
    Selftest(selftest::Arguments),
    /// Writes one file that tells everything to whoever looks for a fault; secrets are left out. Needs no loader.
    Sysdump(sysdump::Arguments),
    /// Makes the node as it was before; binaries and configuration stay. Refuses while pods live.
    Uninstall(uninstall::Arguments),
    /// What an error code or a drop reason means, and what to do; without one, all of them. Needs no loader.
    Explain {
        /// `11`, or `source_address`.
        #[arg(value_name = "CODE|REASON")]
        topic: Option<String>,
    },
    /// Prints the completions of a shell: `source <(vnetctl completions bash)`.
    Completions {
        /// Which shell.
        shell: Shell,
    },
}

#[derive(Debug, Subcommand)]
enum Ipam {
    /// Who has which address.
    Show,
    /// The addresses that nobody uses and nobody will give back, and why. Ends with 1 when there are any.
    Check,
    /// Gives those back, as a runtime would: by the plug-ins' DEL.
    Gc {
        /// Only tells what would be done.
        #[arg(long)]
        dry_run: bool,
        /// Where the plug-ins are.
        #[arg(long, value_name = "DIRECTORY", default_value = crate::ipam::BIN)]
        bin_dir: PathBuf,
    },
    /// Gives one back whose pod is gone, also when nothing tells whether it is. Refused while a live pod has it.
    Free {
        /// Which.
        #[arg(value_parser = address)]
        address: Ipv4Addr,
        /// Where the plug-ins are.
        #[arg(long, value_name = "DIRECTORY", default_value = crate::ipam::BIN)]
        bin_dir: PathBuf,
    },
}

/// Runs the command line.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if output::is_enough(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(&format!("vnetctl: {}", crate::report::one_line(&error)));
            ExitCode::FAILURE
        }
    }
}

/// The command line, for what is made of it: man pages.
pub fn command() -> clap::Command {
    Arguments::command()
}

impl Command {
    /// Whether it looks at what only root sees: others would be told of faults that are none.
    const fn is_roots(&self) -> bool {
        !matches!(
            self,
            Self::Explain { .. } | Self::Completions { .. } | Self::Validate { .. }
        )
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let output = arguments.output;
    ensure!(
        !arguments.command.is_roots() || geteuid().is_root(),
        "only root sees pins, records and rules; run it with sudo"
    );
    match &arguments.command {
        Command::Status(arguments) => status::run(output, arguments),
        Command::Classes { addresses } => {
            let addresses = addresses.clone();
            let reply = ask(&Request::Classes { addresses })?;
            let Reply::Classes { classes } = &reply else {
                bail!("the loader answered something else: {reply:?}");
            };
            output.print(classes.as_slice(), crate::status::render_classes)
        }
        Command::Validate { conflist } => {
            let findings = crate::validate::read(conflist)?;
            let render = |findings: &[_]| crate::validate::render(conflist, findings);
            output.print(findings.as_slice(), render)?;
            crate::validate::verdict(conflist, &findings)
        }
        Command::Ipam { action } => ipam(output, action),
        Command::Doctor => doctor::run(output),
        Command::Endpoints => endpoints::run(output),
        Command::Snat(arguments) => snat::run(output, arguments),
        Command::Flows(arguments) => flows::run(output, arguments),
        Command::Monitor(wanted) => {
            crate::events::monitor(wanted, output == Output::Json, &mut output::Out)
        }
        Command::Capture(wanted) => {
            let captured = crate::events::capture(wanted)?;
            output::complain(&format!(
                "{} packets captured, {} came too fast",
                captured.packets, captured.lost
            ));
            Ok(())
        }
        Command::Trace(query) => trace(output, query),
        Command::Selftest(arguments) => selftest::run(output, arguments),
        Command::Sysdump(arguments) => sysdump::run(output, arguments),
        Command::Uninstall(arguments) => uninstall::run(output, arguments),
        Command::Explain { topic } => explain::run(output, topic.as_deref()),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut command(), "vnetctl", &mut script);
            output::write(&script)
        }
    }
}

fn trace(output: Output, query: &crate::trace::Query) -> anyhow::Result<()> {
    if let Err(wrong) = query.protocol() {
        command().error(ErrorKind::ArgumentConflict, wrong).exit();
    }
    let trace = crate::trace::trace(query)?;
    output.print(&trace, crate::trace::render)?;
    ensure!(
        trace.kernel.agrees,
        "the program in the kernel decides otherwise"
    );
    Ok(())
}

fn ipam(output: Output, action: &Ipam) -> anyhow::Result<()> {
    use crate::ipam;
    let render = |holdings: &[_]| ipam::render(holdings, output.is_wide());
    match action {
        Ipam::Show => output.print(ipam::show()?.as_slice(), render),
        Ipam::Check => {
            let leaked = ipam::check()?;
            output.print(leaked.as_slice(), render)?;
            ipam::verdict(&leaked)
        }
        Ipam::Gc { dry_run, bin_dir } => {
            let done = ipam::gc(bin_dir, *dry_run)?;
            output.print(done.as_slice(), ipam::render_freed)?;
            ipam::complaint(&done)
        }
        Ipam::Free { address, bin_dir } => {
            let freed = ipam::free_address(bin_dir, *address)?;
            output.print(freed.as_slice(), ipam::render_freed)
        }
    }
}

/// How long the loader may take for each step of an answer.
const PATIENCE: Duration = Duration::from_secs(10);

fn ask(request: &Request) -> anyhow::Result<Reply> {
    let socket = RunDirectory::default().socket();
    let reply = call(&socket, request, PATIENCE)?;
    if let Reply::Refused(refusal) = reply {
        return Err(refusal.into());
    }
    Ok(reply)
}

fn address(text: &str) -> Result<Ipv4Addr, String> {
    text.parse()
        .map_err(|_why| "it is no IPv4 address; write one such as 10.0.0.10".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        command().debug_assert();
    }

    #[test]
    fn every_shell_gets_completions_that_know_every_command() {
        for shell in [
            Shell::Bash,
            Shell::Elvish,
            Shell::Fish,
            Shell::PowerShell,
            Shell::Zsh,
        ] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut command(), "vnetctl", &mut script);
            let script = String::from_utf8(script).unwrap();
            for known in command().get_subcommands() {
                assert!(script.contains(known.get_name()), "{shell}: {known}");
            }
        }
    }
}
