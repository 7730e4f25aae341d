//! `cargo xtask bench`: ours, today's designs and the node itself, side by side.

use crate::{build, build_variants, check, command, setup, workspace};
use anyhow::{Context as _, Result, ensure};
use std::ffi::OsString;

#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Arguments {
    /// Handed to the benchmark: --quick, --only MEASURE…, --compare FILE, experiments, --help, …
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    // What measures nothing asks for nothing.
    let measures = !["compare", "node", "publish", "help", "--help", "-h"]
        .iter()
        .any(|word| arguments.rest.iter().any(|given| given == word));
    let costs = if measures {
        prepare(arguments)?
    } else {
        Vec::new()
    };
    if measures && arguments.rest.iter().any(|word| word == "experiments") {
        build_variants::run(&[])?;
    }
    let mut cargo = command::cargo();
    cargo
        .env("AZURE_VNET_BIN_DIR", workspace::product_dir())
        .env("AZURE_VNET_VARIANTS_DIR", workspace::variants_dir());
    cargo.args(["run", "--release", "--quiet", "--manifest-path"]);
    cargo.arg(workspace::root().join("Cargo.toml"));
    cargo.args(["--package", "bench", "--"]).args(costs);
    // Files are named as the caller sees them.
    cargo.current_dir(std::env::current_dir().context("find the current folder")?);
    command::run(cargo.args(&arguments.rest)).context("run the benchmark")
}

/// Rounds of the programs alone in a quick run.
const FEW: u32 = 5;

/// All that is measured or measures, and for the benchmark what the programs cost alone: the file, or why there is none.
fn prepare(arguments: &Arguments) -> Result<Vec<OsString>> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "the benchmark makes network namespaces and loads BPF programs: run it as root"
    );
    setup::ensure(setup::Needs::BUILD)?;
    let run_time = setup::Needs {
        run_time: true,
        ..setup::Needs::BUILD
    };
    let tools = setup::Needs {
        bench: true,
        ..setup::Needs::BUILD
    };
    for needs in [run_time, tools] {
        if let Err(error) = setup::ensure(needs) {
            // The report says which side or measure it was.
            println!("bench: goes on without a tool: {error:#}");
        }
    }
    build::run()?;
    let given = |word| arguments.rest.iter().any(|given| given == word);
    if given("--only") || given("experiments") {
        return Ok(Vec::new());
    }
    let costs = workspace::target_dir().join("costs.json");
    let found = check::budget(&check::Costs::Found(
        &costs,
        given("--quick").then_some(FEW),
    ));
    Ok(match found {
        Ok(()) => vec!["--costs".into(), costs.into()],
        Err(error) => {
            println!("bench: goes on without what the programs cost alone: {error:#}");
            vec!["--costs-failed".into(), format!("{error:#}").into()]
        }
    })
}
