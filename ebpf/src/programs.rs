//! The hooks.

use abi::IfIndex;
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;

use crate::action::act;
use crate::lookup::Maps;
use crate::skb::Skb;

/// Host veth, ingress.
#[classifier]
pub(crate) fn from_pod(ctx: TcContext) -> i32 {
    let mut skb = Skb::new(&ctx);
    act(datapath::from_pod(
        &mut skb,
        &Maps,
        ifindex(&ctx),
        crate::lookup::now(),
    ))
}

/// Host veth, egress.
#[classifier]
pub(crate) fn to_pod(ctx: TcContext) -> i32 {
    let mut skb = Skb::new(&ctx);
    act(datapath::to_pod(
        &mut skb,
        &Maps,
        ifindex(&ctx),
        crate::lookup::now(),
    ))
}

/// NIC, ingress.
#[classifier]
pub(crate) fn from_wire(ctx: TcContext) -> i32 {
    let mut skb = Skb::new(&ctx);
    act(datapath::from_wire(&mut skb, &Maps, crate::lookup::now()))
}

/// NIC, egress.
#[classifier]
pub(crate) fn to_wire(ctx: TcContext) -> i32 {
    let mut skb = Skb::new(&ctx);
    act(datapath::to_wire(&mut skb, &Maps, crate::lookup::now()))
}

/// The interface that the program is attached to.
#[inline(always)]
fn ifindex(ctx: &TcContext) -> IfIndex {
    // SAFETY: the kernel hands every program a context that is valid while the program runs.
    IfIndex::new(unsafe { (*ctx.skb.skb).ifindex })
}
