//! The hooks.

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;

use crate::action::act;
use crate::lookup::{Maps, now};
use crate::skb::Skb;

/// Host veth, ingress.
#[classifier]
pub(crate) fn from_pod(ctx: TcContext) -> i32 {
    let mut skb = Skb::new(ctx);
    let veth = skb.interface();
    act(datapath::from_pod(&mut skb, &Maps, veth, now()))
}

/// Host veth, egress.
#[classifier]
pub(crate) fn to_pod(ctx: TcContext) -> i32 {
    let mut skb = Skb::new(ctx);
    let veth = skb.interface();
    act(datapath::to_pod(&mut skb, &Maps, veth, now()))
}

/// NIC, ingress.
#[classifier]
pub(crate) fn from_wire(ctx: TcContext) -> i32 {
    act(datapath::from_wire(&mut Skb::new(ctx), &Maps, now()))
}

/// NIC, egress.
#[classifier]
pub(crate) fn to_wire(ctx: TcContext) -> i32 {
    act(datapath::to_wire(&mut Skb::new(ctx), &Maps, now()))
}
