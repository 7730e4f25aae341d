//! What happens to a packet because of its destination: the table of `datapath.md`, "Class of a destination", as
//! prefixes.
//!
//! The table's first match must win, the kernel's LPM trie lets the longest prefix win. So rules are taken in the
//! table's order, and a later rule that lies wholly inside an earlier one is left out.

use std::net::Ipv4Addr;

use abi::Class;
use ipnet::Ipv4Net;
use rpc::{ClassView, Pools};

use crate::config::{Config, Imds};
use crate::nic::Node;

/// Azure's platform address: DNS, DHCP, health probes, and the wireserver.
pub const WIRESERVER: Ipv4Addr = Ipv4Addr::new(168, 63, 129, 16);
/// The instance metadata service.
pub const IMDS: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

/// One prefix of `dst4`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The prefix.
    pub prefix: Ipv4Net,
    /// Its class.
    pub class: Class,
    /// Whether the kernel's fallback masquerades what takes the stack to it.
    pub masquerade: bool,
    /// Where the rule comes from.
    pub why: &'static str,
}

impl From<&Rule> for ClassView {
    fn from(rule: &Rule) -> Self {
        Self {
            prefix: rule.prefix,
            class: rule.class.name().to_owned(),
            why: rule.why.to_owned(),
        }
    }
}

/// RFC 1918: what is not masqueraded when nothing at all is configured, as ip-masq-agent has it.
const RFC_1918: [(Ipv4Addr, u8); 3] = [
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
];

/// Other ranges that are not the Internet: RFC 6598, RFC 6890, RFC 2544, and reserved 240/4.
const OTHER_PRIVATE: [(Ipv4Addr, u8); 4] = [
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(240, 0, 0, 0), 4),
];

/// Addresses that a router never forwards, or that are the kernel's business.
const NOT_ROUTED: [(Ipv4Addr, u8, &str); 5] = [
    (Ipv4Addr::UNSPECIFIED, 8, "this network"),
    (Ipv4Addr::new(127, 0, 0, 0), 8, "loopback"),
    (Ipv4Addr::new(169, 254, 0, 0), 16, "link-local"),
    (Ipv4Addr::new(224, 0, 0, 0), 4, "multicast"),
    (Ipv4Addr::BROADCAST, 32, "broadcast"),
];

/// The rules for this node, longest prefix first.
pub fn classify(config: &Config, node: &Node, pools: Option<&Pools>) -> Vec<Rule> {
    let mut rules = Rules::default();
    for &addr in &node.addresses {
        rules.add(host(addr), Class::Stack, false, "address of the node");
    }
    rules.add(
        host(WIRESERVER),
        Class::Wireserver,
        false,
        "Azure platform address",
    );
    let imds = match config.imds {
        Imds::Snat => Class::Snat,
        Imds::Deny => Class::Deny,
    };
    rules.add(host(IMDS), imds, true, "instance metadata service");
    for (addr, len, why) in NOT_ROUTED {
        rules.add(net(addr, len), Class::Stack, false, why);
    }
    // Before the VNet: a Service range that somebody configured inside a VNet prefix must reach kube-proxy.
    for &prefix in &config.service_cidrs {
        rules.add(prefix, Class::Stack, false, "serviceCidrs");
    }
    add_vnet(&mut rules, config, node, pools);

    let services_known = !config.service_cidrs.is_empty();
    let unless_service = |fast| if services_known { fast } else { Class::Stack };
    match &config.non_masquerade_cidrs {
        Some(prefixes) => {
            for &prefix in prefixes {
                rules.add(
                    prefix,
                    unless_service(Class::Direct),
                    false,
                    "nonMasqueradeCIDRs",
                );
            }
            for (addr, len) in RFC_1918 {
                rules.add(
                    net(addr, len),
                    unless_service(Class::Snat),
                    true,
                    "private range",
                );
            }
        }
        None => {
            for (addr, len) in RFC_1918 {
                rules.add(
                    net(addr, len),
                    unless_service(Class::Direct),
                    false,
                    "private range, not masqueraded by default",
                );
            }
        }
    }
    for (addr, len) in OTHER_PRIVATE {
        rules.add(
            net(addr, len),
            unless_service(Class::Snat),
            true,
            "private range",
        );
    }
    rules.add(
        net(Ipv4Addr::UNSPECIFIED, 0),
        Class::Snat,
        true,
        "the Internet",
    );
    rules.into_longest_first()
}

fn add_vnet(rules: &mut Rules, config: &Config, node: &Node, pools: Option<&Pools>) {
    let told = pools
        .iter()
        .flat_map(|pools| &pools.interfaces)
        .flat_map(|interface| &interface.subnets);
    for subnet in told {
        rules.add(
            subnet.prefix.trunc(),
            Class::Direct,
            false,
            "subnet told by the wireserver",
        );
    }
    // Behind the VNet's own subnets, which all of the VM's NICs reach, and before wider prefixes that somebody configured.
    for &prefix in &node.elsewhere {
        rules.add(
            prefix,
            Class::Stack,
            false,
            "routed by another interface of the node",
        );
    }
    for &prefix in &node.connected {
        rules.add(prefix, Class::Direct, false, "subnet of the NIC");
    }
    for &prefix in &config.vnet_cidrs {
        rules.add(prefix, Class::Direct, false, "vnetCidrs");
    }
    for &prefix in &config.direct_cidrs {
        rules.add(prefix, Class::Direct, false, "directCidrs");
    }
}

#[derive(Default)]
struct Rules {
    accepted: Vec<Rule>,
}

impl Rules {
    fn add(&mut self, prefix: Ipv4Net, class: Class, masquerade: bool, why: &'static str) {
        if !self
            .accepted
            .iter()
            .any(|earlier| earlier.prefix.contains(&prefix))
        {
            self.accepted.push(Rule {
                prefix,
                class,
                masquerade,
                why,
            });
        }
    }

    fn into_longest_first(mut self) -> Vec<Rule> {
        self.accepted
            .sort_by_key(|rule| (u8::MAX - rule.prefix.prefix_len(), rule.prefix.network()));
        self.accepted
    }
}

fn host(addr: Ipv4Addr) -> Ipv4Net {
    Ipv4Net::from(addr)
}

fn net(addr: Ipv4Addr, len: u8) -> Ipv4Net {
    Ipv4Net::new_assert(addr, len)
}

#[cfg(test)]
mod tests {
    use rpc::{Interface, MacAddr, NodeView, Subnet};

    use super::*;

    fn node() -> Node {
        Node {
            nic: NodeView {
                nic: "eth0".into(),
                nic_ifindex: 2,
                nic_mac: MacAddr([0, 13, 58, 0, 0, 1]),
                mtu: 1500,
                primary: Ipv4Addr::new(10, 240, 0, 4),
            },
            connected: vec!["10.240.0.0/16".parse().unwrap()],
            elsewhere: vec!["172.17.0.0/16".parse().unwrap()],
            addresses: vec![Ipv4Addr::LOCALHOST, Ipv4Addr::new(10, 240, 0, 4)],
            interfaces: Vec::new(),
        }
    }

    fn pools(prefix: &str) -> Pools {
        Pools {
            boot_id: String::new(),
            source: "wireserver".into(),
            read_at_ms: 0,
            interfaces: vec![Interface {
                name: "eth0".into(),
                mac: MacAddr([0; 6]),
                is_primary: true,
                subnets: vec![Subnet {
                    prefix: prefix.parse().unwrap(),
                    primary: None,
                    secondary: Vec::new(),
                }],
            }],
        }
    }

    fn config(yaml: &str) -> Config {
        Config::parse(std::path::Path::new("loader.yaml"), yaml).unwrap()
    }

    /// What the kernel's trie answers.
    fn class(rules: &[Rule], addr: &str) -> (Class, bool) {
        let addr: Ipv4Addr = addr.parse().unwrap();
        let rule = rules
            .iter()
            .find(|rule| rule.prefix.contains(&addr))
            .unwrap();
        (rule.class, rule.masquerade)
    }

    #[test]
    fn nothing_configured_is_safe() {
        let rules = classify(&Config::default(), &node(), Some(&pools("10.241.0.0/16")));
        for (addr, expected) in [
            ("10.240.0.4", (Class::Stack, false)),
            ("127.0.0.1", (Class::Stack, false)),
            ("168.63.129.16", (Class::Wireserver, false)),
            ("169.254.169.254", (Class::Snat, true)),
            ("169.254.20.10", (Class::Stack, false)),
            ("224.0.0.251", (Class::Stack, false)),
            ("255.255.255.255", (Class::Stack, false)),
            ("10.240.7.7", (Class::Direct, false)),
            ("10.241.7.7", (Class::Direct, false)),
            ("10.0.0.1", (Class::Stack, false)),
            ("172.16.0.1", (Class::Stack, false)),
            ("100.64.0.1", (Class::Stack, true)),
            ("8.8.8.8", (Class::Snat, true)),
        ] {
            assert_eq!(class(&rules, addr), expected, "{addr}");
        }
    }

    #[test]
    fn known_services_make_the_rest_fast() {
        let rules = classify(&config("serviceCidrs: [10.0.0.0/16]"), &node(), None);
        assert_eq!(class(&rules, "10.0.0.10"), (Class::Stack, false));
        assert_eq!(class(&rules, "10.1.0.10"), (Class::Direct, false));
        assert_eq!(class(&rules, "100.64.0.1"), (Class::Snat, true));
    }

    #[test]
    fn what_the_node_reaches_by_another_interface_is_the_kernels() {
        let rules = classify(&config("serviceCidrs: [10.0.0.0/16]"), &node(), None);
        assert_eq!(class(&rules, "172.17.0.2"), (Class::Stack, false));
        assert_eq!(class(&rules, "172.18.0.2"), (Class::Direct, false));
        // Another NIC of the VM is in a subnet of the VNet, which the fabric reaches from every NIC.
        let told = classify(&Config::default(), &node(), Some(&pools("172.17.0.0/16")));
        assert_eq!(class(&told, "172.17.0.2"), (Class::Direct, false));
        let wider = classify(&config("vnetCidrs: [172.16.0.0/12]"), &node(), None);
        assert_eq!(class(&wider, "172.17.0.2"), (Class::Stack, false));
    }

    #[test]
    fn a_service_range_inside_the_vnet_still_reaches_kube_proxy() {
        let rules = classify(
            &config("{serviceCidrs: [10.0.0.0/16], vnetCidrs: [10.0.0.0/8]}"),
            &node(),
            None,
        );
        assert_eq!(class(&rules, "10.0.0.10").0, Class::Stack);
        assert_eq!(class(&rules, "10.9.0.10").0, Class::Direct);
    }

    #[test]
    fn an_empty_non_masquerade_list_masquerades_private_ranges_through_the_kernel() {
        let rules = classify(&config("nonMasqueradeCIDRs: []"), &node(), None);
        assert_eq!(class(&rules, "172.16.0.1"), (Class::Stack, true));
        assert_eq!(class(&rules, "10.240.9.9"), (Class::Direct, false));
    }

    #[test]
    fn the_first_row_wins_over_a_longer_prefix_of_a_later_one() {
        let rules = classify(
            &config("{vnetCidrs: [10.0.0.0/8], nonMasqueradeCIDRs: [10.1.0.0/16]}"),
            &node(),
            None,
        );
        assert_eq!(class(&rules, "10.1.0.1").0, Class::Direct);
    }

    #[test]
    fn imds_can_be_denied() {
        assert_eq!(
            class(
                &classify(&config("imds: deny"), &node(), None),
                "169.254.169.254"
            )
            .0,
            Class::Deny
        );
    }
}
