//! NIC, egress: clears the mark of fast packets, and remembers flows of pods that came through the stack.

use abi::FlowFlags;

use crate::flow::{key_of, learn};
use crate::to_pod::flow_of;
use crate::{Packet, Seconds, Tables, Verdict};

/// An unmarked packet with a pod's source can only have come from the stack: its answer must take the stack too.
#[inline(always)]
pub fn to_wire<P: Packet, T: Tables>(packet: &mut P, tables: &T, now: Seconds) -> Verdict {
    let Some(config) = tables.config() else {
        return Verdict::Stack;
    };
    let mark = packet.mark();
    if mark & config.fast_mark != 0 {
        packet.set_mark(mark & !config.fast_mark);
        return Verdict::Stack;
    }
    if let Some((ip, transport)) = flow_of(packet)
        && tables.pod(ip.src).is_some()
    {
        learn(
            tables,
            &key_of(&ip, &transport),
            FlowFlags::VIA_STACK,
            &transport,
            now,
        );
    }
    Verdict::Stack
}
