//! What does a pod cost its runtime? ADD and DEL one by one, 32 and 250 at the same moment.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::libcni::{Network, Verb, outcome};
use lab::{Pod, at_once};
use serde_json::json;

use super::steps::Steps;
use super::traffic::turns;
use super::{Book, Go};
use crate::load::histogram;
use crate::names::{Measure, SideName, Unit};
use crate::report::LARGEST_PLUGIN;
use crate::scene::{Kind, Side};
use crate::series::{Sample, Series};

/// Those that have pods.
pub(super) const SIDES: [SideName; 3] = [SideName::Bridge, SideName::Ptp, SideName::Ours];

/// Pods of a round that come one by one.
const SERIAL: usize = 10;
const QUICK_SERIAL: usize = 2;
const PARALLEL: usize = 32;
/// As many as Azure allows on a node.
const CROWD: usize = 250;

pub(super) fn run(book: &mut Book) {
    let sides = book.scene("ADD and DEL", Kind::Pods, &SIDES, |_| Ok(()));
    sizes(book, &sides);
    let quick = book.plan.quick;
    let (rounds, serial) = (book.plan.rounds, if quick { QUICK_SERIAL } else { SERIAL });
    one_by_one(book, &sides, serial, rounds, WITH);
    if !quick {
        // What bridge and ptp cost without `ipMasq`; ours again beside them.
        one_by_one(book, &sides, serial, rounds, WITHOUT);
    }
    together(book, &sides, PARALLEL, book.plan.rounds_of_programs, WITH);
    if !quick {
        together(
            book,
            &sides,
            PARALLEL,
            book.plan.rounds_of_programs,
            WITHOUT,
        );
    }
    if quick {
        let error = anyhow::anyhow!("left out: a round takes a minute; run without --quick");
        book.fail(None, format!("add, {CROWD} at once"), &error);
    } else {
        let crowds = book.plan.rounds.min(7);
        together(book, &sides, CROWD, crowds, WITH);
        together(book, &sides, CROWD, crowds, WITHOUT);
    }
}

/// What the path says of the peers' masquerading, and how the network is made so.
type Masquerading = (&'static str, fn(&Side) -> Result<Network>);
const WITH: Masquerading = ("", masquerading);
const WITHOUT: Masquerading = (", peers without ipMasq", plain);

/// Both as the documents want them: the peers masquerade by their own plug-in.
pub(super) fn masquerading(side: &Side) -> Result<Network> {
    with_masquerade(side, true)
}

fn plain(side: &Side) -> Result<Network> {
    with_masquerade(side, false)
}

fn with_masquerade(side: &Side, masquerade: bool) -> Result<Network> {
    let network = side.network()?.clone();
    Ok(match side.name {
        SideName::Bridge | SideName::Ptp => network.with("ipMasq", json!(masquerade)),
        SideName::Host | SideName::Ours => network,
    })
}

fn labels(path: &str) -> Vec<Series> {
    [Measure::Add, Measure::Del]
        .map(|measure| Series::new(measure, path, Unit::Milliseconds))
        .to_vec()
}

/// `count` pods come and go one after the other: the median of their times.
fn one_by_one(
    book: &mut Book,
    sides: &[Side],
    count: usize,
    rounds: usize,
    (masquerading, network): Masquerading,
) {
    let path = &format!("serial{masquerading}");
    let steps = Steps::of(book, sides);
    let turns = turns(book, sides, &format!("add, {path}"), |side| {
        let steps = steps.as_ref().filter(|_| side.name == SideName::Ours);
        let mut pods = serially(side, network(side)?, count);
        Ok(Box::new(move || {
            let end = steps.map(Steps::end).transpose()?;
            let mut samples = pods()?;
            if let (Some(steps), Some(end)) = (steps, end) {
                samples.extend(steps.since(end)?);
            }
            Ok(samples)
        }) as Go<'_>)
    });
    let mut series = labels(path);
    series.extend(steps.iter().flat_map(|steps| steps.series(path)));
    book.alternate(series, rounds, turns);
}

/// `count` pods come and go one after the other: the median of their ADDs, and of their DELs.
pub(crate) fn serially(side: &Side, network: Network, count: usize) -> Go<'_> {
    Box::new(move || {
        rest(side)?;
        let (mut adds, mut dels) = (Vec::new(), Vec::new());
        for number in 0..count {
            let pod = side.node().new_netns(&format!("serial{number}"))?;
            adds.push(call(&pod, &network, Verb::Add)?);
            dels.push(call(&pod, &network, Verb::Del)?);
            pod.remove_netns()?;
        }
        [adds, dels]
            .into_iter()
            .map(|times| median(&times))
            .collect()
    })
}

/// `count` pods come at the same moment, and go at the same moment: how long until the last one is done, and how long the
/// middle one takes.
fn together(
    book: &mut Book,
    sides: &[Side],
    count: usize,
    rounds: usize,
    (masquerading, network): Masquerading,
) {
    let path = format!("{count} at once{masquerading}");
    let turns = turns(book, sides, &format!("add, {path}"), |side| {
        let network = network(side)?;
        let pods = (0..count).map(|number| side.node().new_netns(&format!("crowd{number}")));
        let pods: Vec<Pod> = pods.collect::<Result<_>>()?;
        Ok(Box::new(move || {
            rest(side)?;
            let (adds, dels) = (
                all(&pods, &network, Verb::Add)?,
                all(&pods, &network, Verb::Del)?,
            );
            Ok([adds, dels].concat())
        }) as Go<'_>)
    });
    let series = [Measure::Add, Measure::Del].map(|measure| {
        [path.clone(), format!("{path}, p50")]
            .map(|path| Series::new(measure, path, Unit::Milliseconds))
    });
    book.alternate(series.concat(), rounds, turns);
}

fn all(pods: &[Pod], network: &Network, verb: Verb) -> Result<[Sample; 2]> {
    let (done, took) = at_once(pods, |pod| call(pod, network, verb));
    let failed = done.iter().filter(|one| one.is_err()).count();
    let times: Result<Vec<Duration>> = done.into_iter().collect();
    let times = times.with_context(|| format!("{failed} of {} failed, one with", pods.len()))?;
    let middle = median(&times)?;
    let last = Sample {
        value: took.as_secs_f64() * 1e3,
        ..middle.clone()
    };
    Ok([last, middle])
}

/// Ends the rest of addresses that were given back: hundreds a second would use up any NIC.
pub(super) fn rest(side: &Side) -> Result<()> {
    if side.name == SideName::Ours {
        side.node().end_rest()?;
    }
    Ok(())
}

/// How long the first plug-in takes, from exec to exit.
pub(crate) fn call(pod: &Pod, network: &Network, verb: Verb) -> Result<Duration> {
    let done = pod.call(network, verb)?;
    let plugin = network.plugins().next().unwrap_or_default();
    outcome(plugin, &done).with_context(|| format!("{} of {plugin}", verb.name()))?;
    Ok(done.elapsed)
}

/// The middle one, milliseconds; all of them in the histogram.
pub(crate) fn median(times: &[Duration]) -> Result<Sample> {
    let mut latency = histogram()?;
    for time in times {
        latency.saturating_record(u64::try_from(time.as_nanos())?);
    }
    let middle = Duration::from_nanos(latency.value_at_quantile(0.5));
    Ok(Sample {
        latency: Some(latency),
        ..Sample::of(middle.as_secs_f64() * 1e3)
    })
}

/// The binaries as they are on our node. That there is none has been noted.
fn sizes(book: &mut Book, sides: &[Side]) {
    let Some(side) = sides.iter().find(|side| side.name == SideName::Ours) else {
        return;
    };
    for plugin in ["azure-vnet", "azure-vnet-ipam"] {
        let path = format!("{}/{plugin}", lab::libcni::CNI_PATH);
        match side.node().run(|| static_size(&path)) {
            Ok(bytes) => {
                let what = format!("binary {plugin}, static");
                book.note_size(what, bytes, Some(LARGEST_PLUGIN));
            }
            Err(error) => book.fail(Some(SideName::Ours), path, &error),
        }
    }
}

/// Bytes of a program that needs no library; another one would not be what the bar is about.
fn static_size(path: &str) -> Result<u64> {
    let output = std::process::Command::new("readelf")
        .args(["--program-headers", "--wide", path])
        .output()
        .context("start readelf")?;
    let headers = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "readelf {path}: {headers}");
    ensure!(
        !headers.contains("INTERP"),
        "{path} is not static: it names an interpreter"
    );
    Ok(std::fs::metadata(path)?.len())
}
