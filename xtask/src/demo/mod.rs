//! `cargo xtask demo`: two simulated nodes, four pods, and a table of what they can and cannot reach.

mod checks;
mod life;
mod scene;
mod table;

use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use lab::keep;

use crate::workspace;
use scene::Scene;
use table::Table;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Leave the lab up and say how to enter a pod and what to try
    #[arg(long)]
    pub(crate) keep: bool,
    /// Remove a lab that `--keep` left
    #[arg(long, conflicts_with = "keep")]
    pub(crate) down: bool,
    /// What `--keep` starts: everything is built already, and the lab is kept afterwards
    #[arg(long, hide = true)]
    pub(crate) keeper: bool,
}

impl Arguments {
    /// Whether the product must be built first.
    pub(crate) fn builds(&self) -> bool {
        !self.down && !self.keeper
    }
}

/// Refuses early what would fail after minutes of building.
pub(crate) fn require_root() -> Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "the demo makes network namespaces and loads BPF programs: run it as root"
    );
    Ok(())
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    if arguments.down {
        let was_there = keep::down(&pidfile())?;
        println!(
            "{}",
            if was_there {
                "the lab is gone"
            } else {
                "there was no lab"
            }
        );
        return Ok(());
    }
    if arguments.keep {
        let keeper = std::env::current_exe().context("find this program")?;
        keep::down(&pidfile())?;
        let mut again = Command::new(keeper);
        again.args(["demo", "--keeper"]);
        return keep::detach(again);
    }
    show(arguments.keeper)
}

fn show(keeper: bool) -> Result<()> {
    let start = Instant::now();
    let mut table = Table::new();
    let scene = Scene::set(&mut table)?;
    checks::reach(&scene, &mut table);
    checks::refuse(&scene, &mut table);
    checks::look(&scene, &mut table);
    life::survive(&scene, &mut table);
    if keeper {
        checks::fabric(&scene, &mut table);
        // Kept also when something failed: then most of all, somebody wants to look.
        if let Err(error) = table.finish(start.elapsed()) {
            println!("{error}");
        }
        scene.explain();
        let (lab, _inhabitants) = scene.into_parts();
        return keep::keep(lab, &pidfile());
    }
    life::hurry(&scene, &mut table);
    checks::fabric(&scene, &mut table);
    life::leave(scene, &mut table);
    table.finish(start.elapsed())
}

fn pidfile() -> PathBuf {
    workspace::root().join("target/demo.pid")
}
