//! `cargo xtask test`: the tests in four groups, one cargo call each, and one closing line for all.

mod libtest;

use crate::metadata::Metadata;
use crate::{build, build_next, build_variants, command, setup, workspace};
use anyhow::{Context as _, Result, bail};
pub(crate) use libtest::Tally;
use std::io::{BufRead as _, BufReader, Write};
use std::process::{Command, Stdio};

/// Package of the CNI binaries, and its integration tests: the protocol.
const PROTOCOL: &str = "cni";
/// Package of the lab, and its integration tests: agreement and system.
const LAB: &str = "tests";
const AGREE: &str = "agree";
/// Package of the benchmark, whose ignored tests run it.
const BENCH: &str = "bench";
/// How the names of the load tests begin.
const LOAD: &str = "load_";
/// Other programs whose ignored tests are slow, and not, as elsewhere, processes that a test starts.
const SLOW: [&str; 4] = ["kernels", "security", "slow_nft", "unit_systemd"];
/// Ignored tests of the protocol that are not slow: they fail, because of others' plug-ins.
const NOT_SLOW: &str = "--skip=others::";

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Groups to run; all but `load` when none is named
    #[arg(value_enum)]
    groups: Vec<Group>,
    /// Frames per program in the group agree, instead of 10,000
    #[arg(long)]
    frames: Option<usize>,
    /// Handed to the test programs: names to filter by, --nocapture, …
    #[arg(last = true)]
    rest: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Group {
    /// Unit, property and documentation tests of every crate
    Unit,
    /// The built CNI binaries, by environment, stdin and stdout (root)
    Protocol,
    /// The kernel's verdicts and bytes against the host's, and times per packet (root)
    Agree,
    /// Whole nodes in the lab's namespaces (root)
    System,
    /// On demand: what takes minutes, or measures and wants a quiet machine, as the ignored system tests do (root)
    Load,
}

impl Group {
    /// What runs when no group is named.
    const USUAL: [Self; 4] = [Self::Unit, Self::Protocol, Self::Agree, Self::System];
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let groups = if arguments.groups.is_empty() {
        &Group::USUAL[..]
    } else {
        &arguments.groups
    };
    let beyond_unit = groups.iter().any(|group| *group != Group::Unit);
    if beyond_unit && !nix::unistd::geteuid().is_root() {
        bail!(
            "the groups protocol, agree and system make namespaces and load eBPF: run as root, or `cargo xtask test unit`"
        );
    }
    setup::ensure(setup::Needs {
        run_time: beyond_unit,
        ..setup::Needs::BUILD
    })?;
    build::run()?;
    if groups
        .iter()
        .any(|group| [Group::System, Group::Load].contains(group))
    {
        build_next::run()?;
    }
    if groups.contains(&Group::Load) {
        build_variants::run(&[])?;
    }
    let metadata = Metadata::load()?;
    let mut tally = Tally::default();
    let mut broken = Vec::new();
    for group in groups {
        for selection in group.selections(&metadata)? {
            let (mut counted, ok) = run_selection(&selection, *group, arguments)?;
            // A call that fails with no failed test, because it does not compile or a program died, is one.
            counted.failed = counted.failed.max(u64::from(!ok));
            tally.add(counted);
            if !ok {
                broken.push(format!("`cargo {}`", selection.join(" ")));
            }
        }
    }
    println!("\n{tally}");
    anyhow::ensure!(
        broken.is_empty(),
        "these failed, see above: {}",
        broken.join(", ")
    );
    Ok(())
}

impl Group {
    /// The arguments of each cargo call. The whole workspace is selected, because cargo unifies
    /// features over what is selected: a call for one package alone would compile the dependencies another time.
    fn selections(self, metadata: &Metadata) -> Result<Vec<Vec<String>>> {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        if self == Self::Unit {
            let mut unit = words("test --no-fail-fast --workspace --lib --bins");
            for name in metadata.integration_tests(|package| package != PROTOCOL && package != LAB)
            {
                unit.extend(["--test".to_owned(), name]);
            }
            return Ok(vec![unit, words("test --no-fail-fast --workspace --doc")]);
        }
        let package = if self == Self::Protocol {
            PROTOCOL
        } else {
            LAB
        };
        let mut names = metadata.integration_tests(|name| name == package);
        names.retain(|name| match self {
            Self::Unit | Self::Protocol => true,
            Self::Agree => name == AGREE,
            Self::System => name != AGREE,
            Self::Load => name.starts_with(LOAD) || SLOW.contains(&name.as_str()),
        });
        if names.is_empty() {
            bail!(
                "the package {package} has no integration tests for this group; is a file missing in its folder tests/?"
            );
        }
        let elsewhere = metadata.integration_tests(|name| name != package);
        if let Some(name) = names.iter().find(|name| elsewhere.contains(name)) {
            bail!(
                "two packages have an integration test `{name}`, and cargo's --test would run both: rename one"
            );
        }
        if self == Self::Load {
            names.extend(metadata.integration_tests(|name| name == PROTOCOL || name == BENCH));
        }
        let mut selection = words("test --no-fail-fast --workspace");
        selection.extend(
            names
                .into_iter()
                .flat_map(|name| ["--test".to_owned(), name]),
        );
        Ok(vec![selection])
    }
}

/// Runs cargo with the output passed on as it comes, and counts.
fn run_selection(
    selection: &[String],
    group: Group,
    arguments: &Arguments,
) -> Result<(Tally, bool)> {
    let rest = &arguments.rest;
    let mut cargo = command::cargo();
    cargo
        .args(selection)
        .env("AZURE_VNET_BIN_DIR", workspace::product_dir())
        .env("AZURE_VNET_NEXT_DIR", workspace::next_dir())
        .env("AZURE_VNET_VARIANTS_DIR", workspace::variants_dir())
        .envs(
            arguments
                .frames
                .map(|frames| ("AGREE_FRAMES", frames.to_string())),
        );
    let own: &[&str] = match group {
        Group::Agree => &["--nocapture"],
        // One after the other: what runs beside a measurement is measured, too.
        Group::Load => &["--nocapture", "--ignored", "--test-threads=1", NOT_SLOW],
        Group::Unit | Group::Protocol | Group::System => &[],
    };
    // Twice is an error.
    let own = own
        .iter()
        .filter(|word| !rest.iter().any(|other| other == *word));
    cargo.arg("--").args(own).args(rest);
    println!("\ntest: {}", command::shown(&cargo));
    count(&mut cargo, &mut std::io::stdout())
}

/// Copies what the command prints to `sink` as it comes, and adds up the summary lines.
fn count(command: &mut Command, sink: &mut impl Write) -> Result<(Tally, bool)> {
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .context("start cargo test")?;
    let mut lines = BufReader::new(child.stdout.take().context("read what cargo test prints")?);
    let mut tally = Tally::default();
    let mut line = Vec::new();
    while lines
        .read_until(b'\n', &mut line)
        .context("read what cargo test prints")?
        > 0
    {
        sink.write_all(&line)
            .and_then(|()| sink.flush())
            .context("pass on what cargo test prints")?;
        if let Some(one) = Tally::parse(&String::from_utf8_lossy(&line)) {
            tally.add(one);
        }
        line.clear();
    }
    let status = child.wait().context("wait for cargo test")?;
    Ok((tally, status.success()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_counted_and_the_status_kept() {
        let script = "echo noise; echo 'test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured'; \
                      echo 'test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured'; exit 101";
        let mut sink = Vec::new();
        let (tally, ok) = count(Command::new("sh").args(["-c", script]), &mut sink).unwrap();
        assert!(sink.starts_with(b"noise\ntest result: ok."));
        assert_eq!(
            (tally, ok),
            (
                Tally {
                    passed: 3,
                    failed: 1,
                    skipped: 0
                },
                false
            )
        );
    }
}
