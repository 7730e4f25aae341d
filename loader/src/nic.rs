//! Which NIC is ours, and what the kernel says of the node's interfaces and addresses.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;

use futures_util::TryStreamExt as _;
use ipnet::Ipv4Net;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkExtentMask, LinkMessage};
use netlink_packet_route::route::RouteMessage;
use netlink_packet_route::rule::RuleMessage;
use rpc::{MacAddr, NodeView};
use rtnetlink::{Handle, IpVersion, RouteMessageBuilder};
use rustix::net::netdevice::index_to_name;
use rustix::net::{SocketFlags, SocketType, socket_with};

use crate::routes::{NextHops, Routes};

/// Names of pods' host veths begin so.
const HOST_VETH_PREFIX: &str = "azv";

/// Whether the interface is a pod's.
pub(crate) fn is_host_veth(name: &str) -> bool {
    name.starts_with(HOST_VETH_PREFIX)
}

/// What the kernel says of this network namespace.
#[derive(Clone, Debug)]
pub struct Node {
    /// The NIC that pods' traffic uses.
    pub nic: NodeView,
    /// The NIC's default gateway.
    pub gateway: Option<Ipv4Addr>,
    /// The next hops of all that leaves by the NIC, if the routes are simple enough to say.
    pub next_hops: Option<NextHops>,
    /// Its connected prefixes.
    pub connected: Vec<Ipv4Net>,
    /// Destinations that the main routing table sends to another interface than the NIC, pods' own left out.
    pub elsewhere: Vec<Ipv4Net>,
    /// Every address of the node, on whatever interface.
    pub addresses: Vec<Ipv4Addr>,
    /// Every interface with an Ethernet address: (index, name, address).
    pub interfaces: Vec<Link>,
}

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Index.
    pub index: u32,
    /// Name.
    pub name: String,
    /// Ethernet address.
    pub mac: MacAddr,
    /// MTU in bytes.
    pub mtu: u32,
}

/// The NIC cannot be found.
#[derive(Debug, thiserror::Error)]
pub enum NicError {
    /// Netlink does not answer.
    #[error("ask the kernel for its {what}: {source}")]
    Netlink {
        /// What was asked for.
        what: &'static str,
        /// The system's reason.
        source: rtnetlink::Error,
    },
    /// There is no connection to netlink.
    #[error("open a netlink socket: {0}")]
    Socket(#[from] io::Error),
    /// No default route.
    #[error(
        "find the NIC: there is no IPv4 default route; wait for the network, or name the NIC with `nic:` in loader.yaml"
    )]
    NoDefaultRoute,
    /// `nic:` names no interface.
    #[error(
        "find the NIC: there is no interface `{name}`; correct `nic:` in loader.yaml (interfaces: {known})"
    )]
    NoSuchInterface {
        /// The configured name.
        name: String,
        /// The names that exist.
        known: String,
    },
    /// The NIC has no address.
    #[error(
        "find the primary address: {nic} has no IPv4 address; wait for DHCP, or name another NIC with `nic:` in loader.yaml"
    )]
    NoAddress {
        /// The NIC.
        nic: String,
    },
}

/// Reads links, addresses and routes; `wanted` is the configured NIC, else the default route decides.
pub async fn discover(wanted: Option<&str>) -> Result<Node, NicError> {
    let (connection, handle, _messages) = rtnetlink::new_connection()?;
    let connection = tokio::spawn(connection);
    let node = read(&handle, wanted).await;
    connection.abort();
    node
}

async fn read(handle: &Handle, wanted: Option<&str>) -> Result<Node, NicError> {
    let netlink = |what| move |source| NicError::Netlink { what, source };
    // Counters are most of an answer.
    let without_counters = vec![LinkExtentMask::SkipStats];
    let links: Vec<LinkMessage> = handle
        .link()
        .get()
        .set_filter_mask(AddressFamily::Unspec, without_counters)
        .execute()
        .try_collect()
        .await
        .map_err(netlink("links"))?;
    let addresses: Vec<AddressMessage> = handle
        .address()
        .get()
        .execute()
        .try_collect()
        .await
        .map_err(netlink("addresses"))?;

    let interfaces: Vec<Link> = links.iter().filter_map(link).collect();
    let query = RouteMessageBuilder::<Ipv4Addr>::new().build();
    let routes: Vec<RouteMessage> = handle
        .route()
        .get(query)
        .execute()
        .try_collect()
        .await
        .map_err(netlink("routes"))?;
    let routes = Routes::of(&routes, &rules(handle).await?);
    let nic = if let Some(name) = wanted {
        interfaces
            .iter()
            .find(|link| link.name == name)
            .ok_or_else(|| no_such(name, &interfaces))?
    } else {
        let index = routes.default_interface().ok_or(NicError::NoDefaultRoute)?;
        interfaces
            .iter()
            .find(|link| link.index == index)
            .ok_or(NicError::NoDefaultRoute)?
    };

    let own: Vec<&AddressMessage> = addresses
        .iter()
        .filter(|message| message.header.index == nic.index)
        .collect();
    let (primary, _) = own
        .iter()
        .filter(|message| !message.header.flags.contains(AddressHeaderFlags::Secondary))
        .find_map(|message| ipv4(message))
        .ok_or_else(|| NicError::NoAddress {
            nic: nic.name.clone(),
        })?;

    let connected: Vec<Ipv4Net> = own
        .iter()
        .filter_map(|message| ipv4(message))
        .filter_map(|(addr, len)| prefix(addr, len))
        .collect();
    Ok(Node {
        nic: NodeView {
            nic: nic.name.clone(),
            nic_ifindex: nic.index,
            nic_mac: nic.mac,
            mtu: nic.mtu,
            primary,
        },
        gateway: routes.gateway(nic.index),
        next_hops: routes.next_hops(nic.index, &connected),
        connected,
        addresses: addresses
            .iter()
            .filter_map(ipv4)
            .map(|(addr, _)| addr)
            .collect(),
        elsewhere: routes.elsewhere(nic.index, &interfaces),
        interfaces,
    })
}

/// The routing rules; none where the kernel is built without policy routing.
async fn rules(handle: &Handle) -> Result<Vec<RuleMessage>, NicError> {
    let told = handle.rule().get(IpVersion::V4).execute();
    match told.try_collect().await {
        Err(rtnetlink::Error::NetlinkError(error))
            if [nix::libc::EOPNOTSUPP, nix::libc::EAFNOSUPPORT].contains(&-error.raw_code()) =>
        {
            Ok(Vec::new())
        }
        told => told.map_err(|source| NicError::Netlink {
            what: "routing rules",
            source,
        }),
    }
}

fn no_such(name: &str, interfaces: &[Link]) -> NicError {
    let known: Vec<&str> = interfaces.iter().map(|link| link.name.as_str()).collect();
    NicError::NoSuchInterface {
        name: name.to_owned(),
        known: known.join(", "),
    }
}

fn link(message: &LinkMessage) -> Option<Link> {
    let mut found = Link {
        index: message.header.index,
        name: String::new(),
        mac: MacAddr([0; 6]),
        mtu: 0,
    };
    let mut has_mac = false;
    for attribute in &message.attributes {
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "the kernel tells a hundred other things"
        )]
        match attribute {
            LinkAttribute::IfName(name) => found.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => found.mtu = *mtu,
            LinkAttribute::Address(bytes) => {
                if let Some(mac) = bytes
                    .as_slice()
                    .try_into()
                    .ok()
                    .filter(|mac| *mac != [0; 6])
                {
                    found.mac = MacAddr(mac);
                    has_mac = true;
                }
            }
            _ => {}
        }
    }
    has_mac.then_some(found)
}

/// Address and prefix length.
fn ipv4(message: &AddressMessage) -> Option<(Ipv4Addr, u8)> {
    if message.header.family != AddressFamily::Inet {
        return None;
    }
    message.attributes.iter().find_map(|attribute| {
        let AddressAttribute::Local(IpAddr::V4(addr)) = attribute else {
            return None;
        };
        Some((*addr, message.header.prefix_len))
    })
}

pub(crate) fn prefix(addr: Ipv4Addr, len: u8) -> Option<Ipv4Net> {
    Ipv4Net::new(addr, len).ok().map(|net| net.trunc())
}

/// Names of the interfaces of our network namespace, by index. One socket for many questions: making one costs a dozen times
/// what an answer does.
pub(crate) struct Names(io::Result<OwnedFd>);

impl Names {
    /// To be opened for one look.
    pub(crate) fn open() -> Self {
        let (flags, none) = (SocketFlags::CLOEXEC, None);
        let socket = socket_with(
            rustix::net::AddressFamily::UNIX,
            SocketType::DGRAM,
            flags,
            none,
        );
        Self(socket.map_err(Into::into))
    }

    /// `None`: there is no such interface, or nobody can tell.
    pub(crate) fn of(&self, index: u32) -> Option<String> {
        index_to_name(self.0.as_ref().ok()?, index).ok()
    }

    /// Whether the kernel says that there is no such interface. A loader that is out of descriptors takes no pod for gone.
    pub(crate) fn lacks(&self, index: u32) -> bool {
        let socket = self.0.as_ref().ok();
        socket.is_some_and(|socket| index_to_name(socket, index).is_err())
    }
}

/// Name of the interface with this index in our network namespace.
pub fn ifname(index: u32) -> Option<String> {
    Names::open().of(index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_without_an_interface_has_no_name() {
        assert_eq!(ifname(1).as_deref(), Some("lo"));
        assert_eq!(ifname(i32::MAX.unsigned_abs()), None);
    }
}
