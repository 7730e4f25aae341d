//! The configuration's `ipam`.

use std::net::Ipv4Addr;
use std::num::NonZeroU32;
use std::time::Duration;

use ipnet::Ipv4Net;

use crate::document::Object;

use crate::error::{NetconfError, unsupported};
use crate::keys;

/// Azure's IPAM plug-in for clusters with CNS.
const AZURE_CNS: &str = "azure-cns";

/// `queryInterval` when it is absent or no number, as in Azure's plug-in.
const QUERY_INTERVAL: Duration = Duration::from_secs(10);

/// `environment`: who tells the addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Environment {
    /// The platform, whom the loader asks.
    #[default]
    Azure,
    /// A file on the node (`mas`, `fileIpam`).
    File,
}

impl Environment {
    fn parse(text: &str) -> Result<Self, NetconfError> {
        let refused = |why| Err(unsupported("ipam.environment", text, why));
        match text {
            "" | "azure" => Ok(Self::Azure),
            "mas" | "fileIpam" => Ok(Self::File),
            "ipv6NodeIpam" => refused("pods have no IPv6, use azure, mas or fileIpam"),
            "null" => refused("it gives no addresses, use azure, mas or fileIpam"),
            _ => refused("Invalid configuration, use azure, mas or fileIpam"),
        }
    }
}

/// `ipam`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ipam {
    /// `type`: the IPAM plug-in's file name.
    pub plugin: Option<String>,
    /// Only this pool.
    pub subnet: Option<Ipv4Net>,
    /// Only this address.
    pub address: Option<Ipv4Addr>,
    /// Who tells the addresses.
    pub environment: Environment,
    /// Pools that are younger than this are not asked for again.
    pub query_interval: Duration,
}

impl Ipam {
    /// Validates the object.
    pub(crate) fn parse(fields: Object<'_>) -> Result<Self, NetconfError> {
        keys::check_ipam_kinds(fields)?;
        let plugin = fields.text("type")?;
        if let Some(name) = plugin
            && !is_file_name(name)
        {
            return Err(NetconfError::Value {
                key: "ipam.type",
                value: name.escape_debug().to_string(),
                rule: "it must be the file name of a plug-in in CNI_PATH",
            });
        }
        if plugin == Some(AZURE_CNS) {
            return Err(unsupported(
                "ipam.type",
                AZURE_CNS,
                "it needs Azure's container networking service (CNS)",
            ));
        }
        let address = fields.text("ipAddress")?.unwrap_or_default();
        Ok(Self {
            environment: Environment::parse(fields.text("environment")?.unwrap_or_default())?,
            query_interval: query_interval(fields.text("queryInterval")?),
            plugin: plugin.map(str::to_owned),
            subnet: fields.prefix("subnet")?,
            address: match address {
                "" => None,
                text => Some(text.parse().map_err(|_not_ipv4| NetconfError::Value {
                    key: "ipam.ipAddress",
                    value: text.to_owned(),
                    rule: "it must be an IPv4 address",
                })?),
            },
        })
    }
}

/// Seconds; what is no number, or zero, counts as absent, as in Azure's plug-in.
fn query_interval(text: Option<&str>) -> Duration {
    let seconds = text.and_then(|text| text.parse::<NonZeroU32>().ok());
    seconds.map_or(QUERY_INTERVAL, |seconds| {
        Duration::from_secs(seconds.get().into())
    })
}

/// Whether `ipam.type` names a plug-in that we would run.
pub(crate) fn is_plugin_name(name: &str) -> bool {
    is_file_name(name) && name != AZURE_CNS
}

fn is_file_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(['/', '\0']) && !matches!(name, "." | "..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_that_is_no_number_is_azures_ten_seconds() {
        for (text, seconds) in [
            (None, 10),
            (Some("30"), 30),
            (Some("0"), 10),
            (Some(""), 10),
            (Some("soon"), 10),
        ] {
            assert_eq!(query_interval(text), Duration::from_secs(seconds));
        }
    }
}
