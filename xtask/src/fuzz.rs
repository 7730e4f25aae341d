//! `cargo xtask fuzz`: one libFuzzer target per hook, on the stable compiler.
//!
//! Coverage instrumentation needs no nightly flag; what does, `AddressSanitizer`, has nothing to find in code without
//! `unsafe`. libFuzzer itself is C++, so a C++ compiler must be there.

use crate::{command, workspace};
use anyhow::{Context as _, Result};
use clap::ValueEnum as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What cargo-fuzz passes, without a sanitizer.
const INSTRUMENTATION: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
     -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 --cfg=fuzzing";

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Hooks to fuzz; all when none is named
    #[arg(value_enum)]
    hooks: Vec<Hook>,
    /// For each hook
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Replace fuzz/corpus by the smallest set that reaches as much as everything found
    #[arg(long)]
    keep: bool,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
enum Hook {
    /// Host veth, ingress
    FromPod,
    /// Host veth, egress
    ToPod,
    /// NIC, ingress
    FromWire,
    /// NIC, egress
    ToWire,
    /// NIC, XDP
    XdpGuard,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let hooks = if arguments.hooks.is_empty() {
        Hook::value_variants()
    } else {
        &arguments.hooks
    };
    for hook in hooks {
        let hook = hook.to_possible_value().context("a hook has a name")?;
        fuzz(hook.get_name(), arguments)?;
    }
    Ok(())
}

fn fuzz(hook: &str, arguments: &Arguments) -> Result<()> {
    let target = workspace::target_dir().join("fuzz");
    build(hook, &target)?;
    let program = target.join(workspace::triple()).join("release").join(hook);
    let kept = make(workspace::root().join("fuzz/corpus").join(hook))?;
    let found = make(target.join("corpus").join(hook))?;
    let crash = format!("-artifact_prefix={}/{hook}-", target.display());
    let limit = format!("-max_total_time={}", arguments.seconds);
    let mut fuzzing = Command::new(&program);
    fuzzing.args([&crash, &limit, "-max_len=400", "-print_final_stats=1"]);
    command::run(fuzzing.args([&found, &kept])).with_context(|| {
        format!(
            "{hook}: the case is in {}; give it to {} to see it again, and put it into {} when it is mended",
            target.display(),
            program.display(),
            kept.display()
        )
    })?;
    if arguments.keep {
        let least = target.join("least").join(hook);
        // Not there is the usual case.
        drop(fs::remove_dir_all(&least));
        let mut merging = Command::new(&program);
        // Edges, not how often each was taken: a set small enough to keep.
        merging.args(["-set_cover_merge=1", "-use_counters=0", "-max_len=400"]);
        command::run(merging.args([&make(least.clone())?, &kept, &found]))?;
        replace(&kept, &least)?;
    }
    Ok(())
}

fn build(hook: &str, target: &Path) -> Result<()> {
    let mut cargo = command::foreign_cargo();
    cargo
        .env("RUSTFLAGS", INSTRUMENTATION)
        .args(["build", "--release", "--manifest-path", "fuzz/Cargo.toml"])
        // With `--target`, the flags do not reach build scripts.
        .args(["--target", &workspace::triple(), "--bin", hook])
        .arg("--target-dir")
        .arg(target);
    command::run(&mut cargo).context("build the fuzz target; libFuzzer needs a C++ compiler (g++)")
}

fn make(directory: PathBuf) -> Result<PathBuf> {
    fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;
    Ok(directory)
}

/// Makes `kept` hold what `least` holds.
fn replace(kept: &Path, least: &Path) -> Result<()> {
    fs::remove_dir_all(kept).with_context(|| format!("empty {}", kept.display()))?;
    make(kept.to_owned())?;
    for case in fs::read_dir(least).with_context(|| format!("read {}", least.display()))? {
        let case = case?;
        fs::copy(case.path(), kept.join(case.file_name()))
            .with_context(|| format!("copy into {}", kept.display()))?;
    }
    Ok(())
}
