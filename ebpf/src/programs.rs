//! The hooks. Each is one function for the kernel, inlined into what the macro makes of it: a call is a cache line more.

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS};
use aya_ebpf::macros::{classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};

use crate::action::act;
use crate::lookup::now;
use crate::skb::Skb;
use crate::xdp::Received;

/// Host veth, ingress.
#[classifier]
#[inline(always)]
pub(crate) fn from_pod(ctx: TcContext) -> i32 {
    let mut skb = Skb::new(ctx);
    let (maps, veth) = (skb.maps(), skb.interface());
    #[cfg(feature = "fifty-look-ups")]
    maps.look_up_in_vain();
    let verdict = datapath::from_pod(&mut skb, &maps, veth, now);
    #[cfg(feature = "direct-mac")]
    if let Some(action) = crate::action::act_directly(&mut skb, verdict) {
        return action;
    }
    act(verdict)
}

/// Host veth, egress.
#[classifier]
#[inline(always)]
pub(crate) fn to_pod(ctx: TcContext) -> i32 {
    let mut skb = Skb::new(ctx);
    let (maps, veth) = (skb.maps(), skb.interface());
    act(datapath::to_pod(&mut skb, &maps, veth, now))
}

/// NIC, ingress.
#[classifier]
#[inline(always)]
pub(crate) fn from_wire(ctx: TcContext) -> i32 {
    let mut skb = Skb::new(ctx);
    let maps = skb.maps();
    act(datapath::from_wire(&mut skb, &maps, now))
}

/// NIC, egress.
#[classifier]
#[inline(always)]
pub(crate) fn to_wire(ctx: TcContext) -> i32 {
    let mut skb = Skb::new(ctx);
    let maps = skb.maps();
    act(datapath::to_wire(&mut skb, &maps, now))
}

/// NIC, XDP. Fit for frames in several buffers, so that jumbo frames do not keep it off the NIC.
#[xdp(frags)]
#[inline(always)]
pub(crate) fn xdp_guard(ctx: XdpContext) -> u32 {
    let frame = Received::new(ctx);
    #[cfg(feature = "fifty-look-ups")]
    frame.maps().look_up_in_vain();
    match datapath::xdp_guard(&frame, &frame.maps()) {
        Some(_counted) => XDP_DROP,
        None => XDP_PASS,
    }
}
