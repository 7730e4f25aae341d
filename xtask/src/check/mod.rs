//! `cargo xtask check`: what must hold of every commit and is not a test.

mod alerts;
mod directions;
mod evidence;
mod loops;
mod object;

use crate::{build_ebpf, command, docs, setup, workspace};
use anyhow::{Context as _, Result, bail, ensure};
use clap::ValueEnum;
use std::path::Path;
use std::time::Instant;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Checks to run; all when none is named
    #[arg(value_enum)]
    names: Vec<Name>,
    /// With `budget`: writes what is found to bench/budget.json; on a quiet machine
    #[arg(long)]
    write: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Name {
    /// Code is formatted
    Fmt,
    /// No lint speaks
    Clippy,
    /// No lint speaks of the eBPF programs and what they are made of, for their own target
    ClippyEbpf,
    /// Documents build without a warning, private items too
    Rustdoc,
    /// Licences, bans, duplicates and sources of dependencies (deny.toml)
    Deny,
    /// No panic path in the eBPF object
    Object,
    /// No loop in the eBPF object that Linux 6.1 refuses
    Loops,
    /// Generated documents are current
    Docs,
    /// docs/conformance.md names tests that exist for every row, docs/errors.md tells every code and step
    Evidence,
    /// The alert rules do what their tests say (promtool)
    Alerts,
    /// No program has more instructions, and no verdict takes longer, than bench/budget.json says (root)
    Budget,
    /// Crates depend on each other only in the direction that ARCHITECTURE.md says
    Directions,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let names = if arguments.names.is_empty() {
        Name::value_variants()
    } else {
        &arguments.names
    };
    if arguments.write {
        ensure!(
            names == [Name::Budget],
            "only `budget` can be written: cargo xtask check budget --write"
        );
        build_ebpf::run()?;
        return budget(&Costs::Budget);
    }
    setup::ensure(setup::Needs {
        lint: true,
        ..setup::Needs::BUILD
    })?;
    build_ebpf::run()?; // the object check reads it, and the loader embeds it
    let results: Vec<_> = names.iter().map(|name| (*name, timed(*name))).collect();
    println!();
    let mut failed = 0;
    for (name, (seconds, result)) in &results {
        let verdict = result
            .as_ref()
            .err()
            .map_or_else(|| "ok".to_owned(), |error| format!("FAILED: {error}"));
        println!("check: {:<11} {seconds:>5.1} s  {verdict}", label(*name));
        failed += usize::from(result.is_err());
    }
    if failed > 0 {
        bail!("{failed} of {} checks failed", results.len());
    }
    Ok(())
}

fn timed(name: Name) -> (f32, Result<()>) {
    println!("\ncheck: {}", label(name));
    let start = Instant::now();
    let result = name.check();
    if let Err(error) = &result {
        println!("{}: {error:#}", label(name));
    }
    (start.elapsed().as_secs_f32(), result)
}

fn label(name: Name) -> String {
    name.to_possible_value()
        .map_or_else(String::new, |value| value.get_name().to_owned())
}

impl Name {
    fn check(self) -> Result<()> {
        let cargo = |words: &str| {
            let mut cargo = command::cargo();
            cargo.args(words.split(' '));
            cargo
        };
        match self {
            Self::Fmt => command::run(&mut cargo("fmt --all --check"))
                .context("not formatted; run `cargo fmt --all`"),
            Self::Clippy => {
                let mut clippy = cargo(
                    "clippy --workspace --all-targets --features loader/documents -- --deny warnings",
                );
                command::run(&mut clippy).context("lints or errors, see above")
            }
            Self::ClippyEbpf => build_ebpf::clippy().context("lints or errors, see above"),
            Self::Rustdoc => {
                let mut doc = cargo("doc --workspace --no-deps --document-private-items");
                // Links to private items are fine: the documents are for those who work here, private items included.
                let flags = "--deny warnings --allow rustdoc::private-intra-doc-links";
                command::run(doc.env("RUSTDOCFLAGS", flags))
                    .context("warnings or errors, see above")
            }
            Self::Deny => {
                let program =
                    setup::deny_program().context("no cargo-deny; run `cargo xtask setup`")?;
                let mut deny = command::foreign(program);
                // Advisories come from a git repository, and a check should not depend on reaching it.
                deny.args(["--all-features", "check", "licenses", "bans", "sources"]);
                command::run(&mut deny).context("see above, and deny.toml")
            }
            Self::Object => object::check(),
            Self::Loops => loops::check(),
            Self::Docs => docs::check(),
            Self::Evidence => evidence::check(),
            Self::Alerts => alerts::check(),
            Self::Budget => budget(&Costs::Judged),
            Self::Directions => directions::check(),
        }
    }
}

/// What becomes of what the programs cost alone.
pub(crate) enum Costs<'a> {
    /// It is compared with bench/budget.json.
    Judged,
    /// It is bench/budget.json from now on: of several loads the most.
    Budget,
    /// It is written to a file, after so many rounds instead of all.
    Found(&'a Path, Option<u32>),
}

/// The agreement test has the programs, the frames and the clock; here it is asked for this alone.
pub(crate) fn budget(costs: &Costs<'_>) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        println!("left out: loading programs needs root");
        return Ok(());
    }
    let mut test = command::cargo();
    test.args(["test", "--quiet", "--workspace", "--test", "agree", "--"]);
    test.args([
        "--exact",
        "every_verdict_is_within_its_budget",
        "--ignored",
        "--nocapture",
    ]);
    match costs {
        Costs::Judged => {}
        Costs::Budget => {
            let budget = workspace::root().join("bench/budget.json");
            test.env("AZURE_VNET_BUDGET_WRITTEN", budget);
        }
        Costs::Found(file, rounds) => {
            test.env("AZURE_VNET_BUDGET_FOUND", file);
            if let Some(rounds) = rounds {
                test.env("AZURE_VNET_BUDGET_ROUNDS", rounds.to_string());
            }
        }
    }
    command::run(&mut test)
        .context("more instructions or time than bench/budget.json allows, see above")
}
