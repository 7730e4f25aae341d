//! The addresses that are asked for this attachment alone. Several places can say them; the order is that of the CNI
//! project's CONVENTIONS.md: `runtimeConfig`, then `args.cni`, then `CNI_ARGS`.

use std::net::Ipv4Addr;

use rpc::MacAddr;

use crate::args::Args;
use crate::config::nonempty;
use crate::document::Object;
use crate::error::NetconfError;

/// What the configuration says, each with the key that says it.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    mac: Option<(&'static str, String)>,
    ips: Option<(&'static str, Vec<String>)>,
}

impl Asked {
    pub(crate) fn parse(root: Object<'_>) -> Result<Self, NetconfError> {
        let mut asked = Self {
            mac: None,
            ips: None,
        };
        let args = root.object("args").ok().flatten();
        for (place, mac, ips) in [
            (
                root.object("runtimeConfig")?,
                "runtimeConfig.mac",
                "runtimeConfig.ips",
            ),
            (
                // Whoever wrote something else there did not mean us.
                args.and_then(|args| args.object("cni").ok().flatten()),
                "args.cni.mac",
                "args.cni.ips",
            ),
        ] {
            let Some(place) = place else { continue };
            let its_mac = nonempty(place.text("mac")?);
            let its_ips = place.texts("ips")?.into_iter().map(str::to_owned);
            let its_ips: Vec<String> = its_ips.collect();
            asked.mac = asked.mac.or(its_mac.map(|text| (mac, text)));
            let its_ips = (!its_ips.is_empty()).then_some((ips, its_ips));
            asked.ips = asked.ips.or(its_ips);
        }
        Ok(asked)
    }

    pub(crate) fn mac(&self, args: &Args) -> Result<Option<MacAddr>, NetconfError> {
        let (key, text) = match &self.mac {
            Some((key, mac)) => (*key, mac),
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

    pub(crate) fn address(&self, args: &Args) -> Result<Option<Ipv4Addr>, NetconfError> {
        let (key, text) = match &self.ips {
            None if args.ip.is_empty() => return Ok(None),
            None => ("CNI_ARGS IP", &args.ip),
            Some((key, ips)) => match ips.as_slice() {
                [one] => (*key, one),
                several => {
                    return Err(NetconfError::Value {
                        key,
                        value: several.join(", "),
                        rule: "an attachment gets exactly one IPv4 address",
                    });
                }
            },
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::config::Netconf;

    fn parse(conf: &Value) -> Netconf {
        Netconf::parse(conf.to_string().as_bytes()).unwrap()
    }

    fn args(text: &str) -> Args {
        Args::parse(text).unwrap()
    }

    #[test]
    fn the_runtime_comes_before_the_arguments_and_these_before_the_configuration() {
        let ip = |last| Some(Ipv4Addr::new(10, 0, 0, last));
        let ipam = json!({"ipAddress": "10.0.0.3"});
        let cni = json!({"cni": {"ips": ["10.0.0.4"], "mac": "02:00:00:00:00:04"}});
        let all = json!({"name": "a", "ipam": ipam, "args": cni, "runtimeConfig": {"ips": ["10.0.0.1/24"], "mac": "02:00:00:00:00:01"}});
        let some = json!({"name": "a", "ipam": ipam, "args": cni, "runtimeConfig": {"ips": []}});
        let less = json!({"name": "a", "ipam": ipam});
        let given = args("IP=10.0.0.2;MAC=02:00:00:00:00:02");
        let none = args("");
        for (conf, args, address, mac) in [
            (&all, &given, ip(1), Some(1)),
            (&some, &given, ip(4), Some(4)),
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
    fn foreign_arguments_are_passed_over() {
        for foreign in [
            json!(5),
            json!({"cni": 5}),
            json!({"cni": {}}),
            json!({"labels": []}),
        ] {
            let conf = parse(&json!({"name": "a", "args": foreign}));
            assert_eq!(conf.address(&args("")).unwrap(), None);
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
}
