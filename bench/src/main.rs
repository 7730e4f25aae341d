//! Ours, today's designs and the node itself, side by side in one run in the lab: docs/performance.md.
//!
//! `cargo xtask bench` builds what is measured, and runs this.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line tool"
)]

mod experiments;
mod load;
mod names;
mod node;
mod report;
mod run;
mod scene;
mod series;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};

use crate::names::{Measure, SideName};
use crate::report::{Comparison, Costs, Machine, Report, compare};
use crate::run::{Book, Plan};

/// Measures the network of pods against the node's own and against today's plug-ins.
#[derive(Debug, Parser)]
#[command(name = "bench", args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// Three minutes: shorter and fewer rounds, no 250 pods at once, and nothing of what grows unless --only names it, then its
    /// first points
    #[arg(long)]
    quick: bool,
    /// Only these; may be given several times
    #[arg(long, value_enum, num_args = 1.., value_delimiter = ',')]
    only: Vec<Measure>,
    /// Rounds, instead of 9, or of 13 and 5 in a quick run
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=100))]
    rounds: Option<u16>,
    /// A report.json of before: what is worse by more than a tenth, and than its rounds differ, is told; the exit status is 1 then. Of two quick
    /// runs p99, CPU time and the drop alone are not judged: their rounds are too short
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
    /// Where the report goes
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// What the programs cost alone, as the agreement test has found it; `cargo xtask bench` hands it over
    #[arg(long, value_name = "FILE")]
    costs: Option<PathBuf>,
    /// Why there is no such file
    #[arg(long, value_name = "TEXT", conflicts_with = "costs")]
    costs_failed: Option<String>,
}

impl Arguments {
    fn costs(&self) -> Result<Option<Costs>> {
        if let Some(failed) = &self.costs_failed {
            bail!("{failed}");
        }
        self.costs.as_deref().map(Costs::read).transpose()
    }
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Compares two reports without measuring anything
    Compare { before: PathBuf, now: PathBuf },
    /// Writes a report.json into docs/performance.md, with its plots beside it: of a full run of a commit that was finished
    Publish {
        report: PathBuf,
        /// Another document with the same marks, also for a quick run or one beside what is not committed
        #[arg(long, value_name = "FILE")]
        into: Option<PathBuf>,
    },
    /// What alternatives of the product would cost, in turns with it
    Experiments(experiments::Arguments),
    /// The same loads between two real machines
    Node(node::Arguments),
}

fn main() -> ExitCode {
    run_verb().unwrap_or_else(|error| {
        eprintln!("error: {error:#}"); // without the backtrace that RUST_BACKTRACE would add
        ExitCode::FAILURE
    })
}

fn run_verb() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    match &arguments.verb {
        Some(Verb::Compare { before, now }) => {
            return told(&Report::read(before)?, &Report::read(now)?);
        }
        Some(Verb::Publish { report, into }) => {
            let default = root.join("docs/performance.md");
            let document = into.as_ref().unwrap_or(&default);
            let report = Report::read(report)?;
            report.may_be_published(into.is_some())?;
            report.publish(document)?;
            let machine = &report.machine;
            let (kind, commit, busy) = (machine.kind(), &machine.commit, machine.busy_before);
            say(&format!(
                "published: a {kind} run of {commit:?}; others wanted {busy:.2} of {} CPUs before it",
                machine.cpus
            ));
            return Ok(ExitCode::SUCCESS);
        }
        Some(Verb::Experiments(arguments)) => {
            return experiments::run(arguments, root.join("target/bench"));
        }
        Some(Verb::Node(arguments)) => return node::run(arguments).map(|()| ExitCode::SUCCESS),
        None => {}
    }
    // Read first: what cannot be compared with should not cost three minutes.
    let before = arguments.compare.as_deref().map(Report::read).transpose()?;
    let default = root.join("target/bench");
    let folder = arguments.out.as_ref().unwrap_or(&default);
    let report = measure(&arguments, folder);
    report.write(folder)?;
    say(&format!("report: {}/report.md", folder.display()));
    match before {
        Some(before) => told(&before, &report),
        None if report.lacks_ours() => {
            say("something of ours could not be measured, see the report");
            Ok(ExitCode::FAILURE)
        }
        None => Ok(ExitCode::SUCCESS),
    }
}

fn measure(arguments: &Arguments, folder: &Path) -> Report {
    let mut plan = if arguments.quick {
        Plan::quick()
    } else {
        Plan::full()
    };
    if let Some(rounds) = arguments.rounds {
        plan.set_rounds(rounds.into());
    }
    let mut machine = Machine::describe(plan.quick);
    let costs = arguments.costs().map(|costs| machine.costs = costs);
    let mut book = Book::new(plan, machine, Some(folder.to_path_buf()));
    if let Err(error) = costs {
        book.fail(Some(SideName::Ours), "what the programs cost alone", &error);
    }
    book.run(&arguments.only);
    book.report()
}

/// Says what is worse; a failure if anything is, if nothing could be compared, or if ours could not be measured.
fn told(before: &Report, now: &Report) -> Result<ExitCode> {
    let Comparison {
        compared,
        alike,
        worse,
        apart,
        gone,
        lacking,
    } = compare(before, now)?;
    for (when, report) in [("before", before), ("now", now)] {
        if report.machine.is_busy() {
            let (busy, cpus) = (report.machine.busy_before, report.machine.cpus);
            say(&format!(
                "BUSY   {when}: others wanted {busy:.1} of {cpus} CPUs; figures of such a run prove little"
            ));
        }
    }
    for figure in &worse {
        say(&format!("WORSE  {figure}"));
    }
    for figure in &apart {
        say(&format!("APART  {figure}"));
    }
    for figure in &gone {
        say(&format!("GONE   {figure}: cannot be compared"));
    }
    for what in &lacking {
        say(&format!("NEITHER {what}: neither run has it"));
    }
    say(&format!(
        "{compared} figures compared: {alike} within a tenth, {} worse by more than that and than their rounds differ",
        worse.len()
    ));
    let failed = now.lacks_ours();
    if failed {
        say("something of ours could not be measured, see the report");
    }
    Ok(if worse.is_empty() && compared > 0 && !failed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn say(line: &str) {
    println!("{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_that_could_not_be_measured_or_read_are_a_failure_with_its_reason_and_others_none() {
        let costs = |line: &str| Arguments::parse_from(line.split(' ')).costs();
        let failed = ["bench", "--costs-failed", "cargo test: exit status: 101"];
        let failed = Arguments::parse_from(failed).costs().unwrap_err();
        assert_eq!(failed.to_string(), "cargo test: exit status: 101");
        costs("bench --costs /dev/null").unwrap_err();
        assert_eq!(costs("bench").unwrap(), None);
    }
}
