//! The NIC's pools, from the wireserver's XML (`azure-vnet.md` §2.2).

use std::net::Ipv4Addr;
use std::time::Duration;

use ipnet::Ipv4Net;
use nix::time::{ClockId, clock_gettime};
use rpc::{Interface, MacAddr, Pools, Subnet, boot_id};
use serde::Deserialize;
use tracing::warn;

use crate::nic::Node;

/// What the original asks, byte for byte.
const URL: &str = "http://168.63.129.16/machine/plugins?comp=nmagent&type=getinterfaceinfov1";
/// For the whole exchange; the answer comes from the same host.
const TIMEOUT: Duration = Duration::from_secs(4);
/// 16,000 addresses take 1.3 MB.
const MAX_ANSWER: u64 = 8 << 20;

/// There are no pools.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// No answer, or one that is not 200.
    #[error(
        "ask the wireserver at 168.63.129.16 for this VM's addresses: {0}; is this an Azure VM, and does its firewall let root reach TCP port 80?"
    )]
    Http(String),
    /// Not the XML that is documented.
    #[error("read the wireserver's answer: {0}; the answer begins with `{1}`")]
    Xml(String, String),
    /// None of the interfaces is one of this node.
    #[error(
        "read the wireserver's answer: none of its {told} interfaces has the Ethernet address of an interface of this node"
    )]
    NoInterface {
        /// Number of interfaces that it told.
        told: usize,
    },
    /// The boot id cannot be read.
    #[error(transparent)]
    Boot(#[from] rpc::StateError),
}

/// Asks the wireserver. Blocks up to four seconds.
pub fn fetch(node: &Node) -> Result<Pools, PoolError> {
    let agent = ureq::Agent::new_with_config(
        ureq::Agent::config_builder()
            .timeout_global(Some(TIMEOUT))
            .proxy(None)
            .max_redirects(0)
            .build(),
    );
    let http = |error: ureq::Error| PoolError::Http(error.to_string());
    let mut answer = agent.get(URL).call().map_err(http)?;
    if answer.status() != 200 {
        return Err(PoolError::Http(format!("HTTP status {}", answer.status())));
    }
    let xml = answer
        .body_mut()
        .with_config()
        .limit(MAX_ANSWER)
        .read_to_string()
        .map_err(http)?;
    parse(&xml, node)
}

#[derive(Deserialize)]
struct Document {
    #[serde(rename = "Interface", default)]
    interfaces: Vec<XmlInterface>,
}

#[derive(Deserialize)]
struct XmlInterface {
    #[serde(rename = "@MacAddress", default)]
    mac: String,
    #[serde(rename = "@IsPrimary", default)]
    is_primary: String,
    #[serde(rename = "IPSubnet", default)]
    subnets: Vec<XmlSubnet>,
}

#[derive(Deserialize)]
struct XmlSubnet {
    #[serde(rename = "@Prefix", default)]
    prefix: String,
    #[serde(rename = "IPAddress", default)]
    addresses: Vec<XmlAddress>,
}

#[derive(Deserialize)]
struct XmlAddress {
    #[serde(rename = "@Address", default)]
    address: String,
    #[serde(rename = "@IsPrimary", default)]
    is_primary: String,
}

/// Pools out of the XML; what does not belong to this node or makes no sense is left out with a log line.
pub fn parse(xml: &str, node: &Node) -> Result<Pools, PoolError> {
    let start: String = xml.chars().take(60).collect();
    let document: Document =
        quick_xml::de::from_str(xml).map_err(|error| PoolError::Xml(error.to_string(), start))?;
    let told = document.interfaces.len();
    let mut interfaces: Vec<Interface> = document
        .interfaces
        .into_iter()
        .filter_map(|interface| on_this_node(interface, node))
        .collect();
    if interfaces.is_empty() {
        return Err(PoolError::NoInterface { told });
    }
    interfaces.sort_by_key(|interface| {
        node.interfaces
            .iter()
            .find(|link| link.name == interface.name)
            .map(|link| link.index)
    });
    Ok(Pools {
        boot_id: boot_id()?,
        source: "wireserver".into(),
        read_at_ms: boottime_ms(),
        interfaces,
    })
}

fn on_this_node(told: XmlInterface, node: &Node) -> Option<Interface> {
    let Ok(mac) = told.mac.parse::<MacAddr>() else {
        warn!(
            mac = told.mac,
            "the wireserver told an interface without a valid Ethernet address: skipped"
        );
        return None;
    };
    // The VF of accelerated networking has the same address as its netvsc master: the NIC in use wins.
    let ours = node.nic.nic_mac == mac;
    let other = node
        .interfaces
        .iter()
        .find(|link| link.mac == mac)
        .map(|link| &link.name);
    let Some(name) = ours.then_some(&node.nic.nic).or(other) else {
        warn!(%mac, "the wireserver told an interface that this node does not have: skipped");
        return None;
    };
    Some(Interface {
        name: name.clone(),
        mac,
        is_primary: go_bool(&told.is_primary),
        subnets: told.subnets.into_iter().filter_map(subnet).collect(),
    })
}

fn subnet(told: XmlSubnet) -> Option<Subnet> {
    let Ok(prefix) = told.prefix.parse::<Ipv4Net>().map(|prefix| prefix.trunc()) else {
        warn!(
            prefix = told.prefix,
            "the wireserver told a subnet that is no IPv4 prefix: skipped"
        );
        return None;
    };
    let mut subnet = Subnet {
        prefix,
        primary: None,
        secondary: Vec::new(),
    };
    for address in told.addresses {
        match address.address.parse::<Ipv4Addr>() {
            Ok(addr) if prefix.contains(&addr) => {
                if go_bool(&address.is_primary) {
                    subnet.primary = Some(addr);
                } else {
                    subnet.secondary.push(addr);
                }
            }
            _ => {
                warn!(address = address.address, %prefix, "the wireserver told an address outside its subnet: skipped");
            }
        }
    }
    subnet.secondary.sort_unstable();
    subnet.secondary.dedup();
    Some(subnet)
}

/// Takes out of `pools`, and returns, the secondary addresses that an interface of this node has itself: what comes for
/// such an address through the kernel ends at the node, so no pod may get it. cloud-init sets them up on plain VMs.
pub fn take_out_own(pools: &mut Pools, node: &Node) -> Vec<Ipv4Addr> {
    let mut own = Vec::new();
    for subnet in pools
        .interfaces
        .iter_mut()
        .flat_map(|interface| &mut interface.subnets)
    {
        subnet.secondary.retain(|addr| {
            let is_own = node.addresses.contains(addr);
            if is_own {
                own.push(*addr);
            }
            !is_own
        });
    }
    own
}

/// What Go's `ParseBool` takes as true.
fn go_bool(text: &str) -> bool {
    matches!(text, "1" | "t" | "T" | "true" | "TRUE" | "True")
}

/// `CLOCK_BOOTTIME`, milliseconds.
pub fn boottime_ms() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from);
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use rpc::NodeView;

    use super::*;
    use crate::nic::Link;

    fn node() -> Node {
        let mac = MacAddr([0x00, 0x0d, 0x3a, 0xf9, 0xdc, 0xa6]);
        let vf = Link {
            index: 2,
            name: "enP1s1".into(),
            mac,
            mtu: 1500,
        };
        let nic = Link {
            index: 3,
            name: "eth0".into(),
            mac,
            mtu: 1500,
        };
        Node {
            gateway: None,
            next_hops: None,
            nic: NodeView {
                nic: nic.name.clone(),
                nic_ifindex: 3,
                nic_mac: mac,
                mtu: 1500,
                primary: Ipv4Addr::new(10, 240, 0, 4),
            },
            connected: Vec::new(),
            elsewhere: Vec::new(),
            addresses: Vec::new(),
            interfaces: vec![vf, nic],
        }
    }

    const DOCUMENTED: &str = r#"<Interfaces>
      <Interface MacAddress="000D3AF9DCA6" IsPrimary="true">
        <IPSubnet Prefix="10.240.0.0/16">
          <IPAddress Address="10.240.0.4" IsPrimary="true"/>
          <IPAddress Address="10.240.0.6" IsPrimary="false"/>
          <IPAddress Address="10.240.0.5" IsPrimary="false"/>
          <IPAddress Address="10.9.0.5" IsPrimary="false"/>
        </IPSubnet>
      </Interface>
      <Interface MacAddress="000D3AF9DCA7"><IPSubnet Prefix="10.241.0.0/16"/></Interface>
    </Interfaces>"#;

    #[test]
    fn the_documented_answer_gives_the_pools_of_this_nodes_nic() {
        let pools = parse(DOCUMENTED, &node()).unwrap();
        let [interface] = pools.interfaces.as_slice() else {
            panic!("{pools:?}")
        };
        assert_eq!(
            (interface.name.as_str(), interface.is_primary),
            ("eth0", true)
        );
        let [subnet] = interface.subnets.as_slice() else {
            panic!("{pools:?}")
        };
        assert_eq!(subnet.primary, Some(Ipv4Addr::new(10, 240, 0, 4)));
        assert_eq!(
            subnet.secondary,
            [Ipv4Addr::new(10, 240, 0, 5), Ipv4Addr::new(10, 240, 0, 6)]
        );
        assert_eq!(subnet.gateway(), Ipv4Addr::new(10, 240, 0, 1));
    }

    #[test]
    fn an_address_that_the_node_has_itself_is_not_for_pods() {
        let mut node = node();
        node.addresses = vec![Ipv4Addr::new(10, 240, 0, 4), Ipv4Addr::new(10, 240, 0, 5)];
        let mut pools = parse(DOCUMENTED, &node).unwrap();
        assert_eq!(
            take_out_own(&mut pools, &node),
            [Ipv4Addr::new(10, 240, 0, 5)]
        );
        assert_eq!(
            pools.interfaces[0].subnets[0].secondary,
            [Ipv4Addr::new(10, 240, 0, 6)]
        );
    }

    #[test]
    fn what_is_not_the_documented_answer_is_an_error_that_shows_it() {
        for bad in [
            "",
            "<html>proxy error",
            "<Interfaces>",
            "{}",
            "<Interfaces/>",
        ] {
            assert!(parse(bad, &node()).is_err(), "{bad}");
        }
        let error = parse("<html>proxy error", &node()).unwrap_err().to_string();
        assert!(error.contains("proxy error"), "{error}");
    }
}
