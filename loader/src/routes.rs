//! What do the node's routes say: which interface is the NIC, what lies behind other interfaces, and are they so simple that
//! the programs need not ask the kernel for the next hop of every packet?

use std::net::Ipv4Addr;

use abi::Ip4;
use ipnet::Ipv4Net;
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use netlink_packet_route::rule::{RuleAttribute, RuleMessage};

use crate::nic::{Link, is_host_veth, prefix};
use crate::tunnel;

/// The next hops of all that leaves by the NIC: an address of the subnet is its own, everything else goes to the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHops {
    /// The gateway.
    pub gateway: Ipv4Addr,
    /// The NIC's only connected prefix.
    pub subnet: Ipv4Net,
}

/// A route of the main table.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Route {
    destination: Ipv4Net,
    metric: u32,
    /// Index of the interface; of a multipath route, that of the first next hop.
    interface: u32,
    gateway: Option<Ipv4Addr>,
}

/// The main table's routes to interfaces.
#[derive(Clone, Debug, Default)]
pub(crate) struct Routes {
    main: Vec<Route>,
    /// Nothing but these routes decides: no policy routing, no route that rejects, divides or encapsulates.
    plain: bool,
}

impl Routes {
    /// From all routes and routing rules of the network namespace.
    pub(crate) fn of(routes: &[RouteMessage], rules: &[RuleMessage]) -> Self {
        let main = routes.iter().filter(|route| table(route) == MAIN);
        Self {
            plain: rules.iter().all(is_plain_rule) && main.clone().all(is_plain_route),
            main: main.filter_map(main_route).collect(),
        }
    }

    /// The interface of the default route with the lowest metric.
    pub(crate) fn default_interface(&self) -> Option<u32> {
        let defaults = self.main.iter().filter(|route| route.is_default());
        defaults
            .min_by_key(|route| (route.metric, route.interface))
            .map(|route| route.interface)
    }

    /// The gateway of the NIC's default route with the lowest metric.
    pub(crate) fn gateway(&self, nic: u32) -> Option<Ipv4Addr> {
        let defaults = self.over(nic).filter(|route| route.is_default());
        defaults.min_by_key(|route| route.metric)?.gateway
    }

    /// The next hops of all that leaves by the NIC, if its routes name one gateway and one subnet and no others.
    pub(crate) fn next_hops(&self, nic: u32, connected: &[Ipv4Net]) -> Option<NextHops> {
        let (gateway, subnet) = (self.gateway(nic)?, *connected.first()?);
        let one_subnet = connected.iter().all(|other| *other == subnet);
        let is_usual = |route: &Route| match route.gateway {
            Some(hop) => hop == gateway,
            None => route.destination == subnet,
        };
        let usual = self.plain && one_subnet && self.over(nic).all(is_usual);
        usual.then_some(NextHops { gateway, subnet })
    }

    /// What the node reaches by another interface than the NIC: containers of another runtime, tunnels. Pods are known
    /// otherwise.
    pub(crate) fn elsewhere(&self, nic: u32, interfaces: &[Link]) -> Vec<Ipv4Net> {
        let is_pod = |index: u32| {
            interfaces
                .iter()
                .any(|link| link.index == index && is_host_veth(&link.name))
        };
        let others = self
            .main
            .iter()
            .filter(|route| route.interface != nic && !is_pod(route.interface));
        others
            .filter(|route| !route.is_default())
            .map(|route| route.destination)
            .collect()
    }

    fn over(&self, nic: u32) -> impl Iterator<Item = &Route> {
        self.main.iter().filter(move |route| route.interface == nic)
    }
}

impl Route {
    fn is_default(&self) -> bool {
        self.destination.prefix_len() == 0
    }
}

impl NextHops {
    /// As the programs read them; without any, they ask the kernel.
    pub(crate) fn for_programs(hops: Option<Self>) -> (Ip4, Ip4, u16) {
        hops.map_or((Ip4::UNSPECIFIED, Ip4::UNSPECIFIED, 0), |hops| {
            let len = u16::from(hops.subnet.prefix_len());
            (hops.gateway.into(), hops.subnet.network().into(), len)
        })
    }
}

/// The tables of the rules that every node has (`linux/rtnetlink.h`).
const LOCAL: u32 = 255;
const MAIN: u32 = 254;
const DEFAULT: u32 = 253;

fn table(message: &RouteMessage) -> u32 {
    let told = message.attributes.iter().find_map(|attribute| {
        let RouteAttribute::Table(number) = attribute else {
            return None;
        };
        Some(*number)
    });
    told.unwrap_or_else(|| message.header.table.into())
}

/// One next hop, and nothing else happens to the packet.
fn is_plain_route(message: &RouteMessage) -> bool {
    let is_odd = |attribute: &RouteAttribute| {
        matches!(
            attribute,
            RouteAttribute::MultiPath(_)
                | RouteAttribute::EncapType(_)
                | RouteAttribute::Encap(_)
                | RouteAttribute::Via(_)
        )
    };
    message.header.kind == RouteType::Unicast && !message.attributes.iter().any(is_odd)
}

/// The rules that every node has, for all packets to the tables local, main and default; and ours, which is for packets of the
/// stack.
fn is_plain_rule(rule: &RuleMessage) -> bool {
    let told = rule.attributes.iter().find_map(|attribute| {
        let RuleAttribute::Table(number) = attribute else {
            return None;
        };
        Some(*number)
    });
    let header = &rule.header;
    let table = told.unwrap_or_else(|| header.table.into());
    let selects = header.dst_len > 0
        || header.src_len > 0
        || header.tos > 0
        || rule.attributes.iter().any(|attribute| {
            !matches!(
                attribute,
                RuleAttribute::Table(_)
                    | RuleAttribute::Priority(_)
                    | RuleAttribute::Protocol(_)
                    | RuleAttribute::SuppressPrefixLen(u32::MAX)
            )
        });
    table == tunnel::TABLE || (!selects && [LOCAL, MAIN, DEFAULT].contains(&table))
}

/// `None`: without an interface, or not unicast.
fn main_route(message: &RouteMessage) -> Option<Route> {
    let (mut metric, mut interface, mut destination) = (0, None, Ipv4Addr::UNSPECIFIED);
    let mut gateway = None;
    for attribute in &message.attributes {
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "the kernel tells many other things"
        )]
        match attribute {
            RouteAttribute::Priority(priority) => metric = *priority,
            RouteAttribute::Oif(index) => interface = Some(*index),
            RouteAttribute::MultiPath(hops) => {
                interface = hops.first().map(|hop| hop.interface_index);
            }
            RouteAttribute::Gateway(RouteAddress::Inet(addr)) => gateway = Some(*addr),
            RouteAttribute::Destination(RouteAddress::Inet(addr)) => destination = *addr,
            _ => {}
        }
    }
    let is_unicast = message.header.kind == RouteType::Unicast;
    let destination = prefix(destination, message.header.destination_prefix_length)?;
    interface.filter(|_| is_unicast).map(|interface| Route {
        destination,
        metric,
        interface,
        gateway,
    })
}

#[cfg(test)]
mod tests {
    use rpc::MacAddr;

    use super::*;

    const NIC: u32 = 2;

    fn route(destination: &str, interface: u32, metric: u32) -> Route {
        Route {
            destination: destination.parse().unwrap(),
            gateway: None,
            metric,
            interface,
        }
    }

    fn via(destination: &str, gateway: [u8; 4]) -> Route {
        Route {
            gateway: Some(gateway.into()),
            ..route(destination, NIC, 0)
        }
    }

    fn routes(main: impl IntoIterator<Item = Route>) -> Routes {
        Routes {
            main: main.into_iter().collect(),
            plain: true,
        }
    }

    #[test]
    fn the_default_route_with_the_lowest_metric_names_the_nic() {
        let several = routes([
            route("0.0.0.0/0", 3, 100),
            route("0.0.0.0/0", 2, 50),
            route("10.0.0.0/8", 4, 0),
        ]);
        assert_eq!(several.default_interface(), Some(2));
        assert_eq!(routes([]).default_interface(), None);
    }

    #[test]
    fn what_other_interfaces_reach_is_elsewhere_and_pods_are_not() {
        let link = |index, name: &str| Link {
            index,
            name: name.into(),
            mac: MacAddr([0; 6]),
            mtu: 1500,
        };
        let interfaces = [link(2, "eth0"), link(3, "docker0"), link(9, "azv123")];
        let routes = routes([
            route("0.0.0.0/0", 2, 0),
            route("10.240.0.0/16", 2, 0),
            route("172.17.0.0/16", 3, 0),
            route("10.240.1.10/32", 9, 0),
            route("198.51.100.0/24", 7, 0),
        ]);
        let elsewhere = routes.elsewhere(NIC, &interfaces);
        let elsewhere: Vec<String> = elsewhere.iter().map(ToString::to_string).collect();
        assert_eq!(elsewhere, ["172.17.0.0/16", "198.51.100.0/24"]);
    }

    #[test]
    fn the_next_hops_are_told_when_there_is_one_gateway_and_one_subnet_and_not_otherwise() {
        const GATEWAY: [u8; 4] = [10, 240, 0, 1];
        let subnet: Ipv4Net = "10.240.0.0/16".parse().unwrap();
        let other: Ipv4Net = "10.241.0.0/16".parse().unwrap();
        let azure = || {
            routes([
                via("0.0.0.0/0", GATEWAY),
                route("10.240.0.0/16", NIC, 0),
                via("168.63.129.16/32", GATEWAY),
                via("169.254.169.254/32", GATEWAY),
                route("172.17.0.0/16", 3, 0),
                route("10.240.1.10/32", 9, 0),
            ])
        };
        let told = NextHops {
            gateway: GATEWAY.into(),
            subnet,
        };
        assert_eq!(azure().next_hops(NIC, &[subnet, subnet]), Some(told));
        assert_eq!(azure().next_hops(NIC, &[subnet, other]), None);
        assert_eq!(azure().next_hops(3, &[subnet]), None, "no gateway there");
        let policy = Routes {
            plain: false,
            ..azure()
        };
        assert_eq!(policy.next_hops(NIC, &[subnet]), None);
        for odd in [
            via("10.50.0.0/16", [10, 240, 0, 9]),
            route("198.51.100.0/24", NIC, 0),
        ] {
            let mut routes = azure();
            routes.main.push(odd.clone());
            assert_eq!(routes.next_hops(NIC, &[subnet]), None, "{odd:?}");
        }
    }

    #[test]
    fn a_rule_that_selects_or_leads_elsewhere_is_policy_routing() {
        let rule = |table: u8, attributes: Vec<RuleAttribute>| {
            let mut rule = RuleMessage::default();
            rule.header.table = table;
            rule.attributes = attributes;
            rule
        };
        for table in [253, 254, 255] {
            assert!(is_plain_rule(&rule(
                table,
                vec![RuleAttribute::Priority(7)]
            )));
        }
        assert!(!is_plain_rule(&rule(52, Vec::new())));
        assert!(!is_plain_rule(&rule(254, vec![RuleAttribute::FwMark(1)])));
        let ours = vec![
            RuleAttribute::FwMark(32),
            RuleAttribute::Table(tunnel::TABLE),
        ];
        assert!(is_plain_rule(&rule(0, ours)));
    }

    #[test]
    fn a_route_that_rejects_or_divides_is_not_plain() {
        let mut message = RouteMessage::default();
        message.header.kind = RouteType::Unicast;
        assert!(is_plain_route(&message));
        message.header.kind = RouteType::BlackHole;
        assert!(!is_plain_route(&message));
        message.header.kind = RouteType::Unicast;
        message
            .attributes
            .push(RouteAttribute::MultiPath(Vec::new()));
        assert!(!is_plain_route(&message));
    }
}
