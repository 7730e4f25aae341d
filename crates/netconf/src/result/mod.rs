//! Results: written in the shape of each version, read in any.

mod read;

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use rpc::MacAddr;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

pub use read::BadResult;

use crate::version::{Shape, Version};

/// One entry of `interfaces`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    pub name: String,
    pub mac: MacAddr,
    /// `CNI_NETNS` as it was given; `None` for an interface of the node.
    pub sandbox: Option<String>,
    /// Bytes.
    pub mtu: u32,
}

/// One IPv4 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// Address and the subnet's prefix length.
    pub address: Ipv4Net,
    pub gateway: Option<Ipv4Addr>,
}

/// `dns`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Dns {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nameservers: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub domain: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

/// What ADD prints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Success {
    /// Empty in an IPAM plug-in's result. The first one has the addresses.
    pub interfaces: Vec<Interface>,
    /// IPv4 addresses in the order of the result.
    pub addresses: Vec<Address>,
    pub dns: Dns,
}

impl Success {
    /// The result in the shape of `version`; the route to everywhere goes over each address's gateway.
    pub fn to_json(&self, version: Version) -> Value {
        let mut object = Map::new();
        object.insert("cniVersion".into(), version.as_str().into());
        match version.shape() {
            Shape::Legacy => {
                if let Some(first) = self.addresses.first() {
                    let mut ip4 = Map::new();
                    ip4.insert("ip".into(), first.address.to_string().into());
                    if let Some(gateway) = first.gateway {
                        ip4.insert("gateway".into(), gateway.to_string().into());
                        ip4.insert("routes".into(), json!([route(gateway)]));
                    }
                    object.insert("ip4".into(), ip4.into());
                }
            }
            Shape::Versioned | Shape::Plain => {
                if !self.interfaces.is_empty() {
                    let interfaces: Vec<Value> = self
                        .interfaces
                        .iter()
                        .map(|entry| entry.to_json(version))
                        .collect();
                    object.insert("interfaces".into(), interfaces.into());
                }
                let ips: Vec<Value> = self
                    .addresses
                    .iter()
                    .map(|address| self.ip(address, version))
                    .collect();
                object.insert("ips".into(), ips.into());
                let routes: Vec<Value> = self
                    .addresses
                    .iter()
                    .filter_map(|address| address.gateway)
                    .map(route)
                    .collect();
                if !routes.is_empty() {
                    object.insert("routes".into(), routes.into());
                }
            }
        }
        if self.dns != Dns::default() {
            object.insert("dns".into(), json!(self.dns));
        }
        Value::Object(object)
    }

    fn ip(&self, address: &Address, version: Version) -> Value {
        let mut ip = Map::new();
        if version.shape() == Shape::Versioned {
            ip.insert("version".into(), "4".into());
        }
        if !self.interfaces.is_empty() {
            ip.insert("interface".into(), 0.into());
        }
        ip.insert("address".into(), address.address.to_string().into());
        if let Some(gateway) = address.gateway {
            ip.insert("gateway".into(), gateway.to_string().into());
        }
        Value::Object(ip)
    }
}

impl Interface {
    fn to_json(&self, version: Version) -> Value {
        let mut object = Map::new();
        object.insert("name".into(), self.name.clone().into());
        object.insert("mac".into(), self.mac.to_string().into());
        if let Some(sandbox) = &self.sandbox {
            object.insert("sandbox".into(), sandbox.clone().into());
        }
        if version.has_mtu() {
            object.insert("mtu".into(), self.mtu.into());
        }
        Value::Object(object)
    }
}

fn route(gateway: Ipv4Addr) -> Value {
    json!({"dst": "0.0.0.0/0", "gw": gateway.to_string()})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Success {
        let mac = |last| MacAddr([2, 0, 0, 0, 0, last]);
        Success {
            interfaces: vec![
                Interface {
                    name: "eth0".into(),
                    mac: mac(1),
                    sandbox: Some("/run/netns/x".into()),
                    mtu: 1500,
                },
                Interface {
                    name: "azv0".into(),
                    mac: mac(2),
                    sandbox: None,
                    mtu: 1500,
                },
            ],
            addresses: vec![Address {
                address: "10.240.0.17/16".parse().unwrap(),
                gateway: Some(Ipv4Addr::new(10, 240, 0, 1)),
            }],
            dns: Dns {
                nameservers: vec!["168.63.129.16".into()],
                ..Dns::default()
            },
        }
    }

    #[test]
    fn legacy_results_have_ip4_and_nothing_newer() {
        for version in [Version::V0_1_0, Version::V0_2_0] {
            assert_eq!(
                sample().to_json(version),
                json!({
                    "cniVersion": version.as_str(),
                    "ip4": {"ip": "10.240.0.17/16", "gateway": "10.240.0.1", "routes": [{"dst": "0.0.0.0/0", "gw": "10.240.0.1"}]},
                    "dns": {"nameservers": ["168.63.129.16"]},
                })
            );
        }
    }

    #[test]
    fn versioned_results_say_the_address_family() {
        for version in [Version::V0_3_0, Version::V0_3_1, Version::V0_4_0] {
            assert_eq!(
                sample().to_json(version),
                json!({
                    "cniVersion": version.as_str(),
                    "interfaces": [
                        {"name": "eth0", "mac": "02:00:00:00:00:01", "sandbox": "/run/netns/x"},
                        {"name": "azv0", "mac": "02:00:00:00:00:02"},
                    ],
                    "ips": [{"version": "4", "interface": 0, "address": "10.240.0.17/16", "gateway": "10.240.0.1"}],
                    "routes": [{"dst": "0.0.0.0/0", "gw": "10.240.0.1"}],
                    "dns": {"nameservers": ["168.63.129.16"]},
                })
            );
        }
    }

    #[test]
    fn plain_results_do_not_and_only_the_newest_has_the_mtu() {
        for (version, mtu) in [(Version::V1_0_0, None), (Version::V1_1_0, Some(1500))] {
            let result = sample().to_json(version);
            assert_eq!(result["ips"][0].get("version"), None);
            assert_eq!(
                result["interfaces"][0].get("mtu").and_then(Value::as_u64),
                mtu
            );
        }
    }

    #[test]
    fn what_is_written_in_any_version_is_read_again() {
        for version in Version::ALL {
            let read = Success::parse(&sample().to_json(version)).unwrap();
            assert_eq!(read.addresses, sample().addresses);
            assert_eq!(read.dns, sample().dns);
        }
    }

    #[test]
    fn an_ipam_result_names_no_interface_and_an_empty_dns_is_left_out() {
        let result = Success {
            interfaces: Vec::new(),
            dns: Dns::default(),
            ..sample()
        };
        for version in Version::ALL {
            let text = result.to_json(version).to_string();
            assert!(
                !text.contains("interface") && !text.contains("dns"),
                "{text}"
            );
        }
    }

    #[test]
    fn ipv6_is_passed_over_and_broken_addresses_are_refused() {
        let read = Success::parse(
            &json!({"ips": [{"address": "fd00::1/64"}, {"address": "10.0.0.9/24"}]}),
        )
        .unwrap();
        assert_eq!(read.addresses.len(), 1);
        for bad in [
            json!({"ips": [{"address": "10.0.0.9"}]}),
            json!({"ips": [{"address": "10.0.0.9/33"}]}),
            json!({"ips": [{"address": "0.0.0.0/0"}]}),
            json!({"ips": [{"address": "224.0.0.1/24"}]}),
            json!({"ips": [{"address": "10.0.0.9/24", "gateway": "x"}]}),
            json!({"ips": [{}]}),
            json!({"ips": 5}),
            json!([]),
        ] {
            Success::parse(&bad).unwrap_err();
        }
    }
}
