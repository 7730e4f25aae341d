//! Which interfaces are down, and which have other settings than a pod's veth needs? One dump instead of three files for each.

use std::collections::BTreeSet;
use std::io;

use rtnetlink::packet_core::{
    DecodeError, NetlinkDeserializable, NetlinkHeader, NetlinkPayload, NetlinkSerializable,
    NlasIterator,
};
use rtnetlink::sys::protocols::NETLINK_ROUTE;

/// `RTM_NEWLINK` and `RTM_GETLINK` of `linux/rtnetlink.h`.
const NEW: u16 = 16;
const GET: u16 = 18;
/// Bytes of a `struct ifinfomsg`; the index is the four from the fifth on, the flags are the next four.
const IFINFO: usize = 16;
/// `IFF_UP`.
const UP: u32 = 1;
/// The attribute `IFLA_EXT_MASK` with `RTEXT_FILTER_SKIP_STATS`: counters are most of an answer, and not asked for.
const EXT_MASK: u16 = 29;
const EXT_MASK_LENGTH: u16 = 8;
const SKIP_STATISTICS: u32 = 1 << 3;
/// `IFLA_AF_SPEC`, and in it a nest for each address family, with an array of the settings.
const AF_SPEC: u16 = 26;
const AF_INET: u16 = 2;
const INET_CONF: u16 = 1;
const AF_INET6: u16 = 10;
const INET6_CONF: u16 = 2;

/// What a host veth needs (`sysctls::Interfaces::ensure_veth`), `forwarding` and `accept_redirects`: place in the array, which is
/// one less than in `linux/ip.h`, and value.
const INET: [(usize, u32); 2] = [(0, 1), (3, 0)];
/// `disable_ipv6`; place as in `linux/ipv6.h`.
const INET6: [(usize, u32); 1] = [(26, 1)];

/// Interfaces of our network namespace, by index.
#[derive(Debug, Default)]
pub(crate) struct Devices {
    /// They are down.
    pub(crate) down: BTreeSet<u32>,
    /// Their settings are not those that a host veth needs.
    pub(crate) differing: BTreeSet<u32>,
}

impl Devices {
    /// As they are now.
    pub(crate) fn take() -> io::Result<Self> {
        let mut look = Self::default();
        hooks::dump(NETLINK_ROUTE, Message::Ask, |answer| {
            if let Message::Link(link) = answer {
                look.down.extend((!link.is_up).then_some(link.index));
                look.differing.extend(link.differs.then_some(link.index));
            }
            io::Result::Ok(())
        })?;
        Ok(look)
    }
}

/// The question, and what is read of an answer.
enum Message {
    Ask,
    Link(Link),
    Other,
}

struct Link {
    index: u32,
    is_up: bool,
    differs: bool,
}

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        match self {
            Self::Ask => GET,
            Self::Link(_) | Self::Other => NEW,
        }
    }

    fn buffer_len(&self) -> usize {
        IFINFO + usize::from(EXT_MASK_LENGTH)
    }

    fn serialize(&self, buffer: &mut [u8]) {
        let (head, mask) = buffer.split_at_mut(IFINFO);
        head.fill(0);
        let head_of_mask = [EXT_MASK_LENGTH, EXT_MASK].map(u16::to_ne_bytes);
        let value = SKIP_STATISTICS.to_ne_bytes();
        mask.copy_from_slice(&[head_of_mask.as_flattened(), &value].concat());
    }
}

impl NetlinkDeserializable for Message {
    type Error = DecodeError;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        if header.message_type != NEW {
            return Ok(Self::Other);
        }
        let Some((head, attributes)) = payload.split_first_chunk::<IFINFO>() else {
            return Ok(Self::Other);
        };
        let [_, index, flags, _] = head.as_chunks::<4>().0 else {
            return Ok(Self::Other);
        };
        Ok(Self::Link(Link {
            index: u32::from_ne_bytes(*index),
            is_up: u32::from_ne_bytes(*flags) & UP != 0,
            differs: differs(attributes)?,
        }))
    }
}

/// A family that the interface or the kernel has not has nothing to differ.
fn differs(attributes: &[u8]) -> Result<bool, DecodeError> {
    for attribute in NlasIterator::new(attributes) {
        let attribute = attribute?;
        if attribute.kind() != AF_SPEC {
            continue;
        }
        for family in NlasIterator::new(attribute.value()) {
            let family = family?;
            let (conf, needed) = match family.kind() {
                AF_INET => (INET_CONF, INET.as_slice()),
                AF_INET6 => (INET6_CONF, INET6.as_slice()),
                _ => continue,
            };
            for settings in NlasIterator::new(family.value()) {
                let settings = settings?;
                let (values, _) = settings.value().as_chunks::<4>();
                let is_so = |(place, value): &(usize, u32)| {
                    values.get(*place) == Some(&value.to_ne_bytes())
                };
                if settings.kind() == conf && !needed.iter().all(is_so) {
                    return Ok(true);
                }
            }
        }
    }
    Ok(false)
}

impl From<Message> for NetlinkPayload<Message> {
    fn from(message: Message) -> Self {
        Self::InnerMessage(message)
    }
}
