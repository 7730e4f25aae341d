//! The configuration's `ipam`.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::document::Object;

use crate::error::{NetconfError, unsupported};
use crate::keys;

/// Azure's IPAM plug-in for clusters with CNS.
const AZURE_CNS: &str = "azure-cns";

/// `ipam`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ipam {
    /// `type`: the IPAM plug-in's file name.
    pub plugin: Option<String>,
    /// Only this pool.
    pub subnet: Option<Ipv4Net>,
    /// Only this address.
    pub address: Option<Ipv4Addr>,
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
        match fields.text("environment")?.unwrap_or_default() {
            "" | "azure" => {}
            other => {
                return Err(unsupported(
                    "ipam.environment",
                    other,
                    "addresses come from the wireserver only, use azure",
                ));
            }
        }
        let address = fields.text("ipAddress")?.unwrap_or_default();
        Ok(Self {
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

/// Whether `ipam.type` names a plug-in that we would run.
pub(crate) fn is_plugin_name(name: &str) -> bool {
    is_file_name(name) && name != AZURE_CNS
}

fn is_file_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(['/', '\0']) && !matches!(name, "." | "..")
}
