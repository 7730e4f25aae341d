//! The look-ups that a decision may make, and the facts that it may remember.

use abi::{
    Binding, BindingKey, BindingState, Class, Config, DropReason, Flow, FlowKey, Fragment,
    FragmentKey, IfIndex, Ip4, Path, Pod, Secret, Slot, Veth,
};

use crate::Seconds;

/// Who has an address, as far as packets are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A pod of this node.
    Pod(Pod),
    /// Anybody else: the address's class, [`Class::Stack`] when no prefix matches.
    Other(Class),
}

impl Peer {
    /// The pod, if it is one.
    #[inline(always)]
    pub const fn pod(self) -> Option<Pod> {
        match self {
            Self::Pod(pod) => Some(pod),
            Self::Other(_) => None,
        }
    }
}

/// The maps, as seen from a decision. A look-up copies the value out, but for the settings, of which no two need to
/// be of the same moment.
pub trait Tables {
    /// Where an entry of `flows` is, so that it need not be looked up again.
    type FlowEntry: Copy;

    /// The node's settings; `None` until the loader has filled them.
    fn config(&self) -> Option<&Config>;
    /// The key of the port hash.
    fn secret(&self) -> Option<Secret>;
    /// The pod behind this host veth.
    fn veth(&self, ifindex: IfIndex) -> Option<Veth>;
    /// Who has an address.
    fn peer(&self, addr: Ip4) -> Peer;
    /// The pod with this address. Rare ways and loops ask for it, because the verifier walks through less than for `peer`.
    fn pod(&self, addr: Ip4) -> Option<Pod>;
    /// Whether `denyCidrs` contain this source.
    fn denied(&self, addr: Ip4) -> bool;
    /// What is known of a flow, and where it stands.
    fn flow(&self, key: &FlowKey) -> Option<(Flow, Self::FlowEntry)>;
    /// What this CPU has kept of a flow, which may be behind what is known of it by now.
    fn recent_flow(&self, key: &FlowKey) -> Option<Flow>;
    /// Keeps what is known of a flow of the stack.
    fn keep_recent_flow(&self, key: &FlowKey, flow: Flow);
    /// Adds what is known of a flow. `false`: the table is full.
    fn add_flow(&self, key: &FlowKey, flow: Flow) -> bool;
    /// Writes over what is known of a flow.
    fn see_flow(&self, entry: Self::FlowEntry, flow: Flow);
    /// How many flows found no room, ever.
    fn lost_flows(&self) -> u32;
    /// Notes that a flow found no room.
    fn lose_flow(&self);
    /// A SNAT binding.
    fn binding(&self, key: &BindingKey) -> Option<Binding>;
    /// Adds a binding where there is none. `false`: there is one by now, or the table is full.
    fn add_binding(&self, key: &BindingKey, binding: Binding) -> bool;
    /// Replaces a binding that is dead. `false`: the table is full.
    fn take_over_binding(&self, key: &BindingKey, binding: Binding) -> bool;
    /// Removes a binding. Another CPU may just have taken it over for another flow, whose next packet makes it again.
    fn remove_binding(&self, key: &BindingKey);
    /// Notes that a packet of the binding was seen. Nothing happens when there is no such binding.
    fn see_binding(&self, key: &BindingKey, state: BindingState, now: Seconds);
    /// Whether a socket of the node itself would get what the remote end sends to the binding's port of `primary`.
    fn node_uses(&self, primary: Ip4, key: &BindingKey) -> bool;
    /// How many bindings the pod with `slot` holds open. Two CPUs that count at once may lose one: the loader's sweep
    /// counts anew.
    fn open_bindings(&self, slot: Slot) -> u32;
    /// Sets that number.
    fn set_open_bindings(&self, slot: Slot, open: u32);
    /// Where the fragments of a datagram to the primary address go.
    fn fragment(&self, key: &FragmentKey) -> Option<Fragment>;
    /// Remembers where they go; `None` forgets it.
    fn put_fragment(&self, key: &FragmentKey, fragment: Option<Fragment>);
    /// Counts a packet of `bytes` bytes on `path` of the pod with `slot`.
    fn count(&self, slot: Slot, path: Path, bytes: u32);
    /// Counts a dropped packet.
    fn count_drop(&self, reason: DropReason, bytes: u32);
}
