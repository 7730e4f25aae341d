//! Results of others, in whatever version they come.

use ipnet::Ipv4Net;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::{Address, Dns, Success};

/// A result that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum BadResult {
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    #[error("`{0}` is not an IPv4 address with prefix length")]
    Address(String),
    #[error("`{0}` is not an IPv4 gateway")]
    Gateway(String),
    #[error("`{0}` has `interface`, which is the main plug-in's to set")]
    Interface(String),
}

impl Success {
    /// Reads the addresses and `dns` of a result of any version; IPv6 addresses are passed over.
    ///
    /// Interfaces are not read: an IPAM plug-in has none, and later plug-ins may change those of `prevResult`.
    pub fn parse(value: &Value) -> Result<Self, BadResult> {
        Self::take(Raw::deserialize(value)?)
    }

    /// The same of an IPAM plug-in's, which knows of no interfaces: an address of one would not be the pod's.
    pub fn parse_of_ipam(value: &Value) -> Result<Self, BadResult> {
        let raw = Raw::deserialize(value)?;
        let mut ips = raw.ips.iter().flatten();
        if let Some(ip) = ips.find(|ip| ip.interface.is_some()) {
            return Err(BadResult::Interface(ip.address.clone()));
        }
        Self::take(raw)
    }

    fn take(raw: Raw) -> Result<Self, BadResult> {
        let legacy = raw.ip4.map(|ip4| (ip4.ip, ip4.gateway));
        let listed = raw
            .ips
            .unwrap_or_default()
            .into_iter()
            .map(|ip| (ip.address, ip.gateway));
        let mut addresses = Vec::new();
        for (address, gateway) in legacy.into_iter().chain(listed) {
            if !address.contains(':') {
                addresses.push(Address::parse(
                    &address,
                    gateway.as_deref().unwrap_or_default(),
                )?);
            }
        }
        Ok(Self {
            interfaces: Vec::new(),
            addresses,
            dns: raw.dns.unwrap_or_default(),
        })
    }
}

impl Address {
    fn parse(address: &str, gateway: &str) -> Result<Self, BadResult> {
        let parsed: Ipv4Net = address
            .parse()
            .map_err(|_not_a_prefix| BadResult::Address(address.to_owned()))?;
        let ip = parsed.addr();
        if ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || ip.is_broadcast() {
            return Err(BadResult::Address(address.to_owned()));
        }
        Ok(Self {
            address: parsed,
            gateway: match gateway {
                "" => None,
                text => Some(
                    text.parse()
                        .map_err(|_not_an_address| BadResult::Gateway(text.to_owned()))?,
                ),
            },
        })
    }
}

#[derive(Deserialize)]
struct Raw {
    ip4: Option<RawIp4>,
    ips: Option<Vec<RawIp>>,
    dns: Option<Dns>,
}

#[derive(Deserialize)]
struct RawIp4 {
    ip: String,
    gateway: Option<String>,
}

#[derive(Deserialize)]
struct RawIp {
    address: String,
    gateway: Option<String>,
    interface: Option<IgnoredAny>,
}
