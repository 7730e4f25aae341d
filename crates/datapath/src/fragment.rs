//! Later fragments of a datagram follow the first one, which alone has ports: answers to SNATed traffic, and what pods answer
//! to flows that somebody on the Internet opened to their own address.
//!
//! A fragment that overtakes its datagram's first one goes to the stack, and the datagram is lost; all other fragments go
//! through the stack in any order.

use abi::{Binding, Config, Fragment, FragmentKey, Path, Pod, Veth};

use crate::forward::{into_pod, rewrite_ip};
use crate::from_pod::{Decision, untranslated};
use crate::headers::Ipv4;
use crate::{Packet, Seconds, Tables, Verdict};

/// How long the other fragments may take (the kernel's `net.ipv4.ipfrag_time`); by then the identification may be used
/// again.
const PATIENCE: u32 = 30;

/// Remembers whose datagram the first fragment from the wire begins, or that it is nobody's.
#[inline(always)]
pub(crate) fn first(tables: &impl Tables, ip: &Ipv4, found: Option<&(Binding, Pod)>, now: Seconds) {
    let fragment = found.map(|(binding, _)| Fragment::new(binding.pod, binding.generation, now.0));
    tables.put_fragment(&key(ip), fragment);
}

/// Sends a later fragment from the wire after the first one. `None`: it belongs to the stack.
#[inline(always)]
pub(crate) fn later(
    packet: &mut impl Packet,
    tables: &impl Tables,
    ip: &Ipv4,
    bytes: u32,
    now: Seconds,
) -> Option<Verdict> {
    let fragment = tables.fragment(&key(ip))?;
    let pod = tables.pod(fragment.to)?;
    if !is_current(&fragment, pod.generation, now) {
        return None;
    }
    rewrite_ip(packet, ip, ip.src, fragment.to)?;
    tables.count(pod.slot, Path::FromInternet, bytes);
    into_pod(packet, &pod)
}

/// Sends the first fragment of a pod's datagram untranslated onto the wire if it `answers` what somebody outside opened,
/// and remembers that the others follow; or else that they do not. `None`: it belongs to the stack.
#[inline(always)]
pub(crate) fn first_of_pod<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    (config, veth): (&Config, &Veth),
    ip: &Ipv4,
    answers: bool,
    now: Seconds,
) -> Option<Decision> {
    let fragment = answers.then(|| Fragment::new(ip.dst, veth.generation, now.0));
    tables.put_fragment(&key(ip), fragment);
    answers.then(|| untranslated(packet, config, ip))
}

/// Sends a later fragment of a pod's datagram after the first one. `None`: it belongs to the stack.
#[inline(always)]
pub(crate) fn later_of_pod<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    (config, veth): (&Config, &Veth),
    ip: &Ipv4,
    now: Seconds,
) -> Option<Decision> {
    let fragment = tables.fragment(&key(ip))?;
    let follows = fragment.to == ip.dst && is_current(&fragment, veth.generation, now);
    follows.then(|| untranslated(packet, config, ip))
}

#[inline(always)]
fn key(ip: &Ipv4) -> FragmentKey {
    FragmentKey::new(ip.src, ip.id, ip.proto)
}

#[inline(always)]
fn is_current(fragment: &Fragment, generation: u16, now: Seconds) -> bool {
    fragment.generation == generation && now.since(fragment.seen) <= PATIENCE
}
