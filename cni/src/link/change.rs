//! What we change in the kernel.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd as _, AsRawFd as _};

use ipnet::Ipv4Net;
use rpc::MacAddr;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags};
use rtnetlink::packet_route::link::{InfoData, InfoKind, InfoVeth};
use rtnetlink::packet_route::route::{RouteMessage, RouteProtocol, RouteScope};
use rtnetlink::packet_route::rule::RuleAction;
use rtnetlink::{LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder, RuleAddRequest};

use super::{Link, LinkError, Netlink};
use crate::netns::Netns;

/// A veth pair with one end in a pod.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pair<'a> {
    pub(crate) host_name: &'a str,
    pub(crate) host_mac: MacAddr,
    pub(crate) pod_name: &'a str,
    pub(crate) pod_mac: MacAddr,
    /// Bytes, of both ends.
    pub(crate) mtu: u32,
}

impl Netlink {
    /// Makes both ends with one message, or nothing; the pod's in `netns`, both down. (The kernel refuses to bring an end up
    /// before it knows the other.)
    pub(crate) fn create_pair(&self, pair: &Pair<'_>, netns: &Netns) -> Result<Link, LinkError> {
        let pod_end = LinkMessageBuilder::<LinkUnspec>::new()
            .name(pair.pod_name)
            .address(pair.pod_mac.0.to_vec())
            .mtu(pair.mtu)
            .setns_by_fd(netns.as_fd().as_raw_fd())
            .build();
        let both = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
            .name(pair.host_name)
            .address(pair.host_mac.0.to_vec())
            .mtu(pair.mtu)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(pod_end)))
            .build();
        self.run(
            || {
                format!(
                    "create the veth pair {} and {} in the pod",
                    pair.host_name, pair.pod_name
                )
            },
            self.handle.link().add(both).execute(),
        )?;
        self.existing(pair.host_name)
    }

    /// The link that must be there.
    pub(crate) fn existing(&self, name: &str) -> Result<Link, LinkError> {
        self.find(name)?.ok_or_else(|| LinkError::Vanished {
            ifname: name.to_owned(),
        })
    }

    /// Deletes a link, and with a veth its other end; routes and neighbours go with it. Gone already is fine.
    pub(crate) fn delete(&self, link: &Link) -> Result<(), LinkError> {
        match self.run(
            || format!("delete {}", link.name),
            self.handle.link().del(link.index).execute(),
        ) {
            Err(error) if error.is_no_such_link() => Ok(()),
            done => done,
        }
    }

    /// Brings a link up.
    pub(crate) fn bring_up(&self, ifname: &str) -> Result<(), LinkError> {
        self.run(
            || format!("bring up {ifname}"),
            self.handle
                .link()
                .set(LinkUnspec::new_with_name(ifname).up().build())
                .execute(),
        )
    }

    /// Adds an address without the route to its subnet.
    pub(crate) fn add_address(&self, link: &Link, address: Ipv4Net) -> Result<(), LinkError> {
        let mut request =
            self.handle
                .address()
                .add(link.index, IpAddr::V4(address.addr()), address.prefix_len());
        request
            .message_mut()
            .attributes
            .push(AddressAttribute::Flags(AddressFlags::Noprefixroute));
        self.run(
            || format!("add address {address} to {}", link.name),
            request.execute(),
        )
    }

    /// Adds a permanent neighbour.
    pub(crate) fn add_neighbour(
        &self,
        link: &Link,
        address: Ipv4Addr,
        mac: MacAddr,
    ) -> Result<(), LinkError> {
        let request = self
            .handle
            .neighbours()
            .add(link.index, IpAddr::V4(address))
            .link_layer_address(&mac.0);
        self.run(
            || format!("add neighbour {address} on {}", link.name),
            request.execute(),
        )
    }

    /// Adds to `table` the route to one address that is directly on `link`.
    pub(crate) fn add_link_route(
        &self,
        link: &Link,
        address: Ipv4Addr,
        table: u32,
    ) -> Result<(), LinkError> {
        let route = onto(link)
            .destination_prefix(address, 32)
            .scope(RouteScope::Link)
            .table_id(table)
            .build();
        self.add_route(&format!("{address} dev {}", link.name), route)
    }

    /// Adds the default route of `table`.
    pub(crate) fn add_default_route(
        &self,
        link: &Link,
        gateway: Ipv4Addr,
        table: u32,
    ) -> Result<(), LinkError> {
        let route = onto(link).gateway(gateway).table_id(table).build();
        self.add_route(&format!("default via {gateway} dev {}", link.name), route)
    }

    /// Makes packets from `source` use `table`. The rule may be left from an attachment of the same address.
    pub(crate) fn add_source_rule(&self, source: Ipv4Addr, table: u32) -> Result<(), LinkError> {
        match self.run(
            || format!("add rule from {source} table {table}"),
            self.source_rule(source, table).execute(),
        ) {
            Err(error) if error.exists() => Ok(()),
            done => done,
        }
    }

    /// Takes such a rule away.
    pub(crate) fn remove_source_rule(&self, source: Ipv4Addr, table: u32) -> Result<(), LinkError> {
        let rule = self.source_rule(source, table).message_mut().clone();
        self.run(
            || format!("remove rule from {source} table {table}"),
            self.handle.rule().del(rule).execute(),
        )
    }

    fn source_rule(&self, source: Ipv4Addr, table: u32) -> RuleAddRequest<Ipv4Addr> {
        let rule = self.handle.rule().add().v4();
        rule.source_prefix(source, 32)
            .table_id(table)
            .action(RuleAction::ToTable)
    }

    fn add_route(&self, what: &str, route: RouteMessage) -> Result<(), LinkError> {
        self.run(
            || format!("add route {what}"),
            self.handle.route().add(route).execute(),
        )
    }
}

fn onto(link: &Link) -> RouteMessageBuilder<Ipv4Addr> {
    RouteMessageBuilder::<Ipv4Addr>::new()
        .output_interface(link.index)
        .protocol(RouteProtocol::Static)
}
