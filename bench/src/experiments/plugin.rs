//! What starting the plug-ins costs.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use lab::Node;
use lab::libcni::Verb;
use rpc::{Request, RunDirectory};
use serde_json::json;

use super::{Trial, Turn, ours, variant};
use crate::names::Unit;
use crate::run::{Go, call, median, serially};
use crate::scene::{Kind, Side};
use crate::series::Sample;

/// Calls of a turn, of which the middle one counts.
const CALLS: usize = 20;
/// How long the loader may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Of the C library that does nothing: what starting a program costs by itself.
const NOTHING: &str = "/bin/true";

/// The product's plug-ins beside another build of the same code (`dynamic`: the C library is loaded at run time; `never-free`: an
/// allocator that only counts), and a program that does nothing.
pub(super) fn otherwise(trial: &mut Trial, name: &str, other: &'static str) -> Result<()> {
    let build = |binaries: Option<&std::path::Path>| ours(Kind::Pods, binaries, &|_| Ok(()));
    let (plain, varied) = (build(None)?, build(Some(&variant(other)?))?);
    let version = |side: &'_ Side| -> Result<Go<'static>> {
        let (pod, network) = (side.node().new_netns("version")?, side.network()?.clone());
        Ok(Box::new(move || {
            middle(|| call(&pod, &network, Verb::Version))
        }))
    };
    let node = plain.node();
    let nothing: Go<'_> = Box::new(|| middle(|| started(node)));
    let turns: Vec<Turn<'_>> = vec![
        ("as it is", version(&plain)?),
        (other, version(&varied)?),
        (NOTHING, nothing),
    ];
    let figures = [("VERSION, exec to exit".to_owned(), Unit::Milliseconds)];
    trial.alternate(name, &figures, turns)?;

    let pods =
        |side| -> Result<Go<'_>> { Ok(serially(side, Side::network(side)?.clone(), CALLS / 2)) };
    let turns = vec![("as it is", pods(&plain)?), (other, pods(&varied)?)];
    let figures = ["ADD", "DEL"].map(|verb| (verb.to_owned(), Unit::Milliseconds));
    trial.alternate(name, &figures, turns)
}

/// ADD with all that is in it, beside the parts of its IPAM: the plug-in's own ADD, the start of its program alone, which is what
/// an allocation inside the loader would save, and a question to the loader, which is what it would cost instead.
pub(super) fn ipam(trial: &mut Trial, name: &str) -> Result<()> {
    let side = ours(Kind::Pods, None, &|_| Ok(()))?;
    let node = side.node();
    let mut whole = serially(&side, side.network()?.clone(), CALLS / 2);
    let add: Go<'_> = Box::new(move || Ok(whole()?.into_iter().take(1).collect()));
    let ipam = side
        .network()?
        .clone()
        .with("type", json!("azure-vnet-ipam"));
    let mut alone = serially(&side, ipam.clone(), CALLS / 2);
    let alone: Go<'_> = Box::new(move || Ok(alone()?.into_iter().take(1).collect()));
    let pod = node.new_netns("version")?;
    let version: Go<'_> = Box::new(|| middle(|| call(&pod, &ipam, Verb::Version)));
    let ask: Go<'_> = Box::new(|| node.run(|| middle(asked)));
    let turns: Vec<Turn<'_>> = vec![
        ("ADD", add),
        ("ADD of azure-vnet-ipam", alone),
        ("VERSION of azure-vnet-ipam", version),
        ("a question to the loader", ask),
    ];
    trial.alternate(name, &[("one call".to_owned(), Unit::Milliseconds)], turns)
}

fn middle(mut once: impl FnMut() -> Result<Duration>) -> Result<Vec<Sample>> {
    let times: Vec<Duration> = (0..CALLS).map(|_| once()).collect::<Result<_>>()?;
    Ok(vec![median(&times)?])
}

fn started(node: &Node) -> Result<Duration> {
    let done = node.feed(&[NOTHING], b"")?;
    let took = done.elapsed;
    done.success().context(NOTHING).map(|_| took)
}

fn asked() -> Result<Duration> {
    let start = Instant::now();
    rpc::call(&RunDirectory::default().socket(), &Request::Node, PATIENCE)?;
    Ok(start.elapsed())
}
