//! What an entry of connection tracking says, and under which keys the programs will look for its packets.
//!
//! Numbers are those of `linux/netfilter/nfnetlink_conntrack.h` and `nf_conntrack_common.h`.

use std::collections::BTreeSet;

use abi::{FlowFlags, FlowKey, Ip4, Port, proto};
use rtnetlink::packet_core::{
    DecodeError, NetlinkDeserializable, NetlinkHeader, NetlinkPayload, NetlinkSerializable,
    NlasIterator,
};

/// `NFNL_SUBSYS_CTNETLINK` in the upper byte of a message's type.
const CTNETLINK: u16 = 1 << 8;
/// `IPCTNL_MSG_CT_NEW`: an entry.
const ENTRY: u16 = CTNETLINK;
/// `IPCTNL_MSG_CT_GET`: the question.
const GET: u16 = CTNETLINK | 1;
/// `struct nfgenmsg` before the attributes: family `AF_INET`, version 0, resource 0.
const GENERIC: [u8; 4] = [2, 0, 0, 0];

const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_STATUS: u16 = 3;
const CTA_PROTOINFO: u16 = 4;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;
const CTA_PROTO_ICMP_ID: u16 = 4;
const CTA_PROTO_ICMP_TYPE: u16 = 5;
const CTA_PROTOINFO_TCP: u16 = 1;
const CTA_PROTOINFO_TCP_STATE: u16 = 1;

/// `IPS_SRC_NAT | IPS_DST_NAT`. `nf_nat_setup_info` sets them only when it changes something.
const TRANSLATED: u32 = 1 << 4 | 1 << 5;
/// `IPS_SEEN_REPLY`.
const ANSWERED: u32 = 1 << 1;
/// `TCP_CONNTRACK_ESTABLISHED`; lower ones have not come so far.
const ESTABLISHED: u8 = 3;
/// `TCP_CONNTRACK_FIN_WAIT`, `TCP_CONNTRACK_CLOSE_WAIT` and `TCP_CONNTRACK_LAST_ACK`: somebody has sent FIN.
const CLOSING: [u8; 3] = [4, 5, 6];
/// `TCP_CONNTRACK_TIME_WAIT` and `TCP_CONNTRACK_CLOSE`: nobody sends any more.
const OVER: [u8; 2] = [7, 8];
/// ICMP echo reply and request.
const ECHO: [u8; 2] = [0, 8];

/// What is exchanged with the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// Ask for every entry.
    Ask,
    /// An entry that may matter.
    Entry(Entry),
    /// An entry that does not.
    Other,
}

/// A connection that is translated, or answered: both directions as the kernel expects them, each before its translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    original: Tuple,
    reply: Tuple,
    translated: bool,
    tcp_state: Option<u8>,
}

/// One direction. ICMP echo has its identifier in both ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tuple {
    src: (Ip4, Port),
    dst: (Ip4, Port),
    proto: u8,
}

impl Entry {
    /// The flow as it looks on each side of the translation.
    ///
    /// The client's side is the original direction. The server's side is the reply direction, because the kernel expects the
    /// server's answer with the server's own address, and it is the answer that must not go fast.
    pub(super) fn flows(&self) -> BTreeSet<FlowKey> {
        let key = |tuple: Tuple| datapath::flow_key(tuple.src, tuple.dst, tuple.proto);
        BTreeSet::from([key(self.original), key(self.reply)])
    }

    /// Who asked and who was asked, if nothing is translated.
    pub(super) fn untranslated(&self) -> Option<(Ip4, Ip4)> {
        let Tuple { src, dst, .. } = self.original;
        (!self.translated).then_some((src.0, dst.0))
    }

    /// What the table shall say. It is the kernel's flow, whether it is translated or not.
    pub(super) fn flags(&self) -> FlowFlags {
        let flags = FlowFlags::VIA_STACK;
        match self.tcp_state {
            Some(ESTABLISHED) => flags.with(FlowFlags::ANSWERED),
            // Which end has sent FIN is not told; this is the one sign of an end that is neither's.
            Some(state) if CLOSING.contains(&state) => {
                flags.with(FlowFlags::ANSWERED).with(FlowFlags::DOUBTED)
            }
            Some(_) | None => flags,
        }
    }

    /// `None`: neither translated nor answered, over, or nothing that the programs handle.
    fn read(attributes: &[u8]) -> Result<Option<Self>, DecodeError> {
        let (mut original, mut reply) = (None, None);
        let (mut status, mut state) = (0, None);
        for attribute in NlasIterator::new(attributes) {
            let attribute = attribute?;
            let value = attribute.value();
            match attribute.kind() {
                CTA_TUPLE_ORIG => original = Tuple::read(value)?,
                CTA_TUPLE_REPLY => reply = Tuple::read(value)?,
                CTA_STATUS => status = u32::from_be_bytes(exactly(value)?),
                CTA_PROTOINFO => state = tcp_state(value)?,
                _ => {}
            }
        }
        let goes_on = !state.is_some_and(|state| OVER.contains(&state));
        Ok(match (original, reply) {
            (Some(original), Some(reply)) if goes_on && status & (TRANSLATED | ANSWERED) != 0 => {
                Some(Self {
                    original,
                    reply,
                    translated: status & TRANSLATED != 0,
                    tcp_state: state,
                })
            }
            _ => None,
        })
    }
}

impl Tuple {
    /// `None`: not IPv4, or a protocol that the programs leave to the stack.
    fn read(tuple: &[u8]) -> Result<Option<Self>, DecodeError> {
        let (mut src, mut dst) = (None, None);
        let mut ports = (Port::NONE, Port::NONE);
        let (mut number, mut echo) = (0, false);
        for part in NlasIterator::new(tuple) {
            let part = part?;
            for attribute in NlasIterator::new(part.value()) {
                let attribute = attribute?;
                let value = attribute.value();
                match (part.kind(), attribute.kind()) {
                    (CTA_TUPLE_IP, CTA_IP_V4_SRC) => src = Some(Ip4::new(exactly(value)?)),
                    (CTA_TUPLE_IP, CTA_IP_V4_DST) => dst = Some(Ip4::new(exactly(value)?)),
                    (CTA_TUPLE_PROTO, CTA_PROTO_NUM) => [number] = exactly(value)?,
                    (CTA_TUPLE_PROTO, CTA_PROTO_SRC_PORT) => ports.0 = Port::new(exactly(value)?),
                    (CTA_TUPLE_PROTO, CTA_PROTO_DST_PORT) => ports.1 = Port::new(exactly(value)?),
                    (CTA_TUPLE_PROTO, CTA_PROTO_ICMP_ID) => {
                        let id = Port::new(exactly(value)?);
                        ports = (id, id);
                    }
                    (CTA_TUPLE_PROTO, CTA_PROTO_ICMP_TYPE) => {
                        echo = value.iter().all(|kind| ECHO.contains(kind));
                    }
                    _ => {}
                }
            }
        }
        let handled = match number {
            proto::TCP | proto::UDP => true,
            proto::ICMP => echo,
            _ => false,
        };
        Ok(src.zip(dst).filter(|_| handled).map(|(src, dst)| Self {
            src: (src, ports.0),
            dst: (dst, ports.1),
            proto: number,
        }))
    }
}

fn tcp_state(info: &[u8]) -> Result<Option<u8>, DecodeError> {
    let mut state = None;
    for part in NlasIterator::new(info) {
        let part = part?;
        for attribute in NlasIterator::new(part.value()) {
            let attribute = attribute?;
            if (part.kind(), attribute.kind()) == (CTA_PROTOINFO_TCP, CTA_PROTOINFO_TCP_STATE) {
                let [value] = exactly(attribute.value())?;
                state = Some(value);
            }
        }
    }
    Ok(state)
}

fn exactly<const N: usize>(value: &[u8]) -> Result<[u8; N], DecodeError> {
    let bytes = value.try_into().ok();
    bytes.ok_or_else(|| DecodeError::from(format!("{} bytes instead of {N}", value.len())))
}

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        match self {
            Self::Ask => GET,
            Self::Entry(_) | Self::Other => ENTRY,
        }
    }

    fn buffer_len(&self) -> usize {
        GENERIC.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        buffer.copy_from_slice(&GENERIC);
    }
}

impl NetlinkDeserializable for Message {
    type Error = DecodeError;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        if header.message_type != ENTRY {
            return Ok(Self::Other);
        }
        let entry = Entry::read(payload.get(GENERIC.len()..).unwrap_or_default())?;
        Ok(entry.map_or(Self::Other, Self::Entry))
    }
}

impl From<Message> for NetlinkPayload<Message> {
    fn from(message: Message) -> Self {
        Self::InnerMessage(message)
    }
}

#[cfg(test)]
mod tests;
