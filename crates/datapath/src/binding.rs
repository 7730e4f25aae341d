//! The life of a SNAT binding: which packets belong to it, and what they say about its state.

use abi::{Binding, BindingKey, BindingState, Pod, Slot};

use crate::headers::{Kind, Transport};
use crate::{Seconds, Tables};

/// The binding that an answer from the wire belongs to, and its pod. A binding of a pod that is gone is none.
#[inline(always)]
pub(crate) fn reverse(tables: &impl Tables, key: &BindingKey) -> Option<(Binding, Pod)> {
    let binding = tables.binding(key)?;
    let pod = tables.peer(binding.pod).pod()?;
    (pod.generation == binding.generation).then_some((binding, pod))
}

/// Who sent a packet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sender {
    Pod,
    Remote,
}

/// Notes a packet of the binding of the pod with `slot`: its state, and once a second the time.
#[inline(always)]
pub(crate) fn see(
    tables: &impl Tables,
    slot: Slot,
    (key, binding): (&BindingKey, &Binding),
    transport: &Transport,
    sender: Sender,
    now: Seconds,
) {
    let (old, new) = (
        binding.state(),
        advance(binding.state(), transport.kind, sender),
    );
    if new != old || now.since(binding.last_seen) > 0 {
        tables.see_binding(key, new, now);
    }
    match (old.is_over(), new.is_over()) {
        (false, true) => {
            tables.set_open_bindings(slot, tables.open_bindings(slot).saturating_sub(1));
        }
        (true, false) => tables.set_open_bindings(slot, tables.open_bindings(slot) + 1),
        (false, false) | (true, true) => {}
    }
}

#[inline(always)]
fn advance(state: BindingState, kind: Kind, sender: Sender) -> BindingState {
    let Kind::Tcp(flags) = kind else {
        return answered(state, sender);
    };
    if flags.rst() {
        return BindingState::Reset;
    }
    // The pod uses the port again: whatever was before is over.
    if flags.opens() && sender == Sender::Pod {
        return BindingState::New;
    }
    // The answer to the pod's SYN, after a FIN of the connection before it.
    if flags.syn() && (state, sender) == (BindingState::FinFromRemote, Sender::Remote) {
        return BindingState::Established;
    }
    // Whoever still talks after RST did not believe it: it was forged, or out of the window (RFC 5961).
    let state = if state == BindingState::Reset {
        BindingState::Established
    } else {
        answered(state, sender)
    };
    if !flags.fin() {
        return state;
    }
    match (state, sender) {
        (BindingState::FinFromRemote, Sender::Pod) | (BindingState::FinFromPod, Sender::Remote) => {
            BindingState::Closed
        }
        (BindingState::New | BindingState::Established, Sender::Pod) => BindingState::FinFromPod,
        (BindingState::New | BindingState::Established, Sender::Remote) => {
            BindingState::FinFromRemote
        }
        _ => state,
    }
}

/// The first packet of the remote end is the answer.
#[inline(always)]
fn answered(state: BindingState, sender: Sender) -> BindingState {
    match (state, sender) {
        (BindingState::New, Sender::Remote) => BindingState::Established,
        _ => state,
    }
}
