//! The NIC's pools: from the wireserver or, when that does not answer, from IMDS.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use rpc::{Nic, Pools, ToldInterface, boot_id, judge};
use tracing::warn;

use crate::nic::Node;
use crate::{imds, wireserver};

const WIRESERVER: &str = "wireserver";
pub(crate) const IMDS: &str = "imds";
/// For the whole exchange with the wireserver; its answer comes from the same host …
const WIRESERVER_LIMIT: Duration = Duration::from_millis(2500);
/// … and with IMDS. Together less than a plug-in waits for us.
const IMDS_LIMIT: Duration = Duration::from_millis(1500);
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
    /// The same of IMDS.
    #[error("ask IMDS at 169.254.169.254: {0}")]
    Imds(String),
    /// None of the interfaces is one of this node.
    #[error(
        "read what {by} tells: none of its {told} interfaces has the Ethernet address of an interface of this node"
    )]
    NoInterface {
        /// The source.
        by: &'static str,
        /// Number of interfaces that it told.
        told: usize,
    },
    /// Neither source.
    #[error("{first}; nor did the second source help: {second}")]
    Neither {
        /// The wireserver's failure.
        first: Box<Self>,
        /// That of IMDS.
        second: Box<Self>,
    },
    /// The boot id cannot be read.
    #[error(transparent)]
    Boot(#[from] rpc::StateError),
}

/// Asks both sources, one after the other. Blocks up to four seconds.
pub fn fetch(node: &Node) -> Result<Pools, PoolError> {
    let first =
        match wireserver::ask(WIRESERVER_LIMIT).and_then(|told| pools(WIRESERVER, told, node)) {
            Ok(pools) => return Ok(pools),
            Err(first) => first,
        };
    match imds::ask(IMDS_LIMIT).and_then(|told| pools(IMDS, told, node)) {
        Ok(pools) => {
            warn!(why = %first, "the wireserver does not tell the address pools, IMDS does");
            Ok(pools)
        }
        Err(second) => Err(PoolError::Neither {
            first: Box::new(first),
            second: Box::new(second),
        }),
    }
}

/// The body of an answer with status 200; else why there is none.
pub(crate) fn get(url: &str, headers: &[(&str, &str)], limit: Duration) -> Result<String, String> {
    let agent = ureq::Agent::new_with_config(
        ureq::Agent::config_builder()
            .timeout_global(Some(limit))
            .proxy(None)
            .max_redirects(0)
            .build(),
    );
    let request = headers
        .iter()
        .fold(agent.get(url), |request, (name, value)| {
            request.header(*name, *value)
        });
    let mut answer = request.call().map_err(|error| error.to_string())?;
    if answer.status() != 200 {
        return Err(format!("HTTP status {}", answer.status()));
    }
    let body = answer.body_mut().with_config().limit(MAX_ANSWER);
    body.read_to_string().map_err(|error| error.to_string())
}

/// What of `told` belongs to this node; the rest is left out with a log line.
fn pools(by: &'static str, told: Vec<ToldInterface>, node: &Node) -> Result<Pools, PoolError> {
    let number = told.len();
    // The NIC in use wins over a VF with the same Ethernet address.
    let in_use = |nic: &&crate::nic::Link| nic.name != node.nic.nic;
    let mut links: Vec<_> = node.interfaces.iter().collect();
    links.sort_by_key(in_use);
    let nics: Vec<Nic> = links
        .into_iter()
        .map(|link| Nic {
            index: link.index,
            name: link.name.clone(),
            mac: link.mac,
        })
        .collect();
    let (interfaces, skipped) = judge(told, &nics);
    for what in skipped {
        warn!(by, what, "told, and skipped");
    }
    if interfaces.is_empty() {
        return Err(PoolError::NoInterface { by, told: number });
    }
    Ok(Pools {
        boot_id: boot_id()?,
        source: by.into(),
        read_at_ms: boottime_ms(),
        interfaces,
    })
}

/// `CLOCK_BOOTTIME`, milliseconds.
pub fn boottime_ms() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from);
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use rpc::{MacAddr, NodeView};

    use super::*;
    use crate::nic::Link;
    use crate::{imds, wireserver};

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

    fn read(xml: &str, node: &Node) -> Result<Pools, PoolError> {
        pools(WIRESERVER, wireserver::parse(xml)?, node)
    }

    /// Both sources tell the same of the same VM.
    #[test]
    fn imds_tells_the_same_with_the_first_address_as_primary() {
        let address = |ip: &str| format!(r#"{{"privateIpAddress":"{ip}","publicIpAddress":""}}"#);
        let ips = ["10.240.0.4", "10.240.0.5", "10.240.0.6"]
            .map(address)
            .join(",");
        let json = format!(
            r#"{{"interface":[{{"ipv4":{{"ipAddress":[{ips}],"subnet":[{{"address":"10.240.0.0","prefix":"16"}}]}},
               "ipv6":{{"ipAddress":[]}},"macAddress":"000D3AF9DCA6"}}]}}"#
        );
        let told = imds::parse(&json).unwrap();
        let by_imds = pools(IMDS, told, &node()).unwrap();
        assert_eq!(by_imds.source, "imds");
        assert_eq!(
            by_imds.interfaces,
            read(DOCUMENTED, &node()).unwrap().interfaces
        );
        for bad in ["", "<html>", "{}", r#"{"interface":[]}"#] {
            assert!(
                imds::parse(bad).is_err_and(|error| error.to_string().contains("IMDS")),
                "{bad}"
            );
        }
    }

    #[test]
    fn the_documented_answer_gives_the_pools_of_this_nodes_nic() {
        let pools = read(DOCUMENTED, &node()).unwrap();
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
        let mut pools = read(DOCUMENTED, &node).unwrap();
        assert_eq!(
            pools.take_out(&node.addresses),
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
            assert!(read(bad, &node()).is_err(), "{bad}");
        }
        let error = read("<html>proxy error", &node()).unwrap_err().to_string();
        assert!(error.contains("proxy error"), "{error}");
    }
}
