//! `vnetctl trace`: what would happen to a packet, and why.
//!
//! The decision of the `datapath` crate is run on a copy of what the pinned maps hold, and the program in the kernel on another
//! copy; both must say the same. Nothing is sent and nothing changes.

mod confirm;
pub(crate) mod names;
mod outcome;
mod query;
mod recorder;
mod render;
mod rule;
mod sockets;
mod stack;

use abi::pins::program::XDP_GUARD;
use abi::{Config, IfIndex, Mac};
use anyhow::{Context as _, Result, ensure};
use datapath::model::Frame;
use datapath::{Seconds, Verdict, from_pod, from_wire, xdp_guard};
use hooks::{Hook, Look, Maps, Pins};
use nix::time::{ClockId, clock_gettime};
use rpc::{Endpoint, RunDirectory};
use serde::Serialize;

pub use confirm::Confirmation;
pub use outcome::Outcome;
pub use query::{Protocol, Query, Remote};
pub use recorder::{Count, Step};
pub use render::render;
pub use stack::{Route, Stack};

use self::confirm::{Decision, confirm};
use self::names::Names;
use self::outcome::{counts, outcome, source};
use self::query::{End, frame};
use self::recorder::Recorder;
use self::rule::with_rule;
use crate::{podname, reconcile};

/// What would happen.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "documents", derive(schemars::JsonSchema))]
pub struct Trace {
    /// The pod.
    pub pod: String,
    /// Its host veth.
    pub host_ifname: String,
    /// The packet.
    pub packet: Packet,
    /// What is looked at, in order.
    pub steps: Vec<Step>,
    /// What is decided.
    pub verdict: Outcome,
    /// The source that the destination sees. `None`: it sees nothing, or nobody knows the port.
    pub source: Option<String>,
    /// The counters that move.
    pub counts: Vec<Count>,
    /// What the kernel does with what is left to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stack: Option<Stack>,
    /// What the program in the kernel says.
    pub kernel: Confirmation,
    /// What makes the trace doubtful.
    pub warnings: Vec<String>,
}

/// A packet, as it is sent.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "documents", derive(schemars::JsonSchema))]
pub struct Packet {
    /// `tcp`, `udp` or `icmp`.
    pub protocol: &'static str,
    /// Address and port of the sender.
    pub from: String,
    /// Those of the receiver.
    pub to: String,
    /// The program that decides.
    pub program: &'static str,
}

/// Traces one packet.
pub fn trace(query: &Query) -> Result<Trace> {
    let (protocol, remote_port) = query.protocol()?;
    let pins = Pins::default();
    let maps = Maps::from_pins(&pins)?;
    let endpoints = reconcile::endpoints(&RunDirectory::default());
    let endpoint = podname::find(&endpoints, &query.pod)?;
    let names = Names::of(&endpoints);
    let config = maps.config.get(&0, 0).context("read map config")?.0;
    ensure!(
        config.nic.get() != 0,
        "the loader has not filled map config yet; wait for `vnetctl status` to work"
    );

    let way = Way::new(query, endpoint, &config, protocol, remote_port)?;
    let sent = Frame::new(frame(way.from, way.to, protocol, query.established)?);
    let recorder = Recorder::new(&maps, &names).context("read the pinned maps")?;
    let mut became = sent.clone();
    let now = clock()?;
    let guards = query.from_wire && hooks::has_guard(&pins, &Names::interface(config.nic));
    let refused = guards.then(|| xdp_guard(&became, &recorder)).flatten();
    let verdict = match refused {
        Some(reason) => Verdict::Drop(reason),
        None if query.from_wire => from_wire(&mut became, &recorder, || now),
        None => from_pod(&mut became, &recorder, way.ifindex, || now),
    };
    let recording = recorder.finish().context("read the pinned maps")?;
    let decision = Decision {
        program: refused.map_or(way.hook.program, |_| XDP_GUARD),
        ifindex: way.ifindex,
        sent: &sent,
        verdict,
        became: &became,
    };
    let kernel = confirm(&pins, &decision, &recording)?;
    let stack = left_to_kernel(&decision, &way, &config)?;
    Ok(Trace {
        pod: podname::name(endpoint),
        host_ifname: endpoint.host_ifname.clone(),
        packet: Packet {
            protocol: protocol.name(),
            from: way.from.text(),
            to: way.to.text(),
            program: decision.program,
        },
        source: source(&decision, &way, stack.as_ref()),
        verdict: outcome(verdict, &recording, &names),
        counts: counts(&recording, &names),
        warnings: warnings(&pins, &way, &kernel),
        steps: with_rule(recording.steps, way.to.addr),
        stack,
        kernel,
    })
}

/// Where the packet comes from, and who looks at it.
struct Way {
    hook: Hook,
    ifindex: IfIndex,
    from: End,
    to: End,
}

impl Way {
    fn new(
        query: &Query,
        endpoint: &Endpoint,
        config: &Config,
        protocol: Protocol,
        remote_port: u16,
    ) -> Result<Self> {
        let addr = query.remote.addr;
        ensure!(
            !addr.is_unspecified(),
            "0.0.0.0 is no destination; write one such as 10.0.0.10"
        );
        let pod = |mac| End {
            mac,
            addr: endpoint.address.addr(),
            port: query.pod_port,
        };
        let remote = |mac| End {
            mac,
            addr,
            port: if protocol == Protocol::Icmp {
                0
            } else {
                remote_port
            },
        };
        Ok(if query.from_wire {
            Self {
                hook: Hook::FROM_WIRE,
                ifindex: config.nic,
                // The fabric's; nobody looks at it.
                from: remote(Mac::new([0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc])),
                to: pod(config.nic_mac),
            }
        } else {
            Self {
                hook: Hook::FROM_POD,
                ifindex: IfIndex::new(endpoint.host_ifindex),
                from: pod(Mac::new(endpoint.mac.0)),
                to: remote(Mac::new(endpoint.host_mac.0)),
            }
        })
    }
}

impl End {
    fn text(&self) -> String {
        match self.port {
            0 => self.addr.to_string(),
            port => format!("{}:{port}", self.addr),
        }
    }
}

/// Seconds since boot, which the programs count in ticks.
fn clock() -> Result<Seconds> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).context("read the clock")?;
    Ok(Seconds(u32::try_from(now.tv_sec())?))
}

fn left_to_kernel(decision: &Decision<'_>, way: &Way, config: &Config) -> Result<Option<Stack>> {
    if decision.verdict != Verdict::Stack {
        return Ok(None);
    }
    let arriving = stack::Arriving {
        src: way.from.addr,
        dst: way.to.addr,
        ifindex: way.ifindex.get(),
        mark: decision.became.mark,
    };
    stack::ask(arriving, config.nic.get()).map(Some)
}

fn warnings(pins: &Pins, way: &Way, kernel: &Confirmation) -> Vec<String> {
    let mut warnings = Vec::new();
    let (name, program) = (Names::interface(way.ifindex), way.hook.program);
    let look = Look::open(pins, &[way.hook]);
    let runs = |look: &Look| look.runs(way.hook, way.ifindex.get());
    if !look.as_ref().is_ok_and(runs) {
        warnings.push(format!(
            "the pinned {program} is not attached to {name}: what really happens is the kernel's business alone; \
             azure-vnet-loader puts it back"
        ));
    }
    let ahead = look
        .and_then(|look| look.ahead(way.hook, way.ifindex.get()))
        .unwrap_or_default();
    if way.hook == Hook::FROM_WIRE && !ahead.is_empty() {
        warnings.push(format!(
            "programs of others judge the packet on {name} first, and may drop it or send it elsewhere: {ahead:?} (bpftool prog show id …)"
        ));
    }
    if !kernel.same_build {
        warnings.push(format!(
            "the node runs another build of {program} than this vnetctl has in it: use the vnetctl of that build"
        ));
    }
    if !kernel.agrees {
        warnings.push(format!(
            "THE KERNEL DISAGREES: the same {program}, run on a copy of the same tables, decides otherwise; this is a bug: report \
             this output ({})",
            kernel.differences.join("; ")
        ));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use abi::Mac;

    use super::*;

    #[test]
    fn a_disagreement_and_another_build_are_told_loudly() {
        let end = End {
            mac: Mac::new([0; 6]),
            addr: [10, 0, 0, 1].into(),
            port: 0,
        };
        let way = Way {
            hook: Hook::FROM_POD,
            ifindex: IfIndex::new(1),
            from: end,
            to: end,
        };
        let kernel = Confirmation {
            agrees: false,
            differences: vec!["verdict: 7 here, 2 in the kernel".into()],
            same_build: false,
        };
        let warnings = warnings(&Pins::default(), &way, &kernel).join("\n");
        assert!(warnings.contains("another build of from_pod"), "{warnings}");
        assert!(
            warnings.contains("THE KERNEL DISAGREES") && warnings.contains("2 in the kernel"),
            "{warnings}"
        );
    }
}
