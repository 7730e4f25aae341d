//! What the wireserver tells of this VM's addresses, in XML (`azure-vnet.md` §2.2).

use std::time::Duration;

use rpc::{ToldInterface, ToldSubnet};
use serde::Deserialize;

use crate::pools::PoolError;

/// What the original asks, byte for byte.
const URL: &str = "http://168.63.129.16/machine/plugins?comp=nmagent&type=getinterfaceinfov1";

/// Asks the wireserver.
pub(crate) fn ask(limit: Duration) -> Result<Vec<ToldInterface>, PoolError> {
    let xml = crate::pools::get(URL, &[], limit).map_err(PoolError::Http)?;
    parse(&xml)
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

/// The XML's content.
pub(crate) fn parse(xml: &str) -> Result<Vec<ToldInterface>, PoolError> {
    let start: String = xml.chars().take(60).collect();
    let document: Document =
        quick_xml::de::from_str(xml).map_err(|error| PoolError::Xml(error.to_string(), start))?;
    Ok(document.interfaces.into_iter().map(Into::into).collect())
}

impl From<XmlInterface> for ToldInterface {
    fn from(told: XmlInterface) -> Self {
        Self {
            mac: told.mac,
            is_primary: go_bool(&told.is_primary),
            subnets: told.subnets.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<XmlSubnet> for ToldSubnet {
    fn from(told: XmlSubnet) -> Self {
        let addresses = told.addresses.into_iter();
        Self {
            prefix: told.prefix,
            addresses: addresses
                .map(|told| (told.address, go_bool(&told.is_primary)))
                .collect(),
        }
    }
}

/// What Go's `ParseBool` takes as true.
fn go_bool(text: &str) -> bool {
    matches!(text, "1" | "t" | "T" | "true" | "TRUE" | "True")
}
