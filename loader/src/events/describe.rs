//! A frame in a few words, and whose it is.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use abi::{DropReason, Event, Happening, IfIndex, Ip4, Path, Slot};
use anyhow::{Context as _, Result};
use etherparse::{LaxNetSlice, LaxSlicedPacket, TransportSlice};
use hooks::Maps;
use rpc::{Endpoint, RunDirectory};

use crate::trace::names::{Names, protocol};
use crate::{podname, reconcile};

/// What happened, as one word.
pub(crate) const fn word(what: Happening) -> &'static str {
    match what {
        Happening::Took(_, path) => Path::name(path),
        Happening::Dropped(reason) => DropReason::name(reason),
    }
}

/// Protocol and ends: `tcp 10.240.1.10:41234 > 203.0.113.10:443`.
pub(crate) fn headers(frame: &[u8]) -> String {
    let Ok(packet) = LaxSlicedPacket::from_ethernet(frame) else {
        return "a frame that is cut off".to_owned();
    };
    let Some(LaxNetSlice::Ipv4(ip)) = &packet.net else {
        let ether = frame.get(12..14).unwrap_or_default();
        return match *ether {
            [8, 6] => "arp".to_owned(),
            [high, low] => format!("ethertype 0x{high:02x}{low:02x}"),
            _ => "no Ethernet frame".to_owned(),
        };
    };
    let header = ip.header();
    let (src, dst) = (header.source_addr(), header.destination_addr());
    let ports = match &packet.transport {
        Some(TransportSlice::Tcp(tcp)) => Some((tcp.source_port(), tcp.destination_port())),
        Some(TransportSlice::Udp(udp)) => Some((udp.source_port(), udp.destination_port())),
        _ => None,
    };
    let name = protocol(header.protocol().0);
    match ports {
        Some((from, to)) => format!("{name} {src}:{from} > {dst}:{to}"),
        None => format!("{name} {src} > {dst}"),
    }
}

/// Whose events are whose.
#[derive(Clone, Debug)]
pub(crate) struct Owners {
    names: Names,
    endpoints: Vec<Endpoint>,
    slots: BTreeMap<Slot, Ip4>,
    veths: BTreeMap<IfIndex, Ip4>,
    read: Instant,
}

impl Owners {
    /// As maps and records say now.
    pub(crate) fn read(maps: &Maps) -> Result<Self> {
        let tables = maps.small_tables().context("read the pinned maps")?;
        let slots = tables.pods.iter().map(|(addr, pod)| (pod.slot, *addr));
        let veths = tables.veths.iter().map(|(veth, of)| (*veth, of.addr));
        let endpoints = reconcile::endpoints(&RunDirectory::default());
        Ok(Self {
            names: Names::of(&endpoints),
            endpoints,
            slots: slots.collect(),
            veths: veths.collect(),
            read: Instant::now(),
        })
    }

    /// Again, when a second has gone by; whether it has.
    pub(crate) fn refresh(&mut self, maps: &Maps) -> Result<bool> {
        let is_old = self.read.elapsed() >= Duration::from_secs(1);
        if is_old {
            *self = Self::read(maps)?;
        }
        Ok(is_old)
    }

    /// Whether the pod with this address is counted there.
    pub(super) fn is(&self, (addr, slot): (Ip4, Slot)) -> bool {
        self.slots.get(&slot) == Some(&addr)
    }

    /// Address and slot of the pod that is called so.
    pub(super) fn find(&self, wanted: &str) -> Option<(Ip4, Slot)> {
        let endpoint = podname::find(&self.endpoints, wanted).ok()?;
        let addr = Ip4::from(endpoint.address.addr());
        let mut slots = self.slots.iter();
        let (slot, _) = slots.find(|(_, of)| **of == addr)?;
        Some((addr, *slot))
    }

    /// The address of the pod that the event is about; `None` when it is not known, or nobody's.
    pub(crate) fn address(&self, event: &Event, what: Happening) -> Option<Ip4> {
        match what {
            Happening::Took(slot, _) => self.slots.get(&slot).copied(),
            Happening::Dropped(_) => self.veths.get(&event.ifindex).copied(),
        }
    }

    /// Its name.
    pub(crate) fn name(&self, event: &Event, what: Happening) -> Option<String> {
        let addr = self.address(event, what)?;
        Some(self.names.name(addr))
    }
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;

    #[test]
    fn frames_are_told_by_their_headers_even_when_they_are_cut() {
        let packet =
            PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
        let mut frame = Vec::new();
        packet.udp(1000, 53).write(&mut frame, &[0; 400]).unwrap();
        assert_eq!(headers(&frame), "udp 10.0.0.1:1000 > 10.0.0.2:53");
        assert_eq!(headers(&frame[..256]), "udp 10.0.0.1:1000 > 10.0.0.2:53");
        (frame[12], frame[13], frame[14]) = (0x86, 0xdd, 0x60);
        assert_eq!(headers(&frame[..60]), "ethertype 0x86dd");
        assert_eq!(headers(&[0; 5]), "a frame that is cut off");
    }
}
