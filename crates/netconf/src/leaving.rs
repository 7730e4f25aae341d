//! What DEL needs of a configuration. It may have changed since ADD and be one by now that ADD would refuse, and an operator
//! who cleans up by hand has a whole list at hand: neither may keep an attachment alive.

use std::borrow::Cow;
use std::net::Ipv4Addr;

use serde_json::Value;

use crate::document::{Object, lowered};

use crate::config::{Netconf, identity};
use crate::error::NetconfError;
use crate::ipam::is_plugin_name;

/// A configuration on the way out.
#[derive(Debug)]
pub struct Leaving<'a> {
    pub name: String,
    /// The IPAM plug-in, if one is named that could have been asked at ADD.
    pub plugin: Option<String>,
    /// `ipam.ipAddress`, in a configuration that ADD would take.
    pub address: Option<Ipv4Addr>,
    /// What that plug-in gets: what was sent, or what a runtime would have made of the list.
    pub stdin: Cow<'a, [u8]>,
    /// Why ADD would refuse it.
    pub complaint: Option<NetconfError>,
}

impl<'a> Leaving<'a> {
    /// Strict about JSON, `cniVersion` and `name` only.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, NetconfError> {
        let broken = |source| NetconfError::Json { source };
        let mut value = lowered(bytes).map_err(broken)?;
        let mut stdin = Cow::Borrowed(bytes);
        if value.get("plugins").is_some()
            && let Some(one) = out_of_list(&serde_json::from_slice(bytes).map_err(broken)?)
        {
            let one = one.to_string().into_bytes();
            value = lowered(&one).map_err(broken)?;
            stdin = one.into();
        }
        let root = Object::root(&value).ok_or(NetconfError::NotAnObject)?;
        let (_, name) = identity(root)?;
        let (plugin, address, complaint) = match Netconf::of_any(root) {
            Ok(netconf) => (netconf.ipam.plugin, netconf.ipam.address, None),
            Err(complaint) => (usable_plugin(root), None, Some(complaint)),
        };
        Ok(Self {
            name,
            plugin,
            address,
            stdin,
            complaint,
        })
    }
}

/// As a runtime does it: the plug-in of the list that has an IPAM plug-in, with the list's name and version.
fn out_of_list(list: &Value) -> Option<Value> {
    let mut one = list
        .get("plugins")?
        .as_array()?
        .iter()
        .find(|plugin| plugin.get("ipam").is_some_and(Value::is_object))?
        .clone();
    let fields = one.as_object_mut()?;
    for key in ["cniVersion", "name"] {
        if let Some(value) = list.get(key) {
            fields.insert(key.to_owned(), value.clone());
        }
    }
    Some(one)
}

fn usable_plugin(root: Object<'_>) -> Option<String> {
    let ipam = root.object("ipam").ok()??;
    let name = ipam.text("type").ok()??;
    is_plugin_name(name).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_json_version_and_name_are_insisted_on() {
        for (conf, plugin) in [
            (
                json!({"name": "azure", "mode": "nonsense", "ipam": {"type": "x"}}),
                Some("x"),
            ),
            (
                json!({"name": "azure", "disableAsyncDelete": "true", "ipam": {"type": "x"}}),
                Some("x"),
            ),
            (
                json!({"name": "azure", "ipam": {"type": "azure-cns"}}),
                None,
            ),
            (json!({"name": "azure", "ipam": {"type": "../x"}}), None),
            (json!({"name": "azure", "ipam": []}), None),
        ] {
            let text = conf.to_string();
            let leaving = Leaving::parse(text.as_bytes()).unwrap();
            assert_eq!(
                (leaving.name.as_str(), leaving.plugin.as_deref()),
                ("azure", plugin)
            );
            assert!(leaving.complaint.is_some(), "{text}");
        }
        for broken in [
            "{",
            "[]",
            "{}",
            r#"{"name":"../x"}"#,
            r#"{"name":"a","cniVersion":"9"}"#,
        ] {
            Leaving::parse(broken.as_bytes()).unwrap_err();
        }
    }

    #[test]
    fn of_a_list_the_plugin_with_addresses_leaves() {
        let list = json!({"cniVersion": "0.4.0", "name": "azure", "plugins": [
            {"type": "first"}, {"type": "azure-vnet", "ipam": {"type": "x", "KEY": 1}}, {"type": "portmap"}]});
        let text = list.to_string();
        let leaving = Leaving::parse(text.as_bytes()).unwrap();
        assert!(leaving.complaint.is_none());
        assert_eq!(leaving.plugin.as_deref(), Some("x"));
        let stdin: Value = serde_json::from_slice(&leaving.stdin).unwrap();
        assert_eq!(
            stdin,
            json!({"cniVersion": "0.4.0", "name": "azure", "type": "azure-vnet", "ipam": {"type": "x", "KEY": 1}})
        );
    }
}
