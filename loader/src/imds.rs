//! What the instance metadata service tells of this VM's addresses, in JSON (`azure-vnet.md` §2.4).

use std::net::Ipv4Addr;
use std::time::Duration;

use ipnet::Ipv4Net;
use rpc::{ToldInterface, ToldSubnet};
use serde::Deserialize;

use crate::pools::{PoolError, get};

const URL: &str = "http://169.254.169.254/metadata/instance/network?api-version=2021-01-01";

/// Asks IMDS.
pub(crate) fn ask(limit: Duration) -> Result<Vec<ToldInterface>, PoolError> {
    let json = get(URL, &[("Metadata", "true")], limit).map_err(PoolError::Imds)?;
    parse(&json)
}

#[derive(Deserialize)]
struct Document {
    #[serde(rename = "interface")]
    interfaces: Vec<Interface>,
}

#[derive(Deserialize)]
struct Interface {
    #[serde(rename = "macAddress")]
    mac: String,
    ipv4: Ipv4,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ipv4 {
    ip_address: Vec<Address>,
    subnet: Vec<Subnet>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Address {
    private_ip_address: String,
}

#[derive(Deserialize)]
struct Subnet {
    address: String,
    prefix: String,
}

/// The JSON's content. Nothing in it says "primary": the first interface is, and of each interface the first address.
pub(crate) fn parse(json: &str) -> Result<Vec<ToldInterface>, PoolError> {
    let document: Document =
        serde_json::from_str(json).map_err(|error| PoolError::Imds(error.to_string()))?;
    if document.interfaces.is_empty() {
        return Err(PoolError::Imds("it tells no interface".into()));
    }
    let interfaces = document.interfaces.into_iter().enumerate();
    Ok(interfaces
        .map(|(place, told)| ToldInterface {
            mac: told.mac,
            is_primary: place == 0,
            subnets: subnets(&told.ipv4),
        })
        .collect())
}

/// An interface's addresses are in one list: each belongs to the subnet that it lies in.
fn subnets(told: &Ipv4) -> Vec<ToldSubnet> {
    let all = told.ip_address.iter().map(|told| &told.private_ip_address);
    told.subnet
        .iter()
        .map(|subnet| {
            let prefix = format!("{}/{}", subnet.address, subnet.prefix);
            let net = prefix.parse::<Ipv4Net>().ok();
            let lies = |text: &str| {
                let address = text.parse::<Ipv4Addr>();
                net.is_some_and(|net| address.is_ok_and(|address| net.contains(&address)))
            };
            let addresses = all.clone().enumerate();
            ToldSubnet {
                addresses: addresses
                    .filter(|(_, text)| lies(text))
                    .map(|(place, text)| (text.clone(), place == 0))
                    .collect(),
                prefix,
            }
        })
        .collect()
}
