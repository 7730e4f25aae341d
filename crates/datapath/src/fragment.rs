//! Answers to SNATed traffic that arrive in fragments: only the first one has ports, so it says where the others go.
//!
//! A fragment that overtakes its datagram's first one goes to the stack, and the datagram is lost; the pod's own
//! fragments, and those to a pod's own address, go through the stack in any order.

use abi::{Binding, Fragment, FragmentKey, Path, Pod};

use crate::forward::{into_pod, rewrite_ip};
use crate::headers::Ipv4;
use crate::{Packet, Seconds, Tables, Verdict};

/// How long the other fragments may take (the kernel's `net.ipv4.ipfrag_time`); by then the identification may be used
/// again.
const PATIENCE: u32 = 30;

/// Remembers whose datagram the first fragment begins, or that it is nobody's.
#[inline(always)]
pub(crate) fn first(tables: &impl Tables, ip: &Ipv4, found: Option<&(Binding, Pod)>, now: Seconds) {
    let key = FragmentKey::new(ip.src, ip.id, ip.proto);
    let fragment = found.map(|(binding, _)| Fragment::new(binding.pod, binding.generation, now.0));
    tables.put_fragment(&key, fragment);
}

/// Sends a later fragment after the first one. `None`: it belongs to the stack.
#[inline(always)]
pub(crate) fn later(
    packet: &mut impl Packet,
    tables: &impl Tables,
    ip: &Ipv4,
    bytes: u32,
    now: Seconds,
) -> Option<Verdict> {
    let fragment = tables.fragment(&FragmentKey::new(ip.src, ip.id, ip.proto))?;
    let pod = tables.pod(fragment.pod)?;
    if pod.generation != fragment.generation || now.since(fragment.seen) > PATIENCE {
        return None;
    }
    rewrite_ip(packet, ip, ip.src, fragment.pod)?;
    tables.count(pod.slot, Path::FromInternet, bytes);
    into_pod(packet, &pod)
}
