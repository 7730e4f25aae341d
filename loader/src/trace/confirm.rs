//! Does the kernel decide the same? The program is loaded once more, over maps of its own that hold a copy of what the
//! decision has read, and run on the frame. Nothing is pinned or attached, and the frame goes nowhere.
//!
//! The program that runs cannot be asked: a test run executes all of it but the redirection, so it would count the packet, take
//! a port, remember the flow and tell those who listen; and a program's maps cannot be exchanged once it is verified. Of the 0.28 s
//! of CPU time that a trace of `from_pod` takes, the kernel spends 0.25 s on verifying the copy.

use std::collections::BTreeSet;

use abi::pins::map;
use abi::pins::program::XDP_GUARD;
use abi::{DropReason, IfIndex, Path};
use anyhow::{Context as _, Result};
use aya::programs::{ProgramInfo, SchedClassifier, TestRun as _, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader};
use datapath::Verdict;
use datapath::model::Frame;
use hooks::model::{Ran, action, test_run};
use hooks::{Maps, Pins, total};
use serde::Serialize;

use super::recorder::{Recording, counted};
use crate::object::OBJECT;

/// Room in the copied maps; a decision reads less than a hundred entries.
const ENTRIES: u32 = 256;

/// What the kernel said.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "documents", derive(schemars::JsonSchema))]
pub struct Confirmation {
    /// Whether it decides the same in every respect.
    pub agrees: bool,
    /// In what it differs.
    pub differences: Vec<String>,
    /// Whether the program that the node runs is the one that was asked.
    pub same_build: bool,
}

/// The decision that is to be confirmed.
pub(super) struct Decision<'a> {
    /// The program that decides.
    pub(super) program: &'static str,
    pub(super) ifindex: IfIndex,
    pub(super) sent: &'a Frame,
    pub(super) verdict: Verdict,
    pub(super) became: &'a Frame,
}

/// Asks the kernel.
pub(super) fn confirm(
    pins: &Pins,
    decision: &Decision<'_>,
    recording: &Recording,
) -> Result<Confirmation> {
    let mut object = EbpfLoader::new()
        .map_max_entries(map::FLOWS, ENTRIES)
        .map_max_entries(map::SNAT, ENTRIES)
        .load(OBJECT)
        .context("load the BPF object with maps of its own")?;
    let name = decision.program;
    let tag = load(&mut object, name).with_context(|| format!("load {name}"))?;
    let pinned = ProgramInfo::from_pin(pins.program(name));
    let mut maps = Maps::from_object(&mut object)?;
    maps.fill(&recording.before).context("copy the maps")?;
    let ran = run(&object, decision).with_context(|| format!("run {name} on the packet"))?;
    let differences = differences(decision, recording, &ran, &maps)?;
    Ok(Confirmation {
        agrees: differences.is_empty(),
        differences,
        same_build: pinned.is_ok_and(|pinned| pinned.tag() == tag),
    })
}

/// Loads a program, and returns what tells its build from others.
fn load(object: &mut Ebpf, name: &str) -> Result<u64> {
    let program = object.program_mut(name).context("there is none")?;
    if name == XDP_GUARD {
        let guard: &mut Xdp = program.try_into()?;
        guard.load()?;
        return Ok(guard.info()?.tag());
    }
    let program: &mut SchedClassifier = program.try_into()?;
    program.load()?;
    Ok(program.info()?.tag())
}

fn run(object: &Ebpf, decision: &Decision<'_>) -> Result<Ran> {
    let program = object.program(decision.program).context("there is none")?;
    if decision.program != XDP_GUARD {
        let program: &SchedClassifier = program.try_into()?;
        return Ok(test_run(program, decision.sent, decision.ifindex, 1)?);
    }
    let guard: &Xdp = program.try_into()?;
    let mut frame = decision.sent.clone();
    let ran = guard.test_run(TestRunOptions {
        data_in: Some(&decision.sent.bytes),
        data_out: Some(&mut frame.bytes),
        ..TestRunOptions::new()
    })?;
    // XDP_DROP, in the words of the other programs.
    let verdict = match ran.return_value {
        1 => action(Verdict::Drop(DropReason::DenyList)),
        _ => action(Verdict::Stack),
    };
    Ok(Ran {
        code: verdict,
        frame,
        time: ran.duration,
    })
}

fn differences(
    decision: &Decision<'_>,
    recording: &Recording,
    ran: &Ran,
    maps: &Maps,
) -> Result<Vec<String>> {
    let mut differences = Vec::new();
    let mut compare =
        |what: String, ours: &dyn std::fmt::Debug, same: bool, theirs: &dyn std::fmt::Debug| {
            if !same {
                differences.push(format!("{what}: {ours:x?} here, {theirs:x?} in the kernel"));
            }
        };
    let code = action(decision.verdict);
    compare("verdict".into(), &code, code == ran.code, &ran.code);
    let (ours, theirs) = (decision.became, &ran.frame);
    compare(
        "mark".into(),
        &ours.mark,
        ours.mark == theirs.mark,
        &theirs.mark,
    );
    compare(
        "bytes".into(),
        &ours.bytes,
        ours.bytes == theirs.bytes,
        &theirs.bytes,
    );
    let after = &recording.after;
    for reason in DropReason::ALL {
        let ours = counted(&after.drops.borrow(), reason.index());
        let theirs = total(&maps.drops, reason.index())?;
        compare(
            format!("drops {}", reason.name()),
            &ours,
            ours == theirs,
            &theirs,
        );
    }
    for pod in after.pods.values() {
        for path in Path::ALL {
            let ours = counted(&after.stats.borrow(), path.index(pod.slot));
            let theirs = total(&maps.stats, path.index(pod.slot))?;
            compare(
                format!("count {}", path.name()),
                &ours,
                ours == theirs,
                &theirs,
            );
        }
    }
    // Not what they hold: the clock may be a second further on.
    let ours: BTreeSet<_> = after.bindings.borrow().keys().copied().collect();
    let theirs: Result<BTreeSet<_>, _> = maps.snat.keys().map(|key| key.map(|key| key.0)).collect();
    let theirs = theirs?;
    compare("snat".into(), &ours, ours == theirs, &theirs);
    let ours: BTreeSet<_> = after.flows.borrow().keys().copied().collect();
    let theirs: Result<BTreeSet<_>, _> =
        maps.flows.keys().map(|key| key.map(|key| key.0)).collect();
    let theirs = theirs?;
    compare("flows".into(), &ours, ours == theirs, &theirs);
    Ok(differences)
}
