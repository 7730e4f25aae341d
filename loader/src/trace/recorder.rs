//! Tables for one decision: what the pinned maps hold, read when it is asked for and never written, and every look-up
//! in words.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use abi::{
    Binding, BindingKey, BindingState, Config, ConfigFlags, Counter, DropReason, Flow, FlowFlags,
    FlowKey, Fragment, FragmentKey, IfIndex, Ip4, Path, Pod, Port, Secret, Slot, Veth,
};
use aya::maps::MapError;
use datapath::model::Memory;
use datapath::{Peer, Seconds, Tables};
use hooks::{Abi, Maps};
use serde::Serialize;

use super::names::{Names, protocol};
use super::sockets;

/// One thing that was looked at or done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "documents", derive(schemars::JsonSchema))]
pub struct Step {
    /// Where: a table, or what it is about.
    pub what: &'static str,
    /// What was found.
    pub found: String,
}

/// A counter that moves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "documents", derive(schemars::JsonSchema))]
pub struct Count {
    /// The pod; `None` for one that is gone.
    pub pod: Option<String>,
    /// The path.
    pub path: &'static str,
}

/// The tables of a traced decision.
pub(super) struct Recorder<'a> {
    maps: &'a Maps,
    names: &'a Names,
    /// What the maps hold, as far as it was asked for.
    before: RefCell<Memory>,
    /// The same with what the decision writes.
    after: Memory,
    asked: RefCell<(BTreeSet<FlowKey>, BTreeSet<BindingKey>)>,
    steps: RefCell<Vec<Step>>,
    counts: RefCell<Vec<(Slot, Path)>>,
    failed: Cell<Option<MapError>>,
}

/// What a decision has left behind.
pub(super) struct Recording {
    pub(super) before: Memory,
    pub(super) after: Memory,
    pub(super) steps: Vec<Step>,
    pub(super) counts: Vec<(Slot, Path)>,
}

impl<'a> Recorder<'a> {
    pub(super) fn new(maps: &'a Maps, names: &'a Names) -> Result<Self, MapError> {
        let before = maps.small_tables()?;
        Ok(Self {
            maps,
            names,
            after: before.clone(),
            before: RefCell::new(before),
            asked: RefCell::default(),
            steps: RefCell::default(),
            counts: RefCell::default(),
            failed: Cell::default(),
        })
    }

    /// An error when a map could not be read.
    pub(super) fn finish(self) -> Result<Recording, MapError> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        Ok(Recording {
            before: self.before.into_inner(),
            after: self.after,
            steps: self.steps.into_inner(),
            counts: self.counts.into_inner(),
        })
    }

    /// A look-up that is repeated with the same result is told once.
    fn note(&self, what: &'static str, found: String) {
        let step = Step { what, found };
        let mut steps = self.steps.borrow_mut();
        if !steps.contains(&step) {
            steps.push(step);
        }
    }

    fn found<T>(&self, read: Result<T, MapError>) -> Option<T> {
        match read {
            Ok(value) => Some(value),
            Err(MapError::KeyNotFound) => None,
            Err(error) => {
                self.failed.set(Some(error));
                None
            }
        }
    }

    fn read_flow(&self, key: &FlowKey) {
        if self.asked.borrow_mut().0.insert(*key)
            && let Some(Abi(flow)) = self.found(self.maps.flows.get(&Abi(*key), 0))
        {
            self.before.borrow_mut().flows.get_mut().insert(*key, flow);
            self.after.flows.borrow_mut().insert(*key, flow);
        }
    }

    fn read_binding(&self, key: &BindingKey) {
        if self.asked.borrow_mut().1.insert(*key)
            && let Some(Abi(binding)) = self.found(self.maps.snat.get(&Abi(*key), 0))
        {
            let mut before = self.before.borrow_mut();
            before.bindings.get_mut().insert(*key, binding);
            self.after.bindings.borrow_mut().insert(*key, binding);
        }
    }
}

/// What is known of a flow, in words.
fn side(flow: Option<Flow>) -> &'static str {
    match flow {
        None => "not known",
        Some(flow) if flow.flags.contains(FlowFlags::VIA_STACK) => {
            "the kernel's own: both directions go through the stack"
        }
        Some(flow) if flow.flags.contains(FlowFlags::INBOUND) => {
            "opened from outside to the pod's own address, which the answers keep"
        }
        Some(_) => "known, and nobody's: it may go fast",
    }
}

/// What it means that a flow is not known: whoever opened it may have found no room to say so.
fn miss(config: &Config, lost: u32) -> &'static str {
    if config.flags.contains(ConfigFlags::STACK) {
        "not known, so it is the kernel's: `datapath: stack`"
    } else if config.flags.contains(ConfigFlags::FLOWS_FULL) {
        "not known, so it is the kernel's: the table is nearly full"
    } else if lost != config.flows_lost {
        "not known, so it is the kernel's: flows have found no room since the loader last looked"
    } else {
        "not known: it may go fast"
    }
}

fn flow_name(key: &FlowKey) -> String {
    let (low, high) = (end(key.low, key.low_port), end(key.high, key.high_port));
    format!("{} {low} - {high}", protocol(key.proto))
}

/// An address, and its port where there is one.
fn end(addr: Ip4, port: Port) -> String {
    if port == Port::NONE {
        addr.to_string()
    } else {
        format!("{addr}:{port}")
    }
}

impl Tables for Recorder<'_> {
    type FlowEntry = FlowKey;

    fn config(&self) -> Option<&Config> {
        let config = self.after.config();
        if config.is_none() {
            self.note("config", "the loader has not filled it yet".into());
        }
        config
    }

    fn secret(&self) -> Option<Secret> {
        self.after.secret()
    }

    fn veth(&self, ifindex: IfIndex) -> Option<Veth> {
        let veth = self.after.veth(ifindex);
        let found = match veth {
            Some(veth) => format!(
                "{} is {}; it may send from {} and {} only",
                Names::interface(ifindex),
                self.names.pod(veth.addr),
                veth.addr,
                veth.mac
            ),
            None => format!("{} is not registered", Names::interface(ifindex)),
        };
        self.note("veths", found);
        veth
    }

    fn peer(&self, addr: Ip4) -> Peer {
        let peer = self.after.peer(addr);
        let found = match (peer, self.after.longest_prefix(addr)) {
            (Peer::Pod(pod), _) => format!(
                "{addr} is {} of this node, behind {}",
                self.names.pod(addr),
                Names::interface(pod.ifindex)
            ),
            (Peer::Other(class), Some((net, length, _))) => {
                format!("{addr} is in {net}/{length}: class {}", class.name())
            }
            (Peer::Other(class), None) => format!("{addr} is in no prefix: class {}", class.name()),
        };
        self.note("classes", found);
        peer
    }

    fn pod(&self, addr: Ip4) -> Option<Pod> {
        self.after.pod(addr)
    }

    fn denied(&self, addr: Ip4) -> bool {
        let denied = self.after.denied(addr);
        let not = if denied { "" } else { "not " };
        self.note("deny", format!("{addr} is {not}in `denyCidrs`"));
        denied
    }

    fn flow(&self, key: &FlowKey) -> Option<(Flow, FlowKey)> {
        self.read_flow(key);
        let known = self.after.flow(key);
        let state = match (known, self.after.config()) {
            (None, Some(config)) => miss(config, self.after.lost_flows()),
            (known, _) => side(known.map(|(flow, _)| flow)),
        };
        self.note("flows", format!("{}: {state}", flow_name(key)));
        known
    }

    /// Nothing: what the CPUs have kept is not older than a second.
    fn recent_flow(&self, _key: &FlowKey) -> Option<Flow> {
        None
    }

    fn keep_recent_flow(&self, _key: &FlowKey, _flow: Flow) {}

    fn add_flow(&self, key: &FlowKey, flow: Flow) -> bool {
        self.note("flows", format!("remembers: {}", side(Some(flow))));
        self.after.add_flow(key, flow)
    }

    fn see_flow(&self, entry: FlowKey, flow: Flow) {
        self.after.see_flow(entry, flow);
    }

    fn lost_flows(&self) -> u32 {
        self.after.lost_flows()
    }

    fn lose_flow(&self) {
        self.after.lose_flow();
    }

    fn binding(&self, key: &BindingKey) -> Option<Binding> {
        self.read_binding(key);
        let binding = self.after.binding(key);
        let found = match binding {
            None => "free".to_owned(),
            Some(binding) => format!(
                "of {} port {}, {}",
                self.names.pod(binding.pod),
                binding.pod_port,
                binding.state().name()
            ),
        };
        let (port, remote) = (key.nat_port, end(key.remote, key.remote_port));
        self.note("snat", format!("port {port} towards {remote}: {found}"));
        binding
    }

    fn add_binding(&self, key: &BindingKey, binding: Binding) -> bool {
        let done = self.after.add_binding(key, binding);
        self.note("snat", format!("takes port {}", key.nat_port));
        done
    }

    fn take_over_binding(&self, key: &BindingKey, binding: Binding) -> bool {
        self.note("snat", format!("takes port {} over", key.nat_port));
        self.after.take_over_binding(key, binding)
    }

    fn remove_binding(&self, key: &BindingKey) {
        self.note("snat", format!("gives port {} up", key.nat_port));
        self.after.remove_binding(key);
    }

    fn see_binding(&self, key: &BindingKey, state: BindingState, now: Seconds) {
        self.after.see_binding(key, state, now);
    }

    fn node_uses(&self, primary: Ip4, key: &BindingKey) -> bool {
        let used = sockets::node_uses(Ipv4Addr::from(primary), key);
        if used {
            self.note(
                "sockets",
                format!("port {} is the node's own", key.nat_port),
            );
        }
        used
    }

    fn open_bindings(&self, slot: Slot) -> u32 {
        let open = self.after.open_bindings(slot);
        let quota = self.after.config.map_or(0, |config| config.nat_quota);
        self.note(
            "snat_open",
            format!("the pod holds {open} ports open, and may hold {quota}"),
        );
        open
    }

    fn set_open_bindings(&self, slot: Slot, open: u32) {
        self.after.set_open_bindings(slot, open);
    }

    /// Traced packets are whole.
    fn fragment(&self, _key: &FragmentKey) -> Option<Fragment> {
        None
    }

    fn put_fragment(&self, _key: &FragmentKey, _fragment: Option<Fragment>) {}

    fn count(&self, slot: Slot, path: Path, bytes: u32) {
        self.counts.borrow_mut().push((slot, path));
        self.after.count(slot, path, bytes);
    }

    fn count_drop(&self, reason: DropReason, bytes: u32) {
        self.after.count_drop(reason, bytes);
    }
}

/// A counter that has not moved.
pub(super) fn counted(counters: &std::collections::BTreeMap<u32, Counter>, index: u32) -> Counter {
    counters.get(&index).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use zerocopy::FromZeros as _;

    use super::*;

    #[test]
    fn a_miss_says_why_it_is_the_kernels() {
        let told = |flags, lost| {
            let config = Config {
                flags,
                flows_lost: 7,
                ..Config::new_zeroed()
            };
            miss(&config, lost)
        };
        assert!(told(ConfigFlags::NONE, 7).ends_with("it may go fast"));
        assert!(told(ConfigFlags::STACK, 7).contains("`datapath: stack`"));
        assert!(told(ConfigFlags::FLOWS_FULL, 7).contains("nearly full"));
        assert!(told(ConfigFlags::NONE, 8).contains("no room"));
    }
}
