//! What would it cost otherwise? Alternatives take turns, A B A B …, in one run: docs/adr/0016-experiments.md.
//!
//! An alternative is a setting of the lab, or the product with other programs, as `cargo xtask build-variants` leaves it.

mod cables;
mod netkit;
mod plugin;
mod programs;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::{Args, ValueEnum};
use lab::Node;

use crate::load::{Times, tcp};
use crate::names::{Path, SideName, Unit};
use crate::report::Machine;
use crate::run::{Go, flood_of, requests_of};
use crate::scene::{Kind, Side};
use table::{Line, Table};

/// What is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Experiment {
    /// GRO and threaded NAPI at both ends of a pod's cable
    Gro,
    /// The XDP guard on and off
    Guard,
    /// Large tables that are allocated at once, and as they grow
    Prealloc,
    /// The plug-in linked statically and dynamically, and a program that does nothing
    Linking,
    /// The plug-in with an allocator that never frees: all that allocation may cost
    Allocation,
    /// What the exec of the IPAM plug-in is of ADD
    Ipam,
    /// A cable of netkit beside one of veth, where the kernel has netkit
    Netkit,
    /// Clearing the mark of what leaves by the NIC
    Mark,
    /// Ethernet addresses written by us instead of looked up by the kernel
    Mac,
    /// Every look-up in the tables, without caches
    Caches,
}

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Only these; may be given several times
    #[arg(long, value_enum, num_args = 1.., value_delimiter = ',')]
    only: Vec<Experiment>,
    /// Rounds of every alternative
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u16).range(7..=100))]
    rounds: u16,
    /// How long each load lasts, milliseconds
    #[arg(long, default_value_t = 1000, value_name = "MS")]
    time: u64,
    /// Where the table goes
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
}

/// Runs them, prints the table and writes it. What fails is said in the table, and the others go on.
pub(crate) fn run(arguments: &Arguments, default: PathBuf) -> Result<ExitCode> {
    let wanted = if arguments.only.is_empty() {
        Experiment::value_variants()
    } else {
        &arguments.only
    };
    let mut trial = Trial {
        rounds: arguments.rounds.into(),
        times: Times::of(Duration::from_millis(arguments.time)),
        table: Table::new(&Machine::describe(false)),
    };
    for experiment in wanted {
        let name = experiment.name();
        crate::say(&name);
        if let Err(error) = trial.run(*experiment) {
            trial.table.fail(&name, &error);
        }
    }
    let text = trial.table.to_string();
    crate::say(&text);
    let folder = arguments.out.clone().unwrap_or(default);
    let path = folder.join("experiments.md");
    std::fs::create_dir_all(&folder)
        .and_then(|()| std::fs::write(&path, text))
        .with_context(|| format!("write {}", path.display()))?;
    Ok(if trial.table.has_failed() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

impl Experiment {
    fn name(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// What one alternative is measured by: its label, and a turn.
type Turn<'a> = (&'static str, Go<'a>);

struct Trial {
    rounds: usize,
    times: Times,
    table: Table,
}

impl Trial {
    fn run(&mut self, experiment: Experiment) -> Result<()> {
        let out = [Path::ToVnet, Path::Internet];
        let name = &experiment.name();
        match experiment {
            Experiment::Gro => cables::run(self, name),
            Experiment::Guard => programs::guard(self, name),
            Experiment::Prealloc => programs::compare(self, name, "no-prealloc", &out),
            Experiment::Linking => plugin::otherwise(self, name, "dynamic"),
            Experiment::Allocation => plugin::otherwise(self, name, "never-free"),
            Experiment::Ipam => plugin::ipam(self, name),
            Experiment::Netkit => netkit::run(self, name),
            Experiment::Mark => programs::compare(self, name, "keep-mark", &out),
            Experiment::Mac => programs::compare(self, name, "direct-mac", &out),
            Experiment::Caches => programs::compare(self, name, "no-caches", &out),
        }
    }

    /// Connections and datagrams on each path, and the CPU time of each.
    fn compare_loads(
        &mut self,
        name: &str,
        sides: &[(&'static str, &Side)],
        paths: &[Path],
    ) -> Result<()> {
        type Make = fn(&Side, Path, Times) -> Result<Go<'static>>;
        let loads: [(&str, Make); 2] = [
            ("tcp_crr", |side, path, times| {
                requests_of(&side.ends(path)?, times, tcp::connect_close)
            }),
            ("udp_pps", flood_of),
        ];
        for path in paths {
            for (load, make) in loads {
                let turns = sides
                    .iter()
                    .map(|(label, side)| Ok((*label, make(side, *path, self.times)?)));
                let turns: Vec<Turn<'_>> = turns.collect::<Result<_>>()?;
                self.alternate(name, &figures(load, *path, Unit::PerSecond), turns)?;
            }
        }
        Ok(())
    }

    /// The alternatives' turns, round after round. A round before the first is left out. CPU time, where a turn tells it, has a
    /// line of its own.
    fn alternate(
        &mut self,
        name: &str,
        figures: &[(String, Unit)],
        mut turns: Vec<Turn<'_>>,
    ) -> Result<()> {
        let line = |(figure, unit): &(String, Unit)| {
            let labels = turns.iter().map(|(label, _)| *label).collect();
            Line::new(name, figure.clone(), *unit, labels)
        };
        let mut lines: Vec<Line> = figures.iter().map(line).collect();
        let per_each = |(figure, _): &(String, Unit)| {
            line(&(format!("{figure}, CPU each"), Unit::Microseconds))
        };
        let mut cpu: Vec<Line> = figures.iter().map(per_each).collect();
        for round in 0..=self.rounds {
            for (number, (label, go)) in turns.iter_mut().enumerate() {
                let samples = go().with_context(|| format!("{name}, {label}"))?;
                ensure!(
                    samples.len() == lines.len(),
                    "{label}: {} figures",
                    samples.len()
                );
                if round == 0 {
                    continue;
                }
                for ((line, cpu), sample) in lines.iter_mut().zip(&mut cpu).zip(samples) {
                    line.push(number, sample.value);
                    if let Some((time, work)) = sample.cpu {
                        cpu.push(number, time.as_secs_f64() * 1e6 / work);
                    }
                }
            }
        }
        for line in lines.into_iter().chain(cpu).filter(Line::is_whole) {
            crate::say(&format!("  {line}"));
            self.table.push(line);
        }
        Ok(())
    }
}

/// What one turn of a load tells: a flood also tells what was sent.
fn figures(load: &str, path: Path, unit: Unit) -> Vec<(String, Unit)> {
    let mut figures = vec![(format!("{load}, {path}"), unit)];
    if load == "udp_pps" {
        figures.push((format!("{load}, {path}, sent"), unit));
    }
    figures
}

/// A node of ours with these binaries, the product's when none are named.
fn ours(
    kind: Kind,
    binaries: Option<&std::path::Path>,
    configure: &dyn Fn(&Node) -> Result<()>,
) -> Result<Side> {
    Side::build(SideName::Ours, kind, binaries, configure)
}

/// Where `cargo xtask build-variants` leaves a variant.
fn variant(name: &str) -> Result<PathBuf> {
    let default = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/variants");
    let told = std::env::var_os("AZURE_VNET_VARIANTS_DIR").map(PathBuf::from);
    let folder = told.unwrap_or(default).join(name);
    let found = folder.canonicalize();
    found.with_context(|| {
        format!(
            "look for {}: run `cargo xtask build-variants`",
            folder.display()
        )
    })
}
