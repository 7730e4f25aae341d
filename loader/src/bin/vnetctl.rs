//! The operator's tool `vnetctl`.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line tool"
)]

use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use clap::{Parser, Subcommand, ValueEnum};
use rpc::{Reply, Request, RunDirectory, Status, call};

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
    match arguments.command {
        Command::Status => {
            let status = status()?;
            match arguments.output {
                Output::Table => print!("{}", loader::status::render(&status)),
                Output::Json => println!("{}", serde_json::to_string_pretty(&status)?),
            }
        }
    }
    Ok(())
}

fn status() -> anyhow::Result<Status> {
    match call(
        &RunDirectory::default().socket(),
        &Request::Status,
        Duration::from_secs(10),
    )? {
        Reply::Status(status) => Ok(*status),
        Reply::Refused(refusal) => Err(refusal.into()),
        other @ (Reply::Done | Reply::Node(_) | Reply::Pools(_)) => {
            bail!("the loader answered something else: {other:?}")
        }
    }
}
