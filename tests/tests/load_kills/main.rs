//! Calls that are killed at any moment, DELs that come too soon, and a loader that dies or hangs meanwhile: the first DEL
//! succeeds, and nothing is left.
//!
//! `LAB_SEED` repeats a run's moments, `LAB_KILLS` asks for another number of them on demand.
#![cfg(test)]

mod killed;
mod loader_away;

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::str::FromStr;
use std::time::Duration;

use fastrand::Rng;
use lab::libcni::{Attachment, Network, Verb, outcome};
use lab::{Finished, Lab, Node, Pod, Snapshot, percentiles};

const PLUGIN: &str = "azure-vnet";
/// Where a call leaves its traces, and the interfaces.
const TRACES: [&str; 5] = [
    "/run/azure-vnet/locks",
    "/run/azure-vnet/endpoints",
    "/run/azure-vnet/ipam/leases",
    "/run/azure-vnet/ipam/owners",
    "/sys/class/net",
];

fn asked_for<T: FromStr>(variable: &str) -> Option<T> {
    env::var(variable).ok()?.parse().ok()
}

/// The seed of this run's moments, and its printed form.
fn seeded() -> (Rng, String) {
    let seed = asked_for("LAB_SEED").unwrap_or_else(|| fastrand::u64(..));
    let told = format!("LAB_SEED={seed}");
    println!("{told}");
    (Rng::with_seed(seed), told)
}

fn up_to(rng: &mut Rng, most: Duration) -> Duration {
    most.mul_f64(rng.f64())
}

fn lab() -> Lab {
    let lab = Lab::new().nodes(1).secondaries(1000).record(false);
    let lab = lab.build().unwrap();
    lab.node(1).start_loader().unwrap();
    lab
}

/// What is on the node, as far as it can be seen in no time.
fn traces(node: &Node) -> BTreeSet<String> {
    let list = || {
        let mut all = BTreeSet::new();
        for directory in TRACES {
            for entry in fs::read_dir(directory)? {
                all.insert(entry?.path().display().to_string());
            }
        }
        Ok(all)
    };
    node.run(list).unwrap()
}

fn nothing_is_left(node: &Node, before: &Snapshot, when: &str) {
    let left = before.left(&node.snapshot().unwrap());
    assert_eq!(left, Vec::<String>::new(), "{when}");
}

/// Calls on one pod's namespace, each round for a container of its own.
struct Calls<'a> {
    node: &'a Node,
    network: Network,
    pod: &'a Pod,
}

impl<'a> Calls<'a> {
    fn new(node: &'a Node, pod: &'a Pod) -> Self {
        let network = node.network().unwrap();
        Self { node, network, pod }
    }

    fn container(&self, round: usize) -> Attachment {
        let mut attachment = self.pod.attachment().clone();
        attachment.container_id = format!("{}-{round}", attachment.container_id);
        attachment
    }

    fn call(&self, verb: Verb, attachment: &Attachment) -> Finished {
        self.network.first(self.node, verb, attachment).unwrap()
    }

    /// To its end, which must be a success; how long it took.
    fn succeed(&self, verb: Verb, attachment: &Attachment, when: &str) -> Duration {
        let done = self.call(verb, attachment);
        outcome(PLUGIN, &done).unwrap_or_else(|error| panic!("{} {when}: {error:#}", verb.name()));
        done.elapsed
    }

    /// Killed after `life`, unless it has ended by then: then the answer is yes.
    fn ends_within(&self, verb: Verb, attachment: &Attachment, life: Duration) -> bool {
        let ended = self.network.first_for(self.node, verb, attachment, life);
        let status = ended.unwrap();
        assert!(status.success() || status.code().is_none(), "{status}");
        status.success()
    }

    /// The usual time of ADD and DEL.
    fn usual(&self) -> [Duration; 2] {
        let mut times = [const { Vec::new() }; 2];
        for round in 0..21 {
            let attachment = self.container(usize::MAX - round);
            for (verb, times) in [Verb::Add, Verb::Del].into_iter().zip(&mut times) {
                times.push(self.succeed(verb, &attachment, "unharmed"));
            }
        }
        times.map(|times| percentiles(times, [50])[0])
    }
}
