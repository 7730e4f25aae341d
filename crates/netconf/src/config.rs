//! The network configuration on standard input: read with a bound, validated as a whole, unknown keys ignored.

use std::io::Read;
use std::net::Ipv4Addr;

use rpc::MacAddr;
use serde_json::Value;

use crate::args::Args;
use crate::attachments::Attachments;
use crate::dns::DnsWish;
use crate::document::{Object, lower_keys};
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
    /// What the runtime passes for this attachment alone, `mac` and `ips`.
    runtime_mac: Option<String>,
    runtime_ips: Vec<String>,
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
        let mut value: Value =
            serde_json::from_slice(bytes).map_err(|source| NetconfError::Json { source })?;
        lower_keys(&mut value);
        Self::validate(Object::root(&value).ok_or(NetconfError::NotAnObject)?)
    }

    /// The same for the IPAM plug-in. Below a main plug-in that is not ours, the keys of that one mean what it says.
    pub fn parse_for_ipam(bytes: &[u8]) -> Result<Self, NetconfError> {
        let mut value: Value =
            serde_json::from_slice(bytes).map_err(|source| NetconfError::Json { source })?;
        lower_keys(&mut value);
        let root = Object::root(&value).ok_or(NetconfError::NotAnObject)?;
        if root.text("type")? == Some(MAIN_PLUGIN) {
            return Self::validate(root);
        }
        Self::take(root, Mode::parse("")?)
    }

    pub(crate) fn validate(root: Object<'_>) -> Result<Self, NetconfError> {
        identity(root)?;
        keys::check_kinds(root)?;
        keys::refuse_unsupported(root)?;
        let mode = Mode::parse(root.text("mode")?.unwrap_or_default())?;
        Self::take(root, mode)
    }

    fn take(root: Object<'_>, mode: Mode) -> Result<Self, NetconfError> {
        let (version, name) = identity(root)?;
        let runtime = root.object("runtimeConfig")?;
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
            runtime_mac: match runtime {
                Some(runtime) => nonempty(runtime.text("mac")?),
                None => None,
            },
            runtime_ips: match runtime {
                Some(runtime) => runtime
                    .texts("ips")?
                    .into_iter()
                    .map(str::to_owned)
                    .collect(),
                None => Vec::new(),
            },
            dns: DnsWish::parse(root)?,
            via_host: keys::via_host(root)?,
            attachments: Attachments::parse(root)?,
            prev_result: root.get("prevResult").cloned(),
        })
    }

    /// The version that the request asks for as far as it can be told, for the answer to a broken request.
    pub fn claimed_version(bytes: &[u8]) -> Version {
        serde_json::from_slice(bytes)
            .ok()
            .and_then(|mut value| {
                lower_keys(&mut value);
                version(Object::root(&value)?).ok()
            })
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

    /// The Ethernet address that is asked for: capability `mac`, else `CNI_ARGS` (CONVENTIONS.md's precedence).
    pub fn mac(&self, args: &Args) -> Result<Option<MacAddr>, NetconfError> {
        let (key, text) = match &self.runtime_mac {
            Some(mac) => ("runtimeConfig.mac", mac),
            None if args.mac.is_empty() => return Ok(None),
            None => ("CNI_ARGS MAC", &args.mac),
        };
        text.parse()
            .ok()
            .filter(|MacAddr([first, ..])| first & 1 == 0)
            .map(Some)
            .ok_or_else(|| NetconfError::Value {
                key,
                value: text.clone(),
                rule: "it must be a unicast Ethernet address such as 02:00:00:00:00:01",
            })
    }

    /// The address that is asked for: capability `ips`, else `CNI_ARGS`, else `ipam.ipAddress`.
    pub fn address(&self, args: &Args) -> Result<Option<Ipv4Addr>, NetconfError> {
        let (key, text) = match self.runtime_ips.as_slice() {
            [] if args.ip.is_empty() => return Ok(self.ipam.address),
            [] => ("CNI_ARGS IP", &args.ip),
            [one] => ("runtimeConfig.ips", one),
            several => {
                return Err(NetconfError::Value {
                    key: "runtimeConfig.ips",
                    value: several.join(", "),
                    rule: "an attachment gets exactly one IPv4 address",
                });
            }
        };
        let address = text
            .split_once('/')
            .map_or(text.as_str(), |(address, _)| address);
        address
            .parse()
            .map(Some)
            .map_err(|_not_ipv4| NetconfError::Value {
                key,
                value: text.clone(),
                rule: "it must be an IPv4 address, with or without prefix length",
            })
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

fn nonempty(text: Option<&str>) -> Option<String> {
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

    fn args(text: &str) -> Args {
        Args::parse(text).unwrap()
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
    fn the_runtime_comes_before_the_arguments_and_these_before_the_configuration() {
        let ip = |last| Some(Ipv4Addr::new(10, 0, 0, last));
        let ipam = json!({"ipAddress": "10.0.0.3"});
        let all = json!({"name": "a", "ipam": ipam, "runtimeConfig": {"ips": ["10.0.0.1/24"], "mac": "02:00:00:00:00:01"}});
        let less = json!({"name": "a", "ipam": ipam});
        let given = args("IP=10.0.0.2;MAC=02:00:00:00:00:02");
        let none = args("");
        for (conf, args, address, mac) in [
            (&all, &given, ip(1), Some(1)),
            (&less, &given, ip(2), Some(2)),
            (&less, &none, ip(3), None),
            (&json!({"name": "a"}), &none, None, None),
        ] {
            let conf = parse(conf);
            assert_eq!(conf.address(args).unwrap(), address);
            let mac = mac.map(|last| MacAddr([2, 0, 0, 0, 0, last]));
            assert_eq!(conf.mac(args).unwrap(), mac);
        }
    }

    #[test]
    fn several_or_foreign_addresses_are_refused() {
        for ips in [
            json!(["10.0.0.1", "10.0.0.2"]),
            json!(["fd00::1"]),
            json!([""]),
        ] {
            let conf = parse(&json!({"name": "a", "runtimeConfig": {"ips": ips}}));
            conf.address(&args("")).unwrap_err();
        }
        for mac in ["x", "ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01"] {
            let conf = parse(&json!({"name": "a", "runtimeConfig": {"mac": mac}}));
            conf.mac(&args("")).unwrap_err();
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
