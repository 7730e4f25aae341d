//! What every verdict costs in the kernel, by `BPF_PROG_TEST_RUN`, against `bench/budget.json`: half a million runs of each.
//!
//! A frame that was rewritten once would be judged differently the next time (its TTL falls, its source changes), so
//! every run gets a fresh frame. A run is timed by the kernel from clock to clock; what the clock itself costs is in
//! the figures: the program that does nothing shows it. All verdicts take turns, round after round; the middle of each round is
//! taken, and the quietest round counts, because what else the machine does is not the program's cost. Figures are in multiples
//! of the program that does nothing, so that they hold for machines of any speed; what a verdict costs itself is what it needs
//! beyond that program, and it is this that may not grow. Where programs and maps lie in memory differs from load to load and may be
//! worth a tenth: what seems to have grown is loaded and measured again, and only what has grown each time has. What loading anew
//! does not change is the state that a machine's memory is in: after an hour of tests, every load of the same object showed look-ups
//! 10 to 23 ns dearer, whatever else the verdict did. That much is allowed beside the tenth.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::costs::{Case, cases};
use crate::empty::Empty;
use crate::kernel::Kernel;
use crate::world::{World, enter_new_namespace};

/// Rounds, and runs of each verdict in a round: short ones, some of which nothing disturbs.
const ROUNDS: u32 = 50;
const REPEATS: usize = 10_000;
/// Loads of the programs before something has grown.
const LOADS: u32 = 4;
/// What may become of a cost before somebody has to look: a tenth more, …
const GROWTH: f64 = 1.1;
/// … and what the state of the machine's memory makes of it, in multiples of the program that does nothing (17 of 70 ns).
const STATE: f64 = 0.25;
/// Where figures go instead of being judged: those of several loads, to be the budget, …
const WRITTEN: &str = "AZURE_VNET_BUDGET_WRITTEN";
/// … or this one's.
const FOUND: &str = "AZURE_VNET_BUDGET_FOUND";
/// Fewer rounds.
const QUICK: &str = "AZURE_VNET_BUDGET_ROUNDS";

/// By program and verdict, multiples of the program that does nothing.
type Ratios = BTreeMap<&'static str, BTreeMap<&'static str, f64>>;

pub(crate) fn check() {
    enter_new_namespace();
    let mut kernel = Kernel::load();
    let (nothing, ratios) = measure(&mut kernel, |_, _| true);
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let release: Vec<&str> = release.splitn(3, '.').take(2).collect();
    let running = release.join(".");
    let instructions: BTreeMap<_, _> = kernel.verified_instructions().into_iter().collect();
    drop(kernel);
    let write = |path: OsString, ratios: &Ratios| {
        let found = json!({
            "kernel": running, "nothing_ns": nothing, "instructions": instructions, "ratios": ratios
        });
        let text = serde_json::to_string_pretty(&found).unwrap() + "\n";
        std::fs::write(path, text).unwrap();
        found
    };
    let budget = if let Some(path) = std::env::var_os(WRITTEN) {
        let most = (1..LOADS).fold(ratios.clone(), |most, _| {
            the_greater(most, &measure(&mut Kernel::load(), |_, _| true).1)
        });
        write(path, &most)
    } else if let Some(path) = std::env::var_os(FOUND) {
        write(path, &ratios)
    } else {
        budget()
    };
    let mut over = too_many_instructions(&budget, &instructions, &running);
    let mut slow = too_slow(&budget, nothing, &ratios);
    for _ in 1..LOADS {
        if slow.is_empty() {
            break;
        }
        println!("once more, loaded anew: {slow:?}");
        let is_slow = |program, what| slow.contains(&(program, what));
        let (nothing, ratios) = measure(&mut Kernel::load(), is_slow);
        slow = too_slow(&budget, nothing, &ratios);
    }
    over.extend(slow.iter().map(|(name, what)| format!("{name}, {what}")));
    assert!(
        over.is_empty(),
        "more than a tenth and 17 ns above bench/budget.json: {over:?}; what is meant to cost more is written there by \
         `cargo xtask check budget --write`"
    );
}

/// What programs and verdicts cost when somebody looked last.
fn budget() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../bench/budget.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// The cases that nobody has looked at yet.
pub(crate) fn unbounded(cases: &[Case]) -> Vec<String> {
    let budget = budget();
    let known = |case: &&Case| budget["ratios"][case.program][case.what].is_f64();
    let unknown = cases.iter().filter(|case| !known(case));
    unknown
        .map(|case| format!("{}, {}", case.program, case.what))
        .collect()
}

/// Another kernel's verifier takes other ways through a program, so that only the one of the budget can be compared with.
fn too_many_instructions(
    budget: &Value,
    instructions: &BTreeMap<&str, u32>,
    running: &str,
) -> Vec<String> {
    let of = budget["kernel"].as_str().unwrap();
    let mut over = Vec::new();
    println!("{:<10} {:>12} {:>8}", "PROGRAM", "VERIFIED", "BUDGET");
    for (name, count) in instructions {
        let found = budget["instructions"][*name].as_u64();
        let found = found.unwrap_or_else(|| panic!("bench/budget.json does not know {name}"));
        println!("{name:<10} {count:>12} {found:>8}");
        if of == running && u64::from(*count) * 10 > found * 11 {
            over.push(format!("{name}, instructions"));
        }
    }
    if of != running {
        println!("instructions are not compared on this kernel: {running}, the budget is of {of}");
    }
    over
}

fn the_greater(mut most: Ratios, others: &Ratios) -> Ratios {
    for (program, of_program) in others {
        for (what, ratio) in of_program {
            let most = most.entry(program).or_default().entry(what).or_default();
            *most = most.max(*ratio);
        }
    }
    most
}

/// Programs and verdicts.
type Names = Vec<(&'static str, &'static str)>;

fn too_slow(budget: &Value, nothing: f64, ratios: &Ratios) -> Names {
    println!(
        "{:<10} {:<24} {:>8} {:>8} {:>8}",
        "PROGRAM", "VERDICT", "OWN ns", "RATIO", "BUDGET"
    );
    println!("{:<10} {:<24} {nothing:>8.0} {:>8.2}", "-", "nothing", 1.0);
    let mut over = Vec::new();
    for (name, what, ratio) in ratios
        .iter()
        .flat_map(|(name, all)| all.iter().map(move |(what, ratio)| (*name, *what, *ratio)))
    {
        let found = budget["ratios"][name][what].as_f64();
        let found =
            found.unwrap_or_else(|| panic!("bench/budget.json does not know {name}, {what}"));
        let own = (ratio - 1.0) * nothing;
        println!("{name:<10} {what:<24} {own:>8.0} {ratio:>8.2} {found:>8.2}");
        if has_grown(ratio, found) {
            over.push((name, what));
        }
    }
    over
}

/// Whether what a verdict costs itself has grown: the clock, which is in both ratios, would hide a third of it.
fn has_grown(ratio: f64, found: f64) -> bool {
    ratio - 1.0 > GROWTH * (found - 1.0) + STATE
}

/// What the program that does nothing takes, nanoseconds, and those verdicts of the others that are wanted, as multiples of it.
fn measure(
    kernel: &mut Kernel,
    wanted: impl Fn(&'static str, &'static str) -> bool,
) -> (f64, Ratios) {
    let mut world = World::roomy();
    let mut cases = cases(kernel, &mut world);
    cases.retain(|case| wanted(case.program, case.what));
    let empty = Empty::load();
    let rounds = std::env::var(QUICK).map_or(ROUNDS, |rounds| rounds.parse().unwrap());
    let mut nothing = f64::INFINITY;
    let mut best = vec![f64::INFINITY; cases.len()];
    for _ in 0..rounds {
        nothing = nothing.min(middle(|| empty.run(&cases[0].frame.bytes)));
        for (case, best) in cases.iter().zip(&mut best) {
            *best = best.min(middle(|| case.run(kernel)));
        }
    }
    let digits = |value: f64| (value * 100.0).round() / 100.0;
    let mut ratios = Ratios::new();
    for (case, best) in cases.iter().zip(best) {
        let of_program = ratios.entry(case.program).or_default();
        of_program.insert(case.what, digits(best / nothing));
    }
    (digits(nothing), ratios)
}

/// The mean of the middle half, nanoseconds: the clock may go in steps of ten, which a median keeps.
fn middle(mut run: impl FnMut() -> Duration) -> f64 {
    let mut times: Vec<Duration> = (0..REPEATS).map(|_| run()).collect();
    times.sort_unstable();
    let half = &times[REPEATS / 4..REPEATS * 3 / 4];
    let sum: Duration = half.iter().sum();
    sum.as_secs_f64() * 1e9 / f64::from(u32::try_from(half.len()).unwrap())
}

#[test]
fn a_tenth_and_a_quarter_of_an_empty_program_more_is_seen() {
    assert!(has_grown(2.36, 2.0));
    assert!(!has_grown(2.34, 2.0));
    assert!(has_grown(11.3, 10.0));
    assert!(!has_grown(11.1, 10.0));
}
