//! `/etc/azure-vnet/loader.yaml`: every key optional, an unknown key is an error that names the nearest known one.

mod contradictions;
mod sizes;

use std::path::Path;

use ipnet::Ipv4Net;

use crate::document::{self, ConfigError, Document, refuse};
use crate::ports::{PortRange, PortUses, default_ports};

pub use sizes::TableSizes;

/// The loader's configuration. YAML, so JSON works too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The NIC that pods' traffic uses; the default route's when absent.
    pub nic: Option<String>,
    /// Prefixes of this VNet and its peers beyond what the wireserver tells: direct, no SNAT.
    pub vnet_cidrs: Vec<Ipv4Net>,
    /// More destinations that are reached directly, without SNAT.
    pub direct_cidrs: Vec<Ipv4Net>,
    /// Destinations without SNAT; the private ranges of RFC 1918 when absent and no file of ip-masq-agent's is there.
    pub non_masquerade_cidrs: Option<Vec<Ipv4Net>>,
    /// Masquerade link-local destinations, as ip-masq-agent understands it.
    pub masq_link_local: bool,
    /// The cluster's Service ranges, which kube-proxy handles.
    pub service_cidrs: Vec<Ipv4Net>,
    /// What pods get of the metadata service.
    pub imds: Imds,
    /// Drop pods' TCP to ports 80 and 32526 of 168.63.129.16.
    pub block_wireserver: bool,
    /// Ports for eBPF SNAT; chosen by [`Config::ports`] when absent.
    pub nat_ports: Option<PortRange>,
    /// Bindings that a pod may hold open; half of the ports when absent.
    pub nat_ports_per_pod: Option<u32>,
    /// How many entries the great tables have.
    pub sizes: TableSizes,
    /// Whether `xdp_guard` runs on the NIC.
    pub xdp: Xdp,
    /// Sources that it drops.
    pub deny_cidrs: Vec<Ipv4Net>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            nic: None,
            vnet_cidrs: Vec::new(),
            direct_cidrs: Vec::new(),
            non_masquerade_cidrs: None,
            masq_link_local: false,
            service_cidrs: Vec::new(),
            imds: Imds::Snat,
            block_wireserver: true,
            nat_ports: None,
            nat_ports_per_pod: None,
            sizes: TableSizes::default(),
            xdp: Xdp::Off,
            deny_cidrs: Vec::new(),
        }
    }
}

/// Access to 169.254.169.254.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Imds {
    /// With the node's primary address, as IMDS wants it.
    Snat,
    /// Dropped.
    Deny,
}

/// What drops packets before there is an skb.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Xdp {
    /// Nothing.
    Off,
    /// `xdp_guard`, in the NIC's driver: forged sources, malformed headers, `denyCidrs`.
    Guard,
}

/// The keys of lists, as messages and reasons name them.
pub mod key {
    /// [`super::Config::service_cidrs`].
    pub const SERVICE: &str = "serviceCidrs";
    /// [`super::Config::vnet_cidrs`].
    pub const VNET: &str = "vnetCidrs";
    /// [`super::Config::direct_cidrs`].
    pub const DIRECT: &str = "directCidrs";
    /// [`super::Config::non_masquerade_cidrs`].
    pub const NON_MASQUERADE: &str = "nonMasqueradeCIDRs";
    /// [`super::Config::masq_link_local`].
    pub const MASQ_LINK_LOCAL: &str = "masqLinkLocal";
    /// [`super::Config::imds`].
    pub const IMDS: &str = "imds";
    /// [`super::Config::nat_ports`].
    pub const NAT_PORTS: &str = "natPorts";
    /// [`super::Config::nat_ports_per_pod`].
    pub const NAT_PORTS_PER_POD: &str = "natPortsPerPod";
    /// [`super::TableSizes::flows`].
    pub const FLOWS_MAX: &str = "flowsMax";
    /// [`super::TableSizes::bindings`].
    pub const SNAT_MAX: &str = "snatMax";
    /// [`super::Config::xdp`].
    pub const XDP: &str = "xdp";
    /// [`super::Config::deny_cidrs`].
    pub const DENY: &str = "denyCidrs";
}

/// Every key.
const KEYS: [&str; 14] = [
    "nic",
    key::VNET,
    key::DIRECT,
    key::NON_MASQUERADE,
    key::MASQ_LINK_LOCAL,
    key::SERVICE,
    key::IMDS,
    "blockWireserver",
    key::NAT_PORTS,
    key::NAT_PORTS_PER_POD,
    key::FLOWS_MAX,
    key::SNAT_MAX,
    key::XDP,
    key::DENY,
];

impl Config {
    /// Reads `path`; defaults when there is no such file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        match document::read(path)? {
            Some(text) => Self::parse(path, &text),
            None => Ok(Self::default()),
        }
    }

    /// Parses `text`; `path` is for messages.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        for entry in Document::parse(path, text)?.entries() {
            match entry.key {
                "nic" => {
                    let name = entry.text("the name of an interface", "one such as eth0")?;
                    config.nic = Some(name.to_owned());
                }
                key::VNET => config.vnet_cidrs = entry.prefixes()?,
                key::DIRECT => config.direct_cidrs = entry.prefixes()?,
                key::NON_MASQUERADE => config.non_masquerade_cidrs = Some(entry.prefixes()?),
                key::MASQ_LINK_LOCAL => config.masq_link_local = entry.boolean()?,
                key::SERVICE => config.service_cidrs = entry.prefixes()?,
                key::IMDS => {
                    config.imds = match entry.text("snat or deny", "snat or deny")? {
                        "snat" => Imds::Snat,
                        "deny" => Imds::Deny,
                        other => {
                            return Err(entry.refuse(other, "is not a way", "write snat or deny"));
                        }
                    };
                }
                "blockWireserver" => config.block_wireserver = entry.boolean()?,
                key::NAT_PORTS => {
                    let (what, example) = ("a port range", "one such as 1024-29999");
                    let text = entry.text(what, example)?;
                    let ports = text.parse().map_err(|_why| {
                        let why = "is not a port range whose first port is 1024 or higher";
                        entry.refuse(text, why, "write one such as 1024-29999")
                    })?;
                    config.nat_ports = Some(ports);
                }
                key::NAT_PORTS_PER_POD => {
                    config.nat_ports_per_pod = Some(entry.number(1..=65_535)?);
                }
                key::FLOWS_MAX => config.sizes.flows = entry.number(TableSizes::RANGE)?,
                key::SNAT_MAX => config.sizes.bindings = entry.number(TableSizes::RANGE)?,
                key::XDP => {
                    config.xdp = match entry.text("off or guard", "off or guard")? {
                        "off" => Xdp::Off,
                        "guard" => Xdp::Guard,
                        other => {
                            return Err(entry.refuse(other, "is neither", "write off or guard"));
                        }
                    };
                }
                key::DENY => config.deny_cidrs = entry.prefixes()?,
                _ => return Err(entry.unknown(&KEYS)),
            }
        }
        config.check(path)?;
        Ok(config)
    }

    /// The ports for SNAT on a node that has these uses for ports itself, and what the operator should know about them.
    /// Configured ports that the node needs are an error; the default makes room.
    pub fn ports(
        &self,
        path: &Path,
        node: &PortUses,
    ) -> Result<(PortRange, Option<String>), ConfigError> {
        let Some(ports) = self.nat_ports else {
            return Ok(default_ports(node));
        };
        match node.clash(ports) {
            None => Ok((ports, None)),
            Some(clash) => {
                let (free, _) = default_ports(node);
                Err(refuse(
                    path,
                    key::NAT_PORTS,
                    &ports.to_string(),
                    &format!("overlaps {clash}: answers would reach the wrong side"),
                    &format!("write ports that the node leaves free, {free} for example"),
                ))
            }
        }
    }

    /// Every list of prefixes with its key.
    pub(crate) fn lists(&self) -> [(&'static str, &[Ipv4Net]); 4] {
        [
            (key::VNET, &self.vnet_cidrs),
            (key::DIRECT, &self.direct_cidrs),
            (
                key::NON_MASQUERADE,
                self.non_masquerade_cidrs.as_deref().unwrap_or_default(),
            ),
            (key::SERVICE, &self.service_cidrs),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(Path::new("loader.yaml"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn an_empty_file_and_no_file_are_defaults() {
        assert_eq!(parse("").unwrap(), Config::default());
        assert_eq!(parse("# nothing\nvnetCidrs:\n").unwrap(), Config::default());
        assert_eq!(
            Config::load(Path::new("/nonexistent/loader.yaml")).unwrap(),
            Config::default()
        );
    }

    #[test]
    fn yaml_and_json_say_the_same() {
        let yaml = parse("nic: eth1\nvnetCidrs:\n- 10.0.0.0/8\nimds: deny\nnatPorts: 2000-2999\n")
            .unwrap();
        let json = parse(
            r#"{"nic":"eth1","vnetCidrs":["10.0.0.0/8"],"imds":"deny","natPorts":"2000-2999"}"#,
        )
        .unwrap();
        assert_eq!(yaml, json);
        assert_eq!(yaml.nat_ports.unwrap().count(), 1000);
    }

    #[test]
    fn an_unknown_key_names_the_nearest_known_one() {
        for (typo, meant) in [
            ("nonMasqueradeCidr", "nonMasqueradeCIDRs"),
            ("vnetCIDR", "vnetCidrs"),
            ("blockwireserver", "blockWireserver"),
        ] {
            let error = parse(&format!("{typo}: []")).unwrap_err();
            assert!(
                error.contains(&format!("did you mean `{meant}`")),
                "{error}"
            );
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_file_key_value_and_remedy() {
        for (text, words) in [
            ("nic: [1]", ["nic", "`- 1`", "eth0"]),
            (
                "vnetCidrs: 10.0.0.0/8",
                ["vnetCidrs", "`10.0.0.0/8`", "[10.0.0.0/16]"],
            ),
            ("vnetCidrs: [10]", ["vnetCidrs", "`10`", "[10.0.0.0/16]"]),
            (
                "vnetCidrs: [10.0.0.0/33]",
                ["vnetCidrs", "`10.0.0.0/33`", "10.0.0.0/16"],
            ),
            (
                "directCidrs: [\"fd00::/64\"]",
                ["directCidrs", "`fd00::/64`", "10.0.0.0/16"],
            ),
            (
                "serviceCidrs: [10.0.0.1/16]",
                ["serviceCidrs", "`10.0.0.1/16`", "write 10.0.0.0/16"],
            ),
            ("imds: maybe", ["imds", "`maybe`", "write snat or deny"]),
            ("imds: true", ["imds", "`true`", "write snat or deny"]),
            (
                "blockWireserver: yes",
                ["blockWireserver", "`yes`", "write true or false"],
            ),
            (
                "masqLinkLocal: 1",
                ["masqLinkLocal", "`1`", "write true or false"],
            ),
            ("xdp: on", ["xdp", "`on`", "write off or guard"]),
            (
                "denyCidrs: [0.0.0.0/0]",
                [
                    "denyCidrs",
                    "`0.0.0.0/0` contains 168.63.129.16",
                    "leave it out",
                ],
            ),
            (
                "denyCidrs: [169.254.0.0/16]",
                ["denyCidrs", "contains 169.254.169.254", "leave it out"],
            ),
            ("natPorts: 80-90", ["natPorts", "`80-90`", "1024-29999"]),
            ("natPorts: 5000", ["natPorts", "`5000`", "1024-29999"]),
            ("natPortsPerPod: 0", ["natPortsPerPod", "`0`", "1 to 65535"]),
            ("flowsMax: 1000", ["flowsMax", "`1000`", "1024 to 1048576"]),
            ("snatMax: '4096'", ["snatMax", "4096", "without quotes"]),
            (
                "vnetCidrs: [10.1.0.0/16, 10.0.0.0/8]",
                [
                    "vnetCidrs",
                    "`10.1.0.0/16` lies in 10.0.0.0/8",
                    "take one of the two out",
                ],
            ),
            (
                "directCidrs: [10.1.0.0/16, 10.1.0.0/16]",
                ["directCidrs", "`10.1.0.0/16`", "take one of the two out"],
            ),
            (
                "{serviceCidrs: [10.0.0.0/16], directCidrs: [10.0.0.0/16]}",
                [
                    "directCidrs",
                    "`10.0.0.0/16` lies in `serviceCidrs` 10.0.0.0/16",
                    "take it out",
                ],
            ),
            (
                "{serviceCidrs: [10.0.0.0/8], vnetCidrs: [10.9.0.0/16]}",
                [
                    "vnetCidrs",
                    "`10.9.0.0/16` lies in `serviceCidrs` 10.0.0.0/8",
                    "take it out",
                ],
            ),
            (
                "directCidrs: [169.254.20.10/32]",
                ["directCidrs", "`169.254.20.10/32`", "take it out"],
            ),
        ] {
            let error = parse(text).unwrap_err();
            for word in ["loader.yaml"].iter().chain(&words) {
                assert!(error.contains(word), "{text}: {error}");
            }
        }
    }

    #[test]
    fn what_is_merely_wide_is_accepted() {
        for text in [
            "{serviceCidrs: [10.0.0.0/16], vnetCidrs: [10.0.0.0/8]}",
            "{serviceCidrs: [10.0.0.0/16], nonMasqueradeCIDRs: [10.0.0.0/16]}",
            "directCidrs: [0.0.0.0/0]",
            "nonMasqueradeCIDRs: [169.254.0.0/17]",
        ] {
            assert!(parse(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn ports_that_the_node_needs_are_refused_when_configured() {
        let node = PortUses {
            ephemeral: "32768-60999".parse().ok(),
            reserved: Vec::new(),
        };
        let ports = |text: &str| parse(text).unwrap().ports(Path::new("loader.yaml"), &node);
        assert_eq!(ports("").unwrap(), ("1024-29999".parse().unwrap(), None));
        let error = ports("natPorts: 20000-40000").unwrap_err().to_string();
        for word in [
            "loader.yaml",
            "natPorts",
            "`20000-40000`",
            "30000-32767",
            "1024-29999",
        ] {
            assert!(error.contains(word), "{error}");
        }
    }
}
