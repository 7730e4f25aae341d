//! The operator's tool `vnetctl`.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line tool"
)]

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use clap::{Parser, Subcommand, ValueEnum};
use loader::status::render_classes;
use rpc::{Reply, Request, RunDirectory, call};
use serde::Serialize;

/// Looks at the data path of azure-vnet-ebpf on this node.
#[derive(Debug, Parser)]
#[command(version)]
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
    Status,
    /// The class of each destination and the rule that decides; without addresses all rules, longest prefix first.
    Classes {
        /// Destinations, IPv4.
        #[arg(value_name = "ADDRESS", value_parser = address)]
        addresses: Vec<Ipv4Addr>,
    },
    /// Whether a conflist is right; nothing is touched. Ends with 1 when pods could not be added with it.
    Validate {
        /// The file.
        #[arg(default_value = loader::validate::CONFLIST)]
        conflist: PathBuf,
    },
    /// The addresses that are given to pods. Needs no loader.
    Ipam {
        #[command(subcommand)]
        action: Ipam,
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
        #[arg(long, value_name = "DIRECTORY", default_value = loader::ipam::BIN)]
        bin_dir: PathBuf,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vnetctl: {}", loader::report::one_line(&error));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let output = arguments.output;
    match &arguments.command {
        Command::Status => {
            let reply = ask(&Request::Status)?;
            let Reply::Status(status) = &reply else {
                bail!("the loader answered something else: {reply:?}");
            };
            print(output, &**status, loader::status::render)
        }
        Command::Classes { addresses } => {
            let addresses = addresses.clone();
            let reply = ask(&Request::Classes { addresses })?;
            let Reply::Classes { classes } = &reply else {
                bail!("the loader answered something else: {reply:?}");
            };
            print(output, classes.as_slice(), render_classes)
        }
        Command::Validate { conflist } => {
            let findings = loader::validate::read(conflist)?;
            let render = |findings: &[_]| loader::validate::render(conflist, findings);
            print(output, findings.as_slice(), render)?;
            loader::validate::verdict(conflist, &findings)
        }
        Command::Ipam { action } => ipam(output, action),
    }
}

fn ipam(output: Output, action: &Ipam) -> anyhow::Result<()> {
    match action {
        Ipam::Show => print(
            output,
            loader::ipam::show()?.as_slice(),
            loader::ipam::render,
        ),
        Ipam::Check => {
            let leaked = loader::ipam::check()?;
            print(output, leaked.as_slice(), loader::ipam::render)?;
            loader::ipam::verdict(&leaked)
        }
        Ipam::Gc { dry_run, bin_dir } => {
            let done = loader::ipam::gc(bin_dir, *dry_run)?;
            print(output, done.as_slice(), loader::ipam::render_freed)?;
            loader::ipam::complaint(&done)
        }
    }
}

/// Prints what the loader told.
fn print<T: Serialize + ?Sized>(
    output: Output,
    told: &T,
    render: impl FnOnce(&T) -> String,
) -> anyhow::Result<()> {
    match output {
        Output::Table => print!("{}", render(told)),
        Output::Json => println!("{}", serde_json::to_string_pretty(told)?),
    }
    Ok(())
}

fn ask(request: &Request) -> anyhow::Result<Reply> {
    let socket = RunDirectory::default().socket();
    let reply = call(&socket, request, Duration::from_secs(10))?;
    if let Reply::Refused(refusal) = reply {
        return Err(refusal.into());
    }
    Ok(reply)
}

fn address(text: &str) -> Result<Ipv4Addr, String> {
    text.parse()
        .map_err(|_why| "it is no IPv4 address; write one such as 10.0.0.10".to_owned())
}
