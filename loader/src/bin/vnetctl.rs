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
