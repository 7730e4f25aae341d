//! What we ask the kernel.

use std::net::{IpAddr, Ipv4Addr};

use futures_util::TryStreamExt as _;
use ipnet::Ipv4Net;
use rpc::MacAddr;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::LinkMessage;
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use rtnetlink::packet_route::rule::{RuleAttribute, RuleMessage};
use rtnetlink::{IpVersion, RouteMessageBuilder};

use super::{Link, LinkError, Netlink, read};

/// A unicast route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    /// `0.0.0.0/0` for the default route.
    pub(crate) destination: Ipv4Net,
    pub(crate) gateway: Option<Ipv4Addr>,
    /// Index of the output interface.
    pub(crate) link: Option<u32>,
}

impl Route {
    /// To everywhere.
    pub(crate) fn is_default(&self) -> bool {
        self.destination.prefix_len() == 0
    }
}

impl Netlink {
    /// The link of that name, if there is one.
    pub(crate) fn find(&self, name: &str) -> Result<Option<Link>, LinkError> {
        let mut answer = Box::pin(self.handle.link().get().match_name(name).execute());
        match self.run(|| format!("look for {name}"), answer.try_next()) {
            Ok(message) => Ok(message.as_ref().and_then(read)),
            Err(error) if error.is_no_such_link() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The links with this Ethernet address.
    pub(crate) fn with_mac(&self, mac: MacAddr) -> Result<Vec<Link>, LinkError> {
        let request = self.handle.link().get().execute();
        let messages: Vec<LinkMessage> =
            self.run(|| "list the links".to_owned(), request.try_collect())?;
        let links = messages.iter().filter_map(read);
        Ok(links.filter(|link| link.mac == Some(mac)).collect())
    }

    /// The IPv4 addresses of a link.
    pub(crate) fn addresses(&self, link: &Link) -> Result<Vec<Ipv4Net>, LinkError> {
        let request = self
            .handle
            .address()
            .get()
            .set_link_index_filter(link.index)
            .execute();
        let messages: Vec<AddressMessage> = self.run(
            || format!("list the addresses of {}", link.name),
            request.try_collect(),
        )?;
        Ok(messages.iter().filter_map(address).collect())
    }

    /// The IPv4 routes of every table.
    pub(crate) fn routes(&self) -> Result<Vec<Route>, LinkError> {
        let request = self
            .handle
            .route()
            .get(RouteMessageBuilder::<Ipv4Addr>::new().build())
            .execute();
        let messages: Vec<RouteMessage> =
            self.run(|| "list the routes".into(), request.try_collect())?;
        Ok(messages.iter().filter_map(route).collect())
    }

    /// Whether packets from `source` use `table`.
    pub(crate) fn has_source_rule(&self, source: Ipv4Addr, table: u32) -> Result<bool, LinkError> {
        let request = self.handle.rule().get(IpVersion::V4).execute();
        let rules: Vec<RuleMessage> =
            self.run(|| "list the rules".into(), request.try_collect())?;
        let wanted = [
            RuleAttribute::Source(source.into()),
            RuleAttribute::Table(table),
        ];
        Ok(rules.iter().any(|rule| {
            let has = |one| rule.attributes.contains(one);
            rule.header.src_len == 32 && wanted.iter().all(has)
        }))
    }

    /// The Ethernet address of a permanent IPv4 neighbour on `link`.
    pub(crate) fn permanent_neighbour(
        &self,
        link: &Link,
        of: Ipv4Addr,
    ) -> Result<Option<MacAddr>, LinkError> {
        let request = self
            .handle
            .neighbours()
            .get()
            .set_address_family(AddressFamily::Inet)
            .execute();
        let messages: Vec<NeighbourMessage> = self.run(
            || format!("list the neighbours on {}", link.name),
            request.try_collect(),
        )?;
        Ok(messages
            .iter()
            .filter(|message| {
                message.header.ifindex == link.index
                    && message.header.state == NeighbourState::Permanent
            })
            .find_map(|message| neighbour(message, of)))
    }
}

fn address(message: &AddressMessage) -> Option<Ipv4Net> {
    if message.header.family != AddressFamily::Inet {
        return None;
    }
    message.attributes.iter().find_map(|attribute| {
        if let AddressAttribute::Local(IpAddr::V4(local)) = attribute {
            Ipv4Net::new(*local, message.header.prefix_len).ok()
        } else {
            None
        }
    })
}

fn route(message: &RouteMessage) -> Option<Route> {
    if message.header.kind != RouteType::Unicast {
        return None;
    }
    let mut destination = Ipv4Addr::UNSPECIFIED;
    let mut gateway = None;
    let mut link = None;
    for attribute in &message.attributes {
        if let RouteAttribute::Destination(RouteAddress::Inet(address)) = attribute {
            destination = *address;
        } else if let RouteAttribute::Gateway(RouteAddress::Inet(address)) = attribute {
            gateway = Some(*address);
        } else if let RouteAttribute::Oif(index) = attribute {
            link = Some(*index);
        }
    }
    Some(Route {
        destination: Ipv4Net::new(destination, message.header.destination_prefix_length).ok()?,
        gateway,
        link,
    })
}

fn neighbour(message: &NeighbourMessage, of: Ipv4Addr) -> Option<MacAddr> {
    let mut found = false;
    let mut mac = None;
    for attribute in &message.attributes {
        if let NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) = attribute {
            found = *address == of;
        } else if let NeighbourAttribute::LinkLayerAddress(bytes) = attribute {
            mac = bytes.as_slice().try_into().ok().map(MacAddr);
        }
    }
    mac.filter(|_| found)
}
