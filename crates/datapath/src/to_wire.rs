//! NIC, egress: clears the mark of fast packets, and remembers flows of pods that came through the stack.

use abi::{FlowFlags, TUNNEL_MARK};

use crate::flow::{Seen, learn_if};
use crate::to_pod::flow_of;
use crate::{Packet, Seconds, Tables, Verdict};

/// An unmarked packet with a pod's source can only have come from the stack: its answer must take the stack too.
#[inline(always)]
pub fn to_wire<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    now: impl FnOnce() -> Seconds,
) -> Verdict {
    let Some(config) = tables.config() else {
        return Verdict::Stack;
    };
    // The whole mark, not a bit of it: other software's marks may contain any bit.
    if packet.mark() & !TUNNEL_MARK == config.fast_mark {
        packet.set_mark(0);
        return Verdict::Stack;
    }
    let Some((ip, transport)) = flow_of(packet) else {
        return Verdict::Stack;
    };
    // The node's own, and what the kernel has masqueraded.
    if ip.src == config.primary {
        return Verdict::Stack;
    }
    let seen = Seen::of(&ip, &transport);
    let is_a_pods = || tables.peer(ip.src).pod().is_some();
    learn_if(tables, &seen, FlowFlags::VIA_STACK, now(), is_a_pods);
    Verdict::Stack
}
