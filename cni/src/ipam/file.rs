//! The file that tells the node's addresses where no platform does (`ipam.environment` `mas` and `fileIpam`).

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read as _;
use std::net::Ipv4Addr;

use netconf::lowered;
use nix::ifaddrs::getifaddrs;
use rpc::{MacAddr, Nic, Pools, ToldInterface, ToldSubnet, judge};
use serde::Deserialize;

use super::IpamError;
use crate::clock;

/// Where Azure's plug-in reads it.
const PATH: &str = "/etc/kubernetes/interfaces.json";
/// 16,000 addresses take 1 MB.
const MOST_BYTES: u64 = 8 << 20;

/// Keys count in any case, as in Go: they are lowered before.
#[derive(Deserialize)]
struct Document {
    interfaces: Vec<Interface>,
}

#[derive(Deserialize)]
struct Interface {
    #[serde(rename = "macaddress")]
    mac: String,
    #[serde(rename = "isprimary", default)]
    is_primary: bool,
    #[serde(rename = "ipsubnets", default)]
    subnets: Vec<Subnet>,
}

#[derive(Deserialize)]
struct Subnet {
    prefix: String,
    #[serde(rename = "ipaddresses", default)]
    addresses: Vec<Address>,
}

#[derive(Deserialize)]
struct Address {
    address: String,
    #[serde(rename = "isprimary", default)]
    is_primary: bool,
}

/// The pools that the file tells of this node.
pub(super) fn read(boot_id: &str) -> Result<Pools, IpamError> {
    let error = |why: String| IpamError::File { path: PATH, why };
    let mut text = String::new();
    File::open(PATH)
        .and_then(|file| file.take(MOST_BYTES).read_to_string(&mut text))
        .map_err(|source| error(source.to_string()))?;
    let told = parse(&text).map_err(|source| error(source.to_string()))?;
    let (nics, own) = here().map_err(|errno| error(format!("list the interfaces: {errno}")))?;
    let number = told.len();
    let (interfaces, skipped) = judge(told, &nics);
    if interfaces.is_empty() {
        let skipped = skipped.join(", ");
        return Err(error(format!(
            "none of its {number} interfaces is one of this node: {skipped}"
        )));
    }
    let mut pools = Pools {
        boot_id: boot_id.to_owned(),
        source: "file".into(),
        read_at_ms: clock::boottime_ms(),
        interfaces,
    };
    pools.take_out(&own);
    Ok(pools)
}

fn parse(text: &str) -> serde_json::Result<Vec<ToldInterface>> {
    let document: Document = serde_json::from_value(lowered(text.as_bytes())?)?;
    Ok(document.interfaces.into_iter().map(Into::into).collect())
}

impl From<Interface> for ToldInterface {
    fn from(told: Interface) -> Self {
        Self {
            mac: told.mac,
            is_primary: told.is_primary,
            subnets: told.subnets.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<Subnet> for ToldSubnet {
    fn from(told: Subnet) -> Self {
        let addresses = told.addresses.into_iter();
        Self {
            prefix: told.prefix,
            addresses: addresses
                .map(|told| (told.address, told.is_primary))
                .collect(),
        }
    }
}

/// The interfaces of this node, those with an address first: the VF of accelerated networking has none. And the addresses.
fn here() -> nix::Result<(Vec<Nic>, Vec<Ipv4Addr>)> {
    let (mut nics, mut own, mut in_use) = (Vec::new(), Vec::new(), BTreeSet::new());
    for entry in getifaddrs()? {
        let Some(address) = entry.address else {
            continue;
        };
        if let Some(inet) = address.as_sockaddr_in() {
            own.push(inet.ip());
            in_use.insert(entry.interface_name);
        } else if let Some(link) = address.as_link_addr()
            && let (Some(mac), Ok(index)) = (link.addr(), u32::try_from(link.ifindex()))
        {
            nics.push(Nic {
                index,
                name: entry.interface_name,
                mac: MacAddr(mac),
            });
        }
    }
    nics.sort_by_key(|nic| (!in_use.contains(&nic.name), nic.index));
    Ok((nics, own))
}
