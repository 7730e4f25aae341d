//! Source NAT to the primary address, one table entry per binding.
//!
//! A binding is keyed by what the wire shows, so that the answer finds it with one look-up; the pod's packets find it
//! again through the flow's candidate ports ([`crate::ports`]), nearly always at the first.

use abi::{Binding, BindingKey, BindingState, Config, Ip4, Pod, Port, Veth, proto};

use crate::expiry::binding_reusable;
use crate::forward::rewrite_ip;
use crate::headers::{Ipv4, Kind, L4, Transport};
use crate::packet::{ChecksumKind, Packet};
use crate::ports::{CANDIDATES, Candidates};
use crate::{Seconds, Tables};

/// The search for a flow's binding.
pub(crate) struct Search<'a> {
    veth: &'a Veth,
    pod_port: Port,
    remote: (Ip4, Port),
    proto: u8,
    candidates: Candidates,
    /// The first candidate that nobody has.
    free: Option<Port>,
    /// The first candidate whose binding can be taken over.
    reusable: Option<Port>,
}

impl<'a> Search<'a> {
    /// `None`: SNAT is off, or the loader has not set it up yet.
    #[inline(always)]
    pub(crate) fn new(
        tables: &impl Tables,
        config: &Config,
        veth: &'a Veth,
        ip: &Ipv4,
        transport: &Transport,
    ) -> Option<Self> {
        let secret = tables.secret()?;
        let remote_port = match transport.kind {
            Kind::Tcp(_) | Kind::Udp => transport.dst,
            Kind::EchoRequest | Kind::EchoReply | Kind::IcmpError | Kind::IcmpRedirect => {
                Port::NONE
            }
        };
        let candidates = Candidates::new(
            config,
            &secret,
            (veth.addr, transport.src),
            (ip.dst, remote_port),
            ip.proto,
        )?;
        Some(Self {
            veth,
            pod_port: transport.src,
            remote: (ip.dst, remote_port),
            proto: ip.proto,
            candidates,
            free: None,
            reusable: None,
        })
    }

    /// Looks at the first candidate, where an established flow nearly always finds its binding.
    #[inline(always)]
    pub(crate) fn first(
        &mut self,
        tables: &impl Tables,
        now: Seconds,
    ) -> Option<(BindingKey, Binding)> {
        self.probe(tables, now)
    }

    /// Looks at all other candidates: the binding may lie behind one that was in use when it was made.
    #[inline(always)]
    pub(crate) fn rest(
        &mut self,
        tables: &impl Tables,
        now: Seconds,
    ) -> Option<(BindingKey, Binding)> {
        for _ in 1..CANDIDATES {
            if let Some(found) = self.probe(tables, now) {
                return Some(found);
            }
        }
        None
    }

    /// Makes a binding at a candidate that nobody has, or else over one that is done with. `None`: there is neither, or
    /// the table is full.
    #[inline(always)]
    pub(crate) fn bind(&self, tables: &impl Tables, now: Seconds) -> Option<BindingKey> {
        let key = self.key(self.free.or(self.reusable)?);
        let binding = Binding::new(
            self.veth.addr,
            self.pod_port,
            self.veth.generation,
            BindingState::New,
            now.0,
        );
        let bound = if self.free.is_some() {
            tables.add_binding(&key, binding)
        } else {
            tables.take_over_binding(&key, binding)
        };
        bound.then_some(key)
    }

    #[inline(always)]
    fn probe(&mut self, tables: &impl Tables, now: Seconds) -> Option<(BindingKey, Binding)> {
        let nat_port = self.candidates.next_port();
        let key = self.key(nat_port);
        match tables.binding(&key) {
            None => {
                self.free = self.free.or(Some(nat_port));
                None
            }
            Some(binding) if self.owns(&binding) => Some((key, binding)),
            Some(binding) => {
                if self.reusable.is_none() && is_reusable(tables, &binding, self.proto, now) {
                    self.reusable = Some(nat_port);
                }
                None
            }
        }
    }

    #[inline(always)]
    fn key(&self, nat_port: Port) -> BindingKey {
        BindingKey::new(self.remote, nat_port, self.proto)
    }

    #[inline(always)]
    fn owns(&self, binding: &Binding) -> bool {
        binding.pod == self.veth.addr
            && binding.pod_port == self.pod_port
            && binding.generation == self.veth.generation
    }
}

/// A binding that another flow may take over: it is done with, or its pod is gone.
#[inline(always)]
fn is_reusable(tables: &impl Tables, binding: &Binding, proto: u8, now: Seconds) -> bool {
    binding_reusable(binding, proto, now)
        || tables
            .pod(binding.pod)
            .is_none_or(|pod| pod.generation != binding.generation)
}

/// The binding that an answer from the wire belongs to, and its pod. A binding of a pod that is gone is none.
#[inline(always)]
pub(crate) fn reverse(tables: &impl Tables, key: &BindingKey) -> Option<(Binding, Pod)> {
    let binding = tables.binding(key)?;
    let pod = tables.pod(binding.pod)?;
    (pod.generation == binding.generation).then_some((binding, pod))
}

/// Who sent a packet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sender {
    Pod,
    Remote,
}

/// Notes a packet of the binding: its state, and once a second the time.
#[inline(always)]
pub(crate) fn see(
    tables: &impl Tables,
    key: &BindingKey,
    binding: &Binding,
    transport: &Transport,
    sender: Sender,
    now: Seconds,
) {
    let state = advance(binding.state(), transport.kind, sender);
    if state != binding.state() || now.since(binding.last_seen) > 0 {
        tables.see_binding(key, state, now);
    }
}

#[inline(always)]
fn advance(state: BindingState, kind: Kind, sender: Sender) -> BindingState {
    let Kind::Tcp(flags) = kind else {
        return answered(state, sender);
    };
    if flags.rst() {
        return BindingState::Reset;
    }
    // The pod uses the port again: whatever was before is over.
    if flags.opens() && sender == Sender::Pod {
        return BindingState::New;
    }
    // Whoever still talks after RST did not believe it: it was forged, or out of the window (RFC 5961).
    let state = if state == BindingState::Reset {
        BindingState::Established
    } else {
        answered(state, sender)
    };
    if !flags.fin() {
        return state;
    }
    match (state, sender) {
        (BindingState::FinFromRemote, Sender::Pod) | (BindingState::FinFromPod, Sender::Remote) => {
            BindingState::Closed
        }
        (BindingState::New | BindingState::Established, Sender::Pod) => BindingState::FinFromPod,
        (BindingState::New | BindingState::Established, Sender::Remote) => {
            BindingState::FinFromRemote
        }
        _ => state,
    }
}

/// The first packet of the remote end is the answer.
#[inline(always)]
fn answered(state: BindingState, sender: Sender) -> BindingState {
    match (state, sender) {
        (BindingState::New, Sender::Remote) => BindingState::Established,
        _ => state,
    }
}

/// An end of a flow that takes another's place in a packet.
#[derive(Clone, Copy)]
pub(crate) struct Translation {
    pub(crate) from: (Ip4, Port),
    pub(crate) to: (Ip4, Port),
    /// The end is the packet's source; else its destination.
    pub(crate) of: Sender,
}

/// Rewrites one end of the packet, with TTL and all checksums. `None`: the frame is too short.
#[inline(always)]
pub(crate) fn translate(
    packet: &mut impl Packet,
    ip: &Ipv4,
    transport: &Transport,
    change: &Translation,
) -> Option<()> {
    let (old_port, new_port) = (change.from.1.bytes(), change.to.1.bytes());
    match transport.kind {
        Kind::Tcp(_) | Kind::Udp => {
            let is_udp = ip.proto == proto::UDP;
            let sum_at = if is_udp { L4 + 6 } else { L4 + 16 };
            let address = ChecksumKind {
                pseudo_header: true,
                zero_is_none: is_udp,
            };
            packet.replace_l4_checksum(
                sum_at,
                change.from.0.octets(),
                change.to.0.octets(),
                address,
            )?;
            if old_port != new_port {
                let port = ChecksumKind {
                    pseudo_header: false,
                    zero_is_none: is_udp,
                };
                packet.replace_l4_checksum(sum_at, old_port, new_port, port)?;
                packet.write(if change.of == Sender::Pod { L4 } else { L4 + 2 }, new_port)?;
            }
        }
        Kind::EchoRequest | Kind::EchoReply => {
            let sum = crate::checksum::replace(packet.read(L4 + 2)?, old_port, new_port);
            packet.write(L4 + 2, sum)?;
            packet.write(L4 + 4, new_port)?;
        }
        Kind::IcmpError | Kind::IcmpRedirect => return None,
    }
    match change.of {
        Sender::Pod => rewrite_ip(packet, ip, change.to.0, ip.dst),
        Sender::Remote => rewrite_ip(packet, ip, ip.src, change.to.0),
    }
}
