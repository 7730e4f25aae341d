//! Packet and tables in plain memory: the oracle of the agreement test, and the ground of host tests and tracing.

use core::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::vec::Vec;

use abi::{
    Binding, BindingKey, BindingState, Class, Config, Counter, DropReason, Flow, FlowKey, Fragment,
    FragmentKey, IfIndex, Ip4, Path, Pod, Secret, Slot, Veth,
};

use crate::checksum::replace;
use crate::{Bytes, ChecksumKind, Packet, Peer, Seconds, Tables};

/// A frame whose checksums are complete (`CHECKSUM_NONE`), as in `BPF_PROG_TEST_RUN`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The bytes, from the Ethernet header on.
    pub bytes: Vec<u8>,
    /// The skb's mark.
    pub mark: u32,
    /// The skb's priority.
    pub priority: u32,
    /// Payload bytes per segment; 0 for a single packet.
    pub gso_size: u32,
    /// The frame has a VLAN tag.
    pub vlan_tag: bool,
}

impl Frame {
    /// A single packet without a mark or a priority.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            bytes: bytes.into(),
            mark: 0,
            priority: 0,
            gso_size: 0,
            vlan_tag: false,
        }
    }
}

impl Bytes for Frame {
    fn read<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.bytes.get(at..)?.first_chunk().copied()
    }

    fn length(&self) -> u32 {
        u32::try_from(self.bytes.len()).unwrap_or(u32::MAX)
    }
}

impl Packet for Frame {
    fn write<const N: usize>(&mut self, at: usize, bytes: [u8; N]) -> Option<()> {
        *self.bytes.get_mut(at..)?.first_chunk_mut()? = bytes;
        Some(())
    }

    fn replace_l4_checksum<const N: usize>(
        &mut self,
        at: usize,
        from: [u8; N],
        to: [u8; N],
        kind: ChecksumKind,
    ) -> Option<()> {
        let old: [u8; 2] = self.read(at)?;
        if kind.zero_is_none && old == [0; 2] {
            return Some(());
        }
        let new = match (widen(from), widen(to)) {
            (Ok(from), Ok(to)) => replace(old, from, to),
            (Err(from), Err(to)) => replace(old, from, to),
            _ => return None,
        };
        let mangled = kind.zero_is_none && new == [0; 2];
        self.write(at, if mangled { [0xff; 2] } else { new })
    }

    fn gso_size(&self) -> u32 {
        self.gso_size
    }

    fn has_vlan_tag(&self) -> bool {
        self.vlan_tag
    }

    fn mark(&self) -> u32 {
        self.mark
    }

    fn set_mark(&mut self, mark: u32) {
        self.mark = mark;
    }

    fn set_priority(&mut self, priority: u32) {
        self.priority = priority;
    }
}

/// Whether the prefix contains the address.
fn covers(net: Ip4, len: u8, addr: Ip4) -> bool {
    let mask = u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0);
    (net.to_bits() ^ addr.to_bits()) & mask == 0
}

/// A four-byte field, or a two-byte one.
fn widen<const N: usize>(field: [u8; N]) -> Result<[u8; 4], [u8; 2]> {
    match *field.as_slice() {
        [a, b, c, d] => Ok([a, b, c, d]),
        [a, b] => Err([a, b]),
        _ => Err([0; 2]),
    }
}

/// The maps as ordered trees.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// `config[0]`.
    pub config: Option<Config>,
    /// `secret[0]`.
    pub secret: Option<Secret>,
    /// `pods`.
    pub pods: BTreeMap<Ip4, Pod>,
    /// `veths`.
    pub veths: BTreeMap<IfIndex, Veth>,
    /// `dst4` as (address, prefix length, class).
    pub classes: Vec<(Ip4, u8, Class)>,
    /// `deny` as (address, prefix length).
    pub denied: Vec<(Ip4, u8)>,
    /// `flows`.
    pub flows: RefCell<BTreeMap<FlowKey, Flow>>,
    /// `snat`.
    pub bindings: RefCell<BTreeMap<BindingKey, Binding>>,
    /// `stats`, by index.
    pub stats: RefCell<BTreeMap<u32, Counter>>,
    /// `drops`, by index.
    pub drops: RefCell<BTreeMap<u32, Counter>>,
    /// `snat_open`, by slot.
    pub open: RefCell<BTreeMap<Slot, u32>>,
    /// `flows_lost[0]`.
    pub lost: Cell<u32>,
    /// `fragments`.
    pub fragments: RefCell<BTreeMap<FragmentKey, Fragment>>,
    /// Bindings that would use a port of a socket of the node.
    pub node_ports: BTreeSet<BindingKey>,
    /// A binding that another CPU adds just before this one does, or takes over just after it.
    pub rival: Cell<Option<Binding>>,
    /// Capacity of `flows`.
    pub flow_limit: usize,
    /// Capacity of `snat`.
    pub binding_limit: usize,
}

impl Memory {
    /// Empty tables with room for everything.
    pub fn new() -> Self {
        Self {
            flow_limit: usize::MAX,
            binding_limit: usize::MAX,
            ..Self::default()
        }
    }

    /// The prefix that decides about an address, and its class.
    pub fn longest_prefix(&self, addr: Ip4) -> Option<(Ip4, u8, Class)> {
        let matching = self
            .classes
            .iter()
            .filter(|(net, len, _)| covers(*net, *len, addr));
        matching.max_by_key(|(_, len, _)| *len).copied()
    }
}

impl Tables for Memory {
    type FlowEntry = FlowKey;

    fn config(&self) -> Option<&Config> {
        self.config.as_ref()
    }

    fn secret(&self) -> Option<Secret> {
        self.secret
    }

    fn veth(&self, ifindex: IfIndex) -> Option<Veth> {
        self.veths.get(&ifindex).copied()
    }

    fn pod(&self, addr: Ip4) -> Option<Pod> {
        self.pods.get(&addr).copied()
    }

    fn peer(&self, addr: Ip4) -> Peer {
        if let Some(pod) = self.pod(addr) {
            return Peer::Pod(pod);
        }
        let longest = self.longest_prefix(addr);
        Peer::Other(longest.map_or(Class::Stack, |(_, _, class)| class))
    }

    fn denied(&self, addr: Ip4) -> bool {
        self.denied
            .iter()
            .any(|(net, len)| covers(*net, *len, addr))
    }

    fn flow(&self, key: &FlowKey) -> Option<(Flow, FlowKey)> {
        Some((*self.flows.borrow().get(key)?, *key))
    }

    /// Nothing is kept: the programs, which keep something, must come to the same results.
    fn recent_flow(&self, _key: &FlowKey) -> Option<Flow> {
        None
    }

    fn keep_recent_flow(&self, _key: &FlowKey, _flow: Flow) {}

    fn add_flow(&self, key: &FlowKey, flow: Flow) -> bool {
        let mut flows = self.flows.borrow_mut();
        let fits = flows.contains_key(key) || flows.len() < self.flow_limit;
        if fits {
            flows.insert(*key, flow);
        }
        fits
    }

    fn see_flow(&self, entry: FlowKey, flow: Flow) {
        if let Some(known) = self.flows.borrow_mut().get_mut(&entry) {
            *known = flow;
        }
    }

    fn lost_flows(&self) -> u32 {
        self.lost.get()
    }

    fn lose_flow(&self) {
        self.lost.set(self.lost.get().wrapping_add(1));
    }

    fn binding(&self, key: &BindingKey) -> Option<Binding> {
        self.bindings.borrow().get(key).copied()
    }

    fn add_binding(&self, key: &BindingKey, binding: Binding) -> bool {
        let mut bindings = self.bindings.borrow_mut();
        if let Some(rival) = self.rival.take() {
            bindings.insert(*key, rival);
        }
        let fits = !bindings.contains_key(key) && bindings.len() < self.binding_limit;
        if fits {
            bindings.insert(*key, binding);
        }
        fits
    }

    fn take_over_binding(&self, key: &BindingKey, binding: Binding) -> bool {
        let last = self.rival.take().unwrap_or(binding);
        self.bindings.borrow_mut().insert(*key, last);
        true
    }

    fn remove_binding(&self, key: &BindingKey) {
        self.bindings.borrow_mut().remove(key);
    }

    fn see_binding(&self, key: &BindingKey, state: BindingState, now: Seconds) {
        if let Some(binding) = self.bindings.borrow_mut().get_mut(key) {
            binding.see(state, now.0);
        }
    }

    fn node_uses(&self, _primary: Ip4, key: &BindingKey) -> bool {
        self.node_ports.contains(key)
    }

    fn open_bindings(&self, slot: Slot) -> u32 {
        self.open.borrow().get(&slot).copied().unwrap_or(0)
    }

    fn set_open_bindings(&self, slot: Slot, open: u32) {
        self.open.borrow_mut().insert(slot, open);
    }

    fn fragment(&self, key: &FragmentKey) -> Option<Fragment> {
        self.fragments.borrow().get(key).copied()
    }

    fn put_fragment(&self, key: &FragmentKey, fragment: Option<Fragment>) {
        let mut fragments = self.fragments.borrow_mut();
        match fragment {
            Some(fragment) => fragments.insert(*key, fragment),
            None => fragments.remove(key),
        };
    }

    fn count(&self, slot: Slot, path: Path, bytes: u32) {
        add(&mut self.stats.borrow_mut(), path.index(slot), bytes);
    }

    fn count_drop(&self, reason: DropReason, bytes: u32) {
        add(&mut self.drops.borrow_mut(), reason.index(), bytes);
    }
}

fn add(counters: &mut BTreeMap<u32, Counter>, index: u32, bytes: u32) {
    let counter = counters.entry(index).or_default();
    counter.packets += 1;
    counter.bytes += u64::from(bytes);
}
