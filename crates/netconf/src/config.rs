//! The network configuration on standard input: read with a bound, validated as a whole, unknown keys ignored.

use std::io::Read;
use std::net::Ipv4Addr;

use rpc::MacAddr;
use serde_json::Value;

use crate::args::Args;
use crate::asked::Asked;
use crate::attachments::Attachments;
use crate::dns::DnsWish;
use crate::document::{Object, lowered};
use crate::error::{NetconfError, unsupported};
use crate::ipam::Ipam;
use crate::keys;
use crate::names;
use crate::result::{Dns, Success};
use crate::version::Version;

/// Most bytes of a configuration. libcni's own are below 300 KiB even with every annotation that Kubernetes allows.
pub(crate) const MOST_BYTES: u64 = 2 << 20;

/// The main plug-in's `type`.
pub const MAIN_PLUGIN: &str = "azure-vnet";
/// The IPAM plug-in's `type`.
pub const IPAM_PLUGIN: &str = "azure-vnet-ipam";

/// `mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Bridge,
    Tunnel,
    Transparent,
    TransparentTunnel,
}

impl Mode {
    /// As in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Tunnel => "tunnel",
            Self::Transparent => "transparent",
            Self::TransparentTunnel => "transparent-tunnel",
        }
    }

    fn parse(text: &str) -> Result<Self, NetconfError> {
        match text {
            "bridge" => Ok(Self::Bridge),
            "" | "tunnel" => Ok(Self::Tunnel),
            "transparent" => Ok(Self::Transparent),
            "transparent-tunnel" => Ok(Self::TransparentTunnel),
            "transparent-vlan" => Err(unsupported(
                "mode",
                text,
                "it needs Azure's multitenancy service (DNC)",
            )),
            _ => Err(NetconfError::Value {
                key: "mode",
                value: text.to_owned(),
                rule: "Network mode is invalid, use bridge, tunnel, transparent or transparent-tunnel",
            }),
        }
    }
}

/// The configuration, validated.
#[derive(Clone, Debug)]
pub struct Netconf {
    pub version: Version,
    pub name: String,
    /// `type`: the main plug-in.
    pub plugin: Option<String>,
    pub mode: Mode,
    /// Only pools of this NIC.
    pub master: Option<String>,
    pub ipam: Ipam,
    /// A pod that the runtime does not name is named after its container.
    pub allow_non_kubernetes: bool,
    asked: Asked,
    dns: DnsWish,
    /// Destinations that pods reach through the node's own stack, whatever their class.
    pub via_host: Vec<Ipv4Addr>,
    /// What GC must keep; `None` when the key is not there.
    pub attachments: Option<Attachments>,
    prev_result: Option<Value>,
}

impl Netconf {
    /// Reads standard input to its end.
    pub fn read(input: impl Read) -> Result<Vec<u8>, NetconfError> {
        let mut bytes = Vec::new();
        input
            .take(MOST_BYTES + 1)
            .read_to_end(&mut bytes)
            .map_err(|source| NetconfError::Read { source })?;
        if bytes.len() as u64 > MOST_BYTES {
            return Err(NetconfError::TooLong);
        }
        Ok(bytes)
    }

    /// Validates everything that does not depend on the verb.
    pub fn parse(bytes: &[u8]) -> Result<Self, NetconfError> {
        let value = lowered(bytes).map_err(|source| NetconfError::Json { source })?;
        Self::validate(Object::root(&value).ok_or(NetconfError::NotAnObject)?)
    }

    /// The same for the IPAM plug-in, below any main plug-in.
    pub fn parse_for_ipam(bytes: &[u8]) -> Result<Self, NetconfError> {
        let value = lowered(bytes).map_err(|source| NetconfError::Json { source })?;
        Self::of_any(Object::root(&value).ok_or(NetconfError::NotAnObject)?)
    }

    /// Validates by `type`, ours if there is none. The keys of another main plug-in mean what that one says.
    pub(crate) fn of_any(root: Object<'_>) -> Result<Self, NetconfError> {
        match nonempty(root.text("type")?).as_deref() {
            None | Some(MAIN_PLUGIN) => Self::validate(root),
            Some(_) => Self::take(root, Mode::parse("")?),
        }
    }

    fn validate(root: Object<'_>) -> Result<Self, NetconfError> {
        identity(root)?;
        keys::check_kinds(root)?;
        keys::refuse_unsupported(root)?;
        let mode = Mode::parse(root.text("mode")?.unwrap_or_default())?;
        Self::take(root, mode)
    }

    fn take(root: Object<'_>, mode: Mode) -> Result<Self, NetconfError> {
        let (version, name) = identity(root)?;
        Ok(Self {
            version,
            name,
            plugin: nonempty(root.text("type")?),
            mode,
            master: nonempty(root.text("master")?),
            ipam: root
                .object("ipam")?
                .map_or_else(|| Ok(Ipam::default()), Ipam::parse)?,
            allow_non_kubernetes: keys::allows_non_kubernetes(root)?,
            asked: Asked::parse(root)?,
            dns: DnsWish::parse(root)?,
            via_host: keys::via_host(root)?,
            attachments: Attachments::parse(root)?,
            prev_result: root.get("prevResult").cloned(),
        })
    }

    /// The version that the request asks for as far as it can be told, for the answer to a broken request.
    pub fn claimed_version(bytes: &[u8]) -> Version {
        lowered(bytes)
            .ok()
            .and_then(|value| version(Object::root(&value)?).ok())
            .unwrap_or(Version::NEWEST)
    }

    /// `ipam.type`, which the main plug-in cannot do without.
    pub fn ipam_plugin(&self) -> Result<&str, NetconfError> {
        self.ipam
            .plugin
            .as_deref()
            .ok_or(NetconfError::Missing { key: "ipam.type" })
    }

    /// `dns` of the result, when the IPAM plug-in says `offered`.
    pub fn dns(&self, offered: Dns) -> Dns {
        self.dns.over(offered)
    }

    /// `prevResult`, if there is one.
    pub fn prev_result(&self) -> Result<Option<Success>, NetconfError> {
        self.prev_result
            .as_ref()
            .map(|value| {
                Success::parse(value).map_err(|source| NetconfError::PrevResult { source })
            })
            .transpose()
    }

    /// Nothing that another plug-in has made would be lost: our result has our interfaces only.
    pub fn refuse_previous_interfaces(&self) -> Result<(), NetconfError> {
        let interfaces = self
            .prev_result
            .as_ref()
            .and_then(|result| result.get("interfaces")?.as_array())
            .filter(|interfaces| !interfaces.is_empty());
        let Some(interfaces) = interfaces else {
            return Ok(());
        };
        let names: Vec<String> = interfaces
            .iter()
            .filter_map(|interface| interface.get("name")?.as_str())
            .map(|name| name.escape_debug().to_string())
            .collect();
        Err(NetconfError::PrevInterfaces {
            names: names.join(", ").chars().take(80).collect(),
        })
    }

    /// The Ethernet address that is asked for.
    pub fn mac(&self, args: &Args) -> Result<Option<MacAddr>, NetconfError> {
        self.asked.mac(args)
    }

    /// The address that is asked for, at last by `ipam.ipAddress`.
    pub fn address(&self, args: &Args) -> Result<Option<Ipv4Addr>, NetconfError> {
        Ok(self.asked.address(args)?.or(self.ipam.address))
    }
}

/// What tells whose configuration it is and in which version to answer.
pub(crate) fn identity(root: Object<'_>) -> Result<(Version, String), NetconfError> {
    let version = version(root)?;
    let name = root.text("name")?.unwrap_or_default().to_owned();
    if name.is_empty() {
        return Err(NetconfError::Missing { key: "name" });
    }
    if !names::is_identifier(&name) {
        return Err(NetconfError::Value {
            key: "name",
            value: name.escape_debug().to_string(),
            rule: "it must start with a letter or digit and go on with letters, digits, `_`, `.` and `-`",
        });
    }
    Ok((version, name))
}

fn version(root: Object<'_>) -> Result<Version, NetconfError> {
    let asked = match root.get("cniVersion") {
        None => return Ok(Version::UNSAID),
        Some(Value::String(text)) if text.is_empty() => return Ok(Version::UNSAID),
        Some(Value::String(text)) => text,
        Some(other) => {
            return Err(NetconfError::VersionKind {
                found: other.to_string().chars().take(60).collect(),
            });
        }
    };
    Version::parse(asked).ok_or_else(|| NetconfError::Version {
        asked: asked.escape_debug().to_string(),
    })
}

pub(crate) fn nonempty(text: Option<&str>) -> Option<String> {
    text.filter(|text| !text.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn parse(conf: &Value) -> Netconf {
        Netconf::parse(conf.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn an_empty_mode_means_tunnel_as_in_azures_plugin() {
        for (mode, meant) in [
            (json!(null), Mode::Tunnel),
            (json!(""), Mode::Tunnel),
            (json!("tunnel"), Mode::Tunnel),
            (json!("bridge"), Mode::Bridge),
            (json!("transparent"), Mode::Transparent),
            (json!("transparent-tunnel"), Mode::TransparentTunnel),
        ] {
            let conf = parse(&json!({"name": "azure", "mode": mode}));
            assert_eq!(conf.mode, meant);
        }
    }

    #[test]
    fn more_than_the_bound_is_not_read() {
        let endless = std::io::repeat(b' ');
        assert!(matches!(Netconf::read(endless), Err(NetconfError::TooLong)));
    }

    proptest! {
        #[test]
        fn no_input_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), key in "[a-zA-Z.]{1,12}", value in "[\\[\\]{}\",:a-z0-9]{0,20}") {
            drop(Netconf::parse(&bytes));
            Netconf::claimed_version(&bytes);
            let almost = format!("{{\"cniVersion\":\"0.3.0\",\"name\":\"azure\",\"{key}\":{value}}}");
            drop(Netconf::parse(almost.as_bytes()));
        }
    }
}
