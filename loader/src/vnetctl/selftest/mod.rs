//! `vnetctl selftest`: two throw-away pods, and every way that a packet can take on this node. No cluster needed.

mod network;
mod outside;
mod paths;
mod place;
mod probe;
mod published;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;

use super::doctor::Node;
use super::output::{Output, table};
use super::pinned::Pinned;
use crate::signals::ended;
use network::Network;
use place::TestPod;
use published::Published;

#[derive(Clone, Debug, clap::Args)]
pub(super) struct Arguments {
    /// Where the plug-ins are.
    #[arg(long, value_name = "DIRECTORY", default_value = crate::ipam::BIN)]
    bin_dir: PathBuf,
}

/// What came of all paths.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "documents", derive(schemars::JsonSchema))]
pub(crate) struct Tested {
    /// Paths that work.
    pub passed: usize,
    /// Paths that do not.
    pub failed: usize,
    /// How long all of it took.
    pub took_ms: u128,
    /// In the order in which they were tried.
    pub paths: Vec<Tried>,
}

/// What came of a path.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "documents", derive(schemars::JsonSchema))]
pub(crate) struct Tried {
    /// Which.
    pub path: &'static str,
    /// Whether it works.
    pub ok: bool,
    /// What was seen.
    pub saw: String,
}

pub(super) fn run(output: Output, arguments: &Arguments) -> Result<()> {
    let begun = Instant::now();
    let mut test = Selftest {
        ended: ended()?,
        tried: Vec::new(),
    };
    test.all(arguments);
    let failed = test.tried.iter().filter(|tried| !tried.ok).count();
    let tested = Tested {
        passed: test.tried.len() - failed,
        failed,
        took_ms: begun.elapsed().as_millis(),
        paths: std::mem::take(&mut test.tried),
    };
    output.print(&tested, render)?;
    ensure!(
        !test.is_ended(),
        "told to end before all paths were tried; both pods are taken away, unless it says otherwise above"
    );
    ensure!(
        failed == 0,
        "{failed} paths do not work; `vnetctl doctor` may say why"
    );
    Ok(())
}

struct Selftest {
    /// By SIGINT or SIGTERM: then nothing more is tried.
    ended: Arc<AtomicBool>,
    tried: Vec<Tried>,
}

impl Selftest {
    /// Both pods are taken away again whatever happens between.
    fn all(&mut self, arguments: &Arguments) {
        let node = Node::look();
        self.step("the loader is ready for pods", || ready(&node));
        let network = match Network::of(&node) {
            Ok(network) => network,
            Err(error) => return self.step("a conflist names azure-vnet", || Err(error)),
        };
        let bin = &arguments.bin_dir;
        let port = network.publishes().then(Published::find).transpose();
        let one = port.and_then(|port| TestPod::new("a", bin, &network, port));
        let other = TestPod::new("b", bin, &network, None);
        let (mut one, mut other) = match (one, other) {
            (Ok(one), Ok(other)) => (one, other),
            (one, other) => {
                let error = one.err().or(other.err());
                return self.step("two namespaces", || {
                    error.map_or_else(|| Ok(String::new()), Err)
                });
            }
        };
        self.step("ADD of pod a", || one.add());
        self.step("ADD of pod b", || other.add());
        if one.is_added() && other.is_added() {
            match Pinned::open() {
                Ok(pinned) => self.paths(&pinned, &one, &other),
                Err(error) => self.step("the maps are pinned", || Err(error)),
            }
        }
        self.always("DEL of pod a", || one.del());
        self.always("DEL of pod b", || other.del());
        self.always("nothing is left of them", || nothing_left(&[&one, &other]));
    }

    fn is_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    fn step(&mut self, path: &'static str, work: impl FnOnce() -> Result<String>) {
        if !self.is_ended() {
            self.always(path, work);
        }
    }

    fn always(&mut self, path: &'static str, work: impl FnOnce() -> Result<String>) {
        let (ok, saw) = match work() {
            Ok(saw) => (true, saw),
            Err(error) => (false, crate::report::one_line(&error)),
        };
        self.tried.push(Tried { path, ok, saw });
    }
}

fn ready(node: &Node) -> Result<String> {
    let status = node
        .status
        .as_ref()
        .map_err(|why| anyhow::anyhow!("{why}"))?;
    let pools = status
        .pools
        .as_ref()
        .map_err(|why| anyhow::anyhow!("no address pools: {why}"))?;
    Ok(format!(
        "{} addresses from {}",
        pools.addresses, pools.source
    ))
}

fn nothing_left(pods: &[&TestPod]) -> Result<String> {
    let endpoints = super::endpoints::read(&Pinned::open()?)?;
    let holdings = crate::ipam::show()?;
    for pod in pods {
        let Ok(address) = pod.address() else { continue };
        ensure!(
            !endpoints.iter().any(|one| one.address == address),
            "{address} is still in the maps or records"
        );
        ensure!(
            !holdings.iter().any(|one| one.address == address),
            "{address} is still given"
        );
        let routed = rpc::routed().context("read the routes")?;
        ensure!(
            !routed.contains(&address),
            "a route still leads to {address}"
        );
    }
    Ok("no map entry, record, route or lease".to_owned())
}

fn render(tested: &Tested) -> String {
    let rows: Vec<[String; 3]> = tested
        .paths
        .iter()
        .map(|tried| {
            let ok = if tried.ok { "ok" } else { "FAILED" };
            [ok.to_owned(), tried.path.to_owned(), tried.saw.clone()]
        })
        .collect();
    let Tested {
        passed,
        failed,
        took_ms,
        ..
    } = tested;
    table(["", "PATH", "SAW"], &rows)
        + &format!("{passed} passed, {failed} failed, in {took_ms} ms\n")
}
