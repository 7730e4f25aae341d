//! The hooks.

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;

use crate::action::act;
use crate::lookup::now;
use crate::skb::Skb;

/// Host veth, ingress.
#[classifier]
pub(crate) fn from_pod(ctx: TcContext) -> i32 {
    let mut skb = Skb::new(ctx);
    let (maps, veth) = (skb.maps(), skb.interface());
    act(datapath::from_pod(&mut skb, &maps, veth, now()))
}

/// Host veth, egress.
#[classifier]
pub(crate) fn to_pod(ctx: TcContext) -> i32 {
    let mut skb = Skb::new(ctx);
    let (maps, veth) = (skb.maps(), skb.interface());
    act(datapath::to_pod(&mut skb, &maps, veth, now()))
}

/// NIC, ingress.
#[classifier]
pub(crate) fn from_wire(ctx: TcContext) -> i32 {
    let mut skb = Skb::new(ctx);
    let maps = skb.maps();
    act(datapath::from_wire(&mut skb, &maps, now()))
}

/// NIC, egress.
#[classifier]
pub(crate) fn to_wire(ctx: TcContext) -> i32 {
    let mut skb = Skb::new(ctx);
    let maps = skb.maps();
    act(datapath::to_wire(&mut skb, &maps, now()))
}
