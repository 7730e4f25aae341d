//! What comes of a decision, in words.

use std::net::Ipv4Addr;

use abi::Ip4;
use datapath::{Bytes as _, Verdict};
use serde::Serialize;

use super::confirm::Decision;
use super::names::Names;
use super::query::End;
use super::recorder::{Count, Recording};
use super::{Route, Stack, Way};

/// A verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "documents", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case", tag = "is")]
pub enum Outcome {
    /// Straight into a pod of this node.
    Pod {
        /// Which.
        pod: String,
    },
    /// Straight out of the NIC.
    Wire {
        /// The NIC.
        interface: String,
        /// The next hop; `None` where the kernel looks for it.
        next_hop: Option<Ipv4Addr>,
    },
    /// Left to the kernel.
    Stack,
    /// Back to its sender.
    Reply,
    /// Dropped.
    Drop {
        /// The counter.
        reason: &'static str,
        /// What it means.
        help: &'static str,
    },
}

pub(super) fn outcome(verdict: Verdict, recording: &Recording, names: &Names) -> Outcome {
    let wire = |ifindex, next_hop: Option<Ip4>| Outcome::Wire {
        interface: Names::interface(ifindex),
        next_hop: next_hop.map(Into::into),
    };
    match verdict {
        Verdict::Peer(ifindex) => {
            let mut pods = recording.after.pods.iter();
            let pod = pods.find(|(_, pod)| pod.ifindex == ifindex);
            Outcome::Pod {
                pod: pod.map_or_else(|| Names::interface(ifindex), |(addr, _)| names.pod(*addr)),
            }
        }
        Verdict::Wire(ifindex) => wire(ifindex, None),
        Verdict::Via(ifindex, hop) => wire(ifindex, Some(hop)),
        Verdict::Stack => Outcome::Stack,
        Verdict::Reply(_) => Outcome::Reply,
        Verdict::Drop(reason) => Outcome::Drop {
            reason: reason.name(),
            help: reason.help(),
        },
    }
}

/// Source and port at the end of the way. The kernel's port, when it masquerades, nobody knows before.
pub(super) fn source(decision: &Decision<'_>, way: &Way, stack: Option<&Stack>) -> Option<String> {
    match (decision.verdict, stack) {
        (Verdict::Drop(_) | Verdict::Reply(_), _) => None,
        (Verdict::Stack, Some(stack)) => match (&stack.route, stack.masquerade) {
            (Route::Nowhere { .. }, _) | (_, Some(true) | None) => None,
            (Route::Node | Route::Interface { .. }, Some(false)) => Some(way.from.text()),
        },
        _ => {
            let addr: [u8; 4] = decision.became.read(26)?;
            let at = if way.to.port == 0 || way.from.port == 0 {
                38
            } else {
                34
            };
            let port = u16::from_be_bytes(decision.became.read(at)?);
            let port = if way.from.port == 0 { 0 } else { port };
            Some(
                End {
                    addr: addr.into(),
                    port,
                    ..way.from
                }
                .text(),
            )
        }
    }
}

pub(super) fn counts(recording: &Recording, names: &Names) -> Vec<Count> {
    let name = |slot| {
        let mut pods = recording.after.pods.iter();
        let pod = pods.find(|(_, pod)| pod.slot == slot);
        pod.map(|(addr, _)| names.name(*addr))
    };
    let counts = recording.counts.iter();
    counts
        .map(|(slot, path)| Count {
            pod: name(*slot),
            path: path.name(),
        })
        .collect()
}
