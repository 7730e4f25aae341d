//! When a table entry is dead. The same rules for taking an entry over in the programs and for the loader's GC.

use abi::{Binding, BindingState, Flow, FlowFlags, proto};

/// Seconds since boot, of [`abi::Ticks`] in the programs and of `CLOCK_MONOTONIC_COARSE` in the loader, which may be one ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seconds(pub u32);

impl Seconds {
    /// Seconds since `earlier`; zero when `earlier` is not earlier, which another CPU's write can make it.
    #[inline(always)]
    pub const fn since(self, earlier: u32) -> u32 {
        let elapsed = self.0.wrapping_sub(earlier);
        if elapsed > u32::MAX / 2 { 0 } else { elapsed }
    }
}

/// RFC 5382 REQ-5: at least 2 h 4 min.
const TCP_ESTABLISHED: u32 = 7440;
/// A SYN that nobody answers.
const TCP_NEW: u32 = 60;
/// One side has sent FIN; the other may still send. RFC 5382 REQ-5: at least 4 min.
const TCP_HALF_CLOSED: u32 = 240;
/// The same of a flow of the stack, whose side must be known as long as netfilter knows the flow: what kube-proxy sets for conntrack's own
/// entries (`--conntrack-tcp-timeout-close-wait`).
const TCP_FLOW_HALF_CLOSED: u32 = 3600;
/// FIN from both sides. Whoever sent the first one knows the connection for a minute more (`TCP_TIMEWAIT_LEN` of Linux), and may refuse
/// another one on its ports.
const TCP_TIME_WAIT: u32 = 60;
/// RST; and a flow of the kernel's, which does not decide about ports.
const TCP_CLOSED: u32 = 10;
/// What kube-proxy sets for conntrack's own entries (`--conntrack-tcp-timeout-established`): the flow's side must be
/// known at least as long as netfilter knows the flow. Without kube-proxy the kernel's own default is five days.
const TCP_FLOW: u32 = 86_400;
/// A connection that nobody has answered, so that a flood of SYNs fills `flows` for as long as the kernel's table of connections
/// (`nf_conntrack_tcp_timeout_syn_sent`), and not for a day.
const TCP_UNANSWERED: u32 = 120;
/// UDP that nobody has answered.
const UDP_NEW: u32 = 30;
/// RFC 4787 REQ-5: at least 2 min.
const UDP_ESTABLISHED: u32 = 180;
/// ICMP queries; RFC 5508 REQ-2 asks for 60 s only for queries without an answer, which echo has.
const ICMP: u32 = 30;

/// Whether a binding of IP protocol `proto` is dead.
#[inline(always)]
pub fn binding_expired(binding: &Binding, proto: u8, now: Seconds) -> bool {
    now.since(binding.last_seen) > lifetime(binding.state(), proto)
}

/// Whether a new connection may take a binding over when no port is free: it is dead, or closed since more than a second,
/// by when both ends have heard of it.
#[inline(always)]
pub(crate) fn binding_reusable(binding: &Binding, proto: u8, now: Seconds) -> bool {
    let limit = if binding.state().is_over() {
        1
    } else {
        lifetime(binding.state(), proto)
    };
    now.since(binding.last_seen) > limit
}

/// Seconds after the last packet. Only TCP closes.
#[inline(always)]
const fn lifetime(state: BindingState, proto: u8) -> u32 {
    match (proto, state) {
        (proto::TCP, BindingState::New) => TCP_NEW,
        (proto::TCP, BindingState::Established) => TCP_ESTABLISHED,
        (proto::TCP, BindingState::FinFromPod | BindingState::FinFromRemote) => TCP_HALF_CLOSED,
        (proto::TCP, BindingState::Closed) => TCP_TIME_WAIT,
        (proto::TCP, BindingState::Reset) => TCP_CLOSED,
        (proto::UDP, BindingState::New) => UDP_NEW,
        (proto::UDP, _) => UDP_ESTABLISHED,
        _ => ICMP,
    }
}

/// Whether a flow of IP protocol `proto` is dead.
#[inline(always)]
pub fn flow_expired(flow: &Flow, proto: u8, now: Seconds) -> bool {
    let limit = match proto {
        proto::TCP if is_closed(flow) => TCP_CLOSED,
        proto::TCP if flow.flags.intersects(FlowFlags::CLOSING) => TCP_FLOW_HALF_CLOSED,
        proto::TCP if !flow.flags.contains(FlowFlags::ANSWERED) => TCP_UNANSWERED,
        proto::TCP => TCP_FLOW,
        // A question and its answer are forgotten as soon as conntrack forgets them: nameservers get thousands a second.
        proto::UDP if flow.flags.contains(FlowFlags::LASTING) => UDP_ESTABLISHED,
        proto::UDP => UDP_NEW,
        _ => ICMP,
    };
    now.since(flow.last_seen) > limit
}

/// RST that nobody has doubted since, or FIN from both ends.
#[inline(always)]
pub fn is_closed(flow: &Flow) -> bool {
    let both = FlowFlags::FIN_FROM_LOW.with(FlowFlags::FIN_FROM_HIGH);
    let reset = flow.flags.contains(FlowFlags::RESET) && !flow.flags.contains(FlowFlags::DOUBTED);
    reset || flow.flags.contains(both)
}
