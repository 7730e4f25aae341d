//! What `dns` and `runtimeConfig.dns` want the result to say.

use std::net::IpAddr;

use crate::document::Object;
use crate::error::NetconfError;
use crate::result::Dns;

/// What is asked for; empty fields ask for nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DnsWish {
    /// `dns`: if it says anything, it replaces what the IPAM plug-in says.
    conf: Dns,
    /// `runtimeConfig.dns`: each field that is there replaces that field.
    runtime: Dns,
}

impl DnsWish {
    pub(crate) fn parse(root: Object<'_>) -> Result<Self, NetconfError> {
        let mut wish = Self::default();
        if let Some(dns) = root.object("dns")? {
            wish.conf = Dns {
                nameservers: servers(dns, "nameservers", "dns.nameservers")?,
                domain: dns.text("domain")?.unwrap_or_default().to_owned(),
                search: texts(dns, "search")?,
                options: texts(dns, "options")?,
            };
        }
        let runtime = root.object("runtimeConfig")?;
        if let Some(runtime) = runtime
            && let Some(dns) = runtime.object("dns")?
        {
            wish.runtime = Dns {
                nameservers: servers(dns, "servers", "runtimeConfig.dns.servers")?,
                domain: String::new(),
                search: texts(dns, "searches")?,
                options: texts(dns, "options")?,
            };
        }
        Ok(wish)
    }

    /// What the result says when the IPAM plug-in says `offered`.
    pub(crate) fn over(&self, offered: Dns) -> Dns {
        let base = if self.conf == Dns::default() {
            offered
        } else {
            self.conf.clone()
        };
        let or = |wanted: &Vec<String>, base: Vec<String>| {
            if wanted.is_empty() {
                base
            } else {
                wanted.clone()
            }
        };
        Dns {
            nameservers: or(&self.runtime.nameservers, base.nameservers),
            domain: base.domain,
            search: or(&self.runtime.search, base.search),
            options: or(&self.runtime.options, base.options),
        }
    }
}

fn texts(dns: Object<'_>, key: &str) -> Result<Vec<String>, NetconfError> {
    Ok(dns.texts(key)?.into_iter().map(str::to_owned).collect())
}

/// Runtimes refuse names here.
fn servers(dns: Object<'_>, key: &str, path: &'static str) -> Result<Vec<String>, NetconfError> {
    let servers = texts(dns, key)?;
    match servers.iter().find(|text| text.parse::<IpAddr>().is_err()) {
        None => Ok(servers),
        Some(bad) => Err(NetconfError::Value {
            key: path,
            value: bad.escape_debug().to_string(),
            rule: "it must be a list of IP addresses",
        }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::document::lowered;

    fn said(conf: &Value) -> Result<Value, NetconfError> {
        let conf = lowered(conf.to_string().as_bytes()).unwrap();
        let wish = DnsWish::parse(Object::root(&conf).unwrap())?;
        let offered = Dns {
            nameservers: vec!["168.63.129.16".into()],
            search: vec!["ipam".into()],
            ..Dns::default()
        };
        Ok(json!(wish.over(offered)))
    }

    #[test]
    fn the_configuration_replaces_all_and_the_runtime_what_it_names() {
        let ipam = json!({"nameservers": ["168.63.129.16"], "search": ["ipam"]});
        for (conf, result) in [
            (json!({}), ipam.clone()),
            (json!({"dns": {}}), ipam.clone()),
            (json!({"dns": {"nameservers": []}}), ipam),
            (
                json!({"dns": {"nameservers": ["10.0.0.10"]}}),
                json!({"nameservers": ["10.0.0.10"]}),
            ),
            (
                json!({"dns": {"domain": "d"}, "runtimeConfig": {"dns": {"Servers": ["fd00::1"], "Options": ["ndots:5"]}}}),
                json!({"nameservers": ["fd00::1"], "domain": "d", "options": ["ndots:5"]}),
            ),
            (
                json!({"runtimeConfig": {"dns": {"searches": ["a", "b"]}}}),
                json!({"nameservers": ["168.63.129.16"], "search": ["a", "b"]}),
            ),
        ] {
            assert_eq!(said(&conf).unwrap(), result, "{conf}");
        }
    }

    #[test]
    fn a_server_is_an_address_and_lists_are_lists() {
        for (conf, word) in [
            (json!({"dns": {"nameservers": ["x"]}}), "dns.nameservers"),
            (json!({"dns": {"search": "x"}}), "dns.search"),
            (json!({"dns": []}), "dns"),
            (
                json!({"runtimeConfig": {"dns": {"Servers": ["ns.example"]}}}),
                "runtimeConfig.dns.servers",
            ),
        ] {
            let error = said(&conf).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
