//! What happens to a packet because of its destination: the table of `docs/configuration.md`, as prefixes.
//!
//! The table's first match must win, the kernel's LPM trie lets the longest prefix win. So rules are taken in the
//! table's order, and a later rule that lies wholly inside an earlier one is left out.

mod odd;
#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use abi::Class;
use ipnet::Ipv4Net;
use rpc::{ClassView, LOADER_CONFIG, Pools};

use crate::config::{Config, Imds, key};
use crate::masq::Masq;
use crate::nic::Node;
use crate::pools;

pub use odd::oddities;

/// Azure's platform address: DNS, DHCP, health probes, and the wireserver.
pub const WIRESERVER: Ipv4Addr = Ipv4Addr::new(168, 63, 129, 16);
/// The instance metadata service.
pub const IMDS: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

/// All that classes depend on.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// loader.yaml.
    pub config: &'a Config,
    /// ip-masq-agent's files.
    pub masq: &'a Masq,
    /// The node's addresses, interfaces and routes.
    pub node: &'a Node,
    /// What the wireserver told, or IMDS.
    pub pools: Option<&'a Pools>,
}

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
    pub why: Why,
}

/// Where a rule comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Why {
    /// Row of the table in `docs/configuration.md`.
    pub row: u8,
    /// The key of a configuration file, or what the address is.
    pub text: &'static str,
    /// The configuration file.
    pub file: Option<PathBuf>,
}

impl Why {
    fn own(row: u8, text: &'static str) -> Self {
        Self {
            row,
            text,
            file: None,
        }
    }

    fn configured(row: u8, key: &'static str, file: impl AsRef<Path>) -> Self {
        Self {
            row,
            text: key,
            file: Some(file.as_ref().to_owned()),
        }
    }
}

impl From<&Rule> for ClassView {
    fn from(rule: &Rule) -> Self {
        Self {
            prefix: rule.prefix,
            class: rule.class.name().to_owned(),
            row: rule.why.row,
            why: rule.why.text.to_owned(),
            file: rule.why.file.clone(),
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

const LINK_LOCAL: (Ipv4Addr, u8, &str) = (Ipv4Addr::new(169, 254, 0, 0), 16, "link-local");

/// Addresses that a router never forwards, or that are the kernel's business.
const NOT_ROUTED: [(Ipv4Addr, u8, &str); 5] = [
    (Ipv4Addr::UNSPECIFIED, 8, "this network"),
    (Ipv4Addr::new(127, 0, 0, 0), 8, "loopback"),
    LINK_LOCAL,
    (Ipv4Addr::new(224, 0, 0, 0), 4, "multicast"),
    (Ipv4Addr::BROADCAST, 32, "broadcast"),
];

/// The range that no router forwards in which all of `prefix` lies, and what it is.
pub(crate) fn not_routed(prefix: Ipv4Net) -> Option<(Ipv4Net, &'static str)> {
    let mut ranges = NOT_ROUTED
        .into_iter()
        .map(|(addr, len, what)| (net(addr, len), what));
    ranges.find(|(range, _)| range.contains(&prefix))
}

/// The rules for this node, longest prefix first.
pub fn classify(inputs: Inputs<'_>) -> Vec<Rule> {
    let Inputs { config, node, .. } = inputs;
    let mut rules = Rules::default();
    for &addr in &node.addresses {
        rules.stack(host(addr), Why::own(2, "address of the node"));
    }
    let why = Why::own(3, "Azure platform address");
    rules.add(host(WIRESERVER), Class::Wireserver, false, why);
    let imds = match config.imds {
        Imds::Snat => (Class::Snat, Why::own(4, "instance metadata service")),
        Imds::Deny => (Class::Deny, Why::configured(4, key::IMDS, LOADER_CONFIG)),
    };
    rules.add(host(IMDS), imds.0, true, imds.1);
    add_not_routed(&mut rules, inputs);
    // Before the VNet: a Service range that somebody configured inside a VNet prefix must reach kube-proxy.
    for &prefix in &config.service_cidrs {
        rules.stack(prefix, Why::configured(6, key::SERVICE, LOADER_CONFIG));
    }
    add_vnet(&mut rules, inputs);
    add_private(&mut rules, inputs);
    let internet = Why::own(13, "the Internet");
    rules.add(net(Ipv4Addr::UNSPECIFIED, 0), Class::Snat, true, internet);
    rules.into_longest_first()
}

/// Row 5.
fn add_not_routed(rules: &mut Rules, inputs: Inputs<'_>) {
    let link_local = net(LINK_LOCAL.0, LINK_LOCAL.1);
    let masquerade = masquerades_link_local(inputs);
    if masquerade.is_some() {
        // Exceptions from masquerading, and nothing else: the kernel's business they are all the same.
        for (prefix, file) in not_masqueraded(inputs).unwrap_or_default() {
            if link_local.contains(&prefix) {
                rules.stack(prefix, Why::configured(5, key::NON_MASQUERADE, file));
            }
        }
    }
    for (addr, len, what) in NOT_ROUTED {
        let prefix = net(addr, len);
        match masquerade {
            Some(file) if prefix == link_local => {
                let why = Why::configured(5, key::MASQ_LINK_LOCAL, file);
                rules.add(prefix, Class::Stack, true, why);
            }
            _ => rules.stack(prefix, Why::own(5, what)),
        }
    }
}

/// The file that wants link-local destinations masqueraded, unless a list excepts all of them.
fn masquerades_link_local(inputs: Inputs<'_>) -> Option<&Path> {
    let link_local = net(LINK_LOCAL.0, LINK_LOCAL.1);
    let loader = inputs
        .config
        .masq_link_local
        .then_some(Path::new(LOADER_CONFIG));
    let wanted = loader.or(inputs.masq.link_local.as_deref())?;
    let excepted = not_masqueraded(inputs)
        .unwrap_or_default()
        .iter()
        .any(|(prefix, _)| prefix.contains(&link_local));
    (!excepted).then_some(wanted)
}

/// Every `nonMasqueradeCIDRs` with its file; `None` when nobody has such a list.
fn not_masqueraded(inputs: Inputs<'_>) -> Option<Vec<(Ipv4Net, &Path)>> {
    let Inputs { config, masq, .. } = inputs;
    if config.non_masquerade_cidrs.is_none() && masq.files.is_empty() {
        return None;
    }
    let loader = config.non_masquerade_cidrs.iter().flatten();
    let loader = loader.map(|prefix| (*prefix, Path::new(LOADER_CONFIG)));
    let files = masq
        .prefixes
        .iter()
        .map(|(prefix, file)| (*prefix, file.as_path()));
    Some(loader.chain(files).collect())
}

/// The subnets' source, in words.
fn told_by(told: Option<&Pools>) -> &'static str {
    match told.map(|pools| pools.source.as_str()) {
        Some(pools::IMDS) => "subnet told by IMDS",
        Some(_) | None => "subnet told by the wireserver",
    }
}

/// Rows 7 to 9.
fn add_vnet(rules: &mut Rules, inputs: Inputs<'_>) {
    let Inputs { config, node, .. } = inputs;
    for prefix in told_subnets(inputs.pools) {
        rules.direct(prefix, Why::own(7, told_by(inputs.pools)));
    }
    // Behind the VNet's own subnets, which all of the VM's NICs reach, and before wider prefixes that somebody configured.
    for &prefix in &node.elsewhere {
        rules.stack(
            prefix,
            Why::own(8, "routed by another interface of the node"),
        );
    }
    for &prefix in &node.connected {
        rules.direct(prefix, Why::own(9, "subnet of the NIC"));
    }
    for &prefix in &config.vnet_cidrs {
        rules.direct(prefix, Why::configured(9, key::VNET, LOADER_CONFIG));
    }
    for &prefix in &config.direct_cidrs {
        rules.direct(prefix, Why::configured(9, key::DIRECT, LOADER_CONFIG));
    }
}

/// Rows 10 to 12.
fn add_private(rules: &mut Rules, inputs: Inputs<'_>) {
    let services_known = !inputs.config.service_cidrs.is_empty();
    let unless_service = |fast| if services_known { fast } else { Class::Stack };
    match not_masqueraded(inputs) {
        Some(prefixes) => {
            for (prefix, file) in prefixes {
                let why = Why::configured(10, key::NON_MASQUERADE, file);
                rules.add(prefix, unless_service(Class::Direct), false, why);
            }
            for (addr, len) in RFC_1918 {
                let why = Why::own(11, "private range");
                rules.add(net(addr, len), unless_service(Class::Snat), true, why);
            }
        }
        None => {
            for (addr, len) in RFC_1918 {
                let why = Why::own(10, "private range, not masqueraded by default");
                rules.add(net(addr, len), unless_service(Class::Direct), false, why);
            }
        }
    }
    for (addr, len) in OTHER_PRIVATE {
        let why = Why::own(12, "private range");
        rules.add(net(addr, len), unless_service(Class::Snat), true, why);
    }
}

fn told_subnets(pools: Option<&Pools>) -> impl Iterator<Item = Ipv4Net> {
    let interfaces = pools.into_iter().flat_map(|pools| &pools.interfaces);
    interfaces
        .flat_map(|interface| &interface.subnets)
        .map(|subnet| subnet.prefix.trunc())
}

#[derive(Default)]
struct Rules {
    accepted: Vec<Rule>,
}

impl Rules {
    fn stack(&mut self, prefix: Ipv4Net, why: Why) {
        self.add(prefix, Class::Stack, false, why);
    }

    fn direct(&mut self, prefix: Ipv4Net, why: Why) {
        self.add(prefix, Class::Direct, false, why);
    }

    fn add(&mut self, prefix: Ipv4Net, class: Class, masquerade: bool, why: Why) {
        let mut earlier = self.accepted.iter();
        if !earlier.any(|rule| rule.prefix.contains(&prefix)) {
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
