//! What is true of a table's entry that old programs have written in the old map, and new ones in the new one?
//!
//! Between the first program's replacement and the last one's, a connection's two directions may be told to two maps, whose clocks
//! have seconds only. So neither is simply the later one.

use abi::pins::map;
use abi::{Binding, BindingState, Flow, FlowFlags, Fragment};
use zerocopy::{FromBytes, IntoBytes};

/// The value of both: `old` as the old map had it, arranged as in the new one, and `new` as that one has it.
pub(super) fn merge(name: &str, old: &[u8], new: &[u8]) -> Vec<u8> {
    let merged = match name {
        map::FLOWS => both(old, new, flow),
        map::SNAT => both(old, new, binding),
        map::FRAGMENTS => both(old, new, fragment),
        _ => None,
    };
    merged.unwrap_or_else(|| new.to_vec())
}

fn both<T: FromBytes + IntoBytes + zerocopy::Immutable>(
    old: &[u8],
    new: &[u8],
    merge: fn(T, T) -> T,
) -> Option<Vec<u8>> {
    let [old, new] = [old, new].map(|bytes| T::read_from_bytes(bytes).ok());
    Some(merge(old?, new?).as_bytes().to_vec())
}

/// The later one, or the new one.
fn latest<T>(old: T, new: T, seen: impl Fn(&T) -> u32) -> T {
    if seen(&old) > seen(&new) { old } else { new }
}

/// "Via the stack" is safe, and an end that one direction has announced it has announced.
fn flow(old: Flow, new: Flow) -> Flow {
    let mut flow = latest(old, new, |flow| flow.last_seen);
    for flags in [old.flags, new.flags] {
        if flags.contains(FlowFlags::VIA_STACK) {
            flow.flags = flow.flags.with(FlowFlags::VIA_STACK);
        }
    }
    flow
}

/// An open one is never taken for over: its port would be given to somebody else.
fn binding(old: Binding, new: Binding) -> Binding {
    use BindingState::{Closed, FinFromPod, FinFromRemote, New, Reset};
    let owner = |binding: &Binding| (binding.pod, binding.pod_port, binding.generation);
    let last = latest(old, new, |binding| binding.last_seen);
    if owner(&old) != owner(&new) {
        return last;
    }
    let state = match (old.state(), new.state()) {
        // Only the pod's SYN makes it new, and nothing but that ends what is over.
        (New, Closed | Reset) | (Closed | Reset, New) => New,
        (FinFromPod, FinFromRemote) | (FinFromRemote, FinFromPod) => Closed,
        (over @ (Closed | Reset), _) | (_, over @ (Closed | Reset)) => over,
        _ => last.state(),
    };
    let mut merged = last;
    merged.see(state, last.last_seen);
    merged
}

fn fragment(old: Fragment, new: Fragment) -> Fragment {
    latest(old, new, |fragment| fragment.seen)
}

#[cfg(test)]
mod tests {
    use abi::{Ip4, Port};

    use super::*;

    fn of(state: BindingState, seen: u32) -> Binding {
        let (pod, port) = (Ip4::new([10, 240, 1, 10]), Port::from_u16(1));
        Binding::new(pod, port, 1, state, seen)
    }

    fn merged(old: (BindingState, u32), new: (BindingState, u32)) -> (BindingState, u32) {
        let [old, new] = [old, new].map(|(state, seen)| of(state, seen));
        let merged = merge(map::SNAT, old.as_bytes(), new.as_bytes());
        let merged = Binding::read_from_bytes(&merged).unwrap();
        (merged.state(), merged.last_seen)
    }

    #[test]
    fn a_port_that_the_pod_uses_again_is_not_taken_for_closed_whichever_map_heard_last() {
        use BindingState::{Closed, New, Reset};
        for over in [Closed, Reset] {
            assert_eq!(merged((New, 7), (over, 8)), (New, 8));
            assert_eq!(merged((over, 8), (New, 7)), (New, 8));
            assert_eq!(merged((New, 7), (over, 7)), (New, 7));
        }
    }

    #[test]
    fn ends_that_went_by_two_programs_are_both_known() {
        use BindingState::{Closed, Established, FinFromPod, FinFromRemote};
        assert_eq!(merged((FinFromPod, 7), (FinFromRemote, 7)), (Closed, 7));
        assert_eq!(merged((Closed, 7), (Established, 8)), (Closed, 8));
        assert_eq!(merged((Established, 7), (FinFromPod, 7)), (FinFromPod, 7));
    }

    #[test]
    fn a_binding_that_somebody_has_taken_over_is_the_later_one() {
        let old = of(BindingState::Closed, 7);
        let taken = Binding::new(old.pod, Port::from_u16(2), 1, BindingState::New, 8);
        assert_eq!(binding(old, taken), taken);
        assert_eq!(binding(taken, old), taken);
    }

    #[test]
    fn a_flow_of_the_stack_stays_one() {
        let stack = Flow::new(FlowFlags::VIA_STACK, 7);
        let inbound = Flow::new(FlowFlags::INBOUND, 8);
        for (old, new) in [(stack, inbound), (inbound, stack)] {
            let flow = flow(old, new);
            assert!(
                flow.flags
                    .contains(FlowFlags::VIA_STACK.with(FlowFlags::INBOUND))
            );
            assert_eq!(flow.last_seen, 8);
        }
    }
}
