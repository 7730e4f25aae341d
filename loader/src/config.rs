//! `/etc/azure-vnet/loader.yaml`: every key optional, an unknown key is an error that names the nearest known one.

mod contradictions;
mod sizes;

use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;

use crate::conflist;
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
    /// Where metrics and health are served.
    pub metrics: Option<SocketAddrV4>,
    /// Which way new flows take.
    pub datapath: Datapath,
    /// What the runtime gets once the node is ready.
    pub conflist: Option<PathBuf>,
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
            metrics: None,
            datapath: Datapath::Fast,
            conflist: None,
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

/// Which way new flows take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Datapath {
    /// Around netfilter, where nothing speaks against it.
    Fast,
    /// Through it, so that its rules apply to all of them, a network policy's for example. The kernel masquerades.
    Stack,
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
    /// [`super::Config::metrics`].
    pub const METRICS: &str = "metrics";
    /// [`super::Config::datapath`].
    pub const DATAPATH: &str = "datapath";
    /// [`super::Config::conflist`].
    pub const CONFLIST: &str = "conflist";
}

/// Every key.
const KEYS: [&str; 17] = [
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
    key::METRICS,
    key::DATAPATH,
    key::CONFLIST,
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
                key::DATAPATH => {
                    config.datapath = match entry.text("fast or stack", "fast or stack")? {
                        "fast" => Datapath::Fast,
                        "stack" => Datapath::Stack,
                        other => {
                            return Err(entry.refuse(other, "is neither", "write fast or stack"));
                        }
                    };
                }
                key::CONFLIST => {
                    let what = (
                        "the path of a conflist",
                        "one such as /etc/azure-vnet/10-azure.conflist",
                    );
                    let text = entry.text(what.0, what.1)?;
                    config.conflist =
                        Some(conflist::source(text).map_err(|why| {
                            entry.refuse(text, why, &format!("write {}", what.1))
                        })?);
                }
                key::METRICS => {
                    let what = ("off or an address and port", "off or 127.0.0.1:9655");
                    config.metrics = match entry.text(what.0, what.1)? {
                        "off" => None,
                        text => Some(text.parse().map_err(|_why| {
                            let why = "is no IPv4 address with a port";
                            entry.refuse(text, why, "write off, or one such as 127.0.0.1:9655")
                        })?),
                    };
                }
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
mod tests;
