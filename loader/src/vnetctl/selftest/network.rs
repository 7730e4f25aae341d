//! The plug-ins of the conflist, called as a runtime calls them: in their order, each with what the ones before it made.

use anyhow::{Context as _, Result};
use serde_json::{Map, Value, json};

use super::published::Published;
use crate::vnetctl::doctor::Node;

/// What the conflist says.
#[derive(Clone)]
pub(super) struct Network {
    name: Value,
    version: String,
    plugins: Vec<Map<String, Value>>,
}

impl Network {
    /// The conflist that names azure-vnet.
    pub(super) fn of(node: &Node) -> Result<Self> {
        let ours = node
            .ours()
            .context("no file in /etc/cni/net.d names azure-vnet")?;
        Self::parse(&ours.text).with_context(|| format!("read {}", ours.path.display()))
    }

    fn parse(text: &str) -> Result<Self> {
        let list: Value = serde_json::from_str(text)?;
        // A file with one plug-in has no list.
        let alone = || vec![list.clone()];
        let plugins = list.get("plugins").and_then(Value::as_array).cloned();
        let plugins = plugins.unwrap_or_else(alone).into_iter().map(|plugin| {
            let Value::Object(fields) = plugin else {
                anyhow::bail!("a plug-in's configuration is no object");
            };
            Ok(fields)
        });
        let version = list.get("cniVersion").and_then(Value::as_str);
        Ok(Self {
            name: list.get("name").cloned().unwrap_or_default(),
            version: version.unwrap_or("0.1.0").to_owned(),
            plugins: plugins.collect::<Result<_>>()?,
        })
    }

    /// Whether a plug-in maps ports of the node to pods.
    pub(super) fn publishes(&self) -> bool {
        self.plugins.iter().any(publishes)
    }

    /// ADD through all plug-ins, by `call`, which runs the one that is named; the last result.
    pub(super) fn add(
        &self,
        published: Option<Published>,
        mut call: impl FnMut(&str, &Value) -> Result<Value>,
    ) -> Result<Value> {
        let mut result = None;
        for plugin in &self.plugins {
            let conf = self.conf(plugin, published, result.as_ref());
            result = Some(call(kind(plugin), &conf)?);
        }
        result.context("the conflist has no plug-in")
    }

    /// DEL through all plug-ins, the last one first. Unlike a runtime, which comes again, it goes on after one that fails.
    pub(super) fn del(
        &self,
        published: Option<Published>,
        result: Option<&Value>,
        mut call: impl FnMut(&str, &Value) -> Result<Value>,
    ) -> Result<()> {
        // Before, DEL is not told of it.
        let told = !["0.1.", "0.2.", "0.3."]
            .iter()
            .any(|old| self.version.starts_with(old));
        let mut done = Ok(());
        for plugin in self.plugins.iter().rev() {
            let conf = self.conf(plugin, published, result.filter(|_| told));
            done = done.and(call(kind(plugin), &conf).map(drop));
        }
        done
    }

    fn conf(
        &self,
        plugin: &Map<String, Value>,
        published: Option<Published>,
        result: Option<&Value>,
    ) -> Value {
        let mut conf = plugin.clone();
        conf.insert("name".into(), self.name.clone());
        conf.insert("cniVersion".into(), self.version.as_str().into());
        if let Some(result) = result {
            conf.insert("prevResult".into(), result.clone());
        }
        if let Some(published) = published.filter(|_| publishes(plugin)) {
            let ports = json!({"portMappings": published.mappings()});
            conf.insert("runtimeConfig".into(), ports);
        }
        conf.into()
    }
}

fn kind(plugin: &Map<String, Value>) -> &str {
    plugin
        .get("type")
        .and_then(Value::as_str)
        .unwrap_or_default()
}

fn publishes(plugin: &Map<String, Value>) -> bool {
    plugin
        .get("capabilities")
        .and_then(|capabilities| capabilities.get("portMappings"))
        == Some(&Value::Bool(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORT: Published = Published { host: 40000 };

    /// What is called, in its order, with what of its configuration a runtime adds.
    fn calls(conflist: &Value) -> Vec<(String, Value)> {
        let network = Network::parse(&conflist.to_string()).unwrap();
        let mut calls = Vec::new();
        let mut call = |kind: &str, conf: &Value| {
            let keys = ["name", "prevResult", "runtimeConfig"];
            let added: Map<_, _> = keys
                .iter()
                .filter_map(|key| Some(((*key).to_owned(), conf.get(key)?.clone())))
                .collect();
            calls.push((kind.to_owned(), added.into()));
            Ok(json!(kind))
        };
        let result = network.add(Some(PORT), &mut call).unwrap();
        network.del(Some(PORT), Some(&result), &mut call).unwrap();
        calls
    }

    #[test]
    fn each_plug_in_gets_what_a_runtime_gives_it() {
        let chain = |version| {
            json!({"cniVersion": version, "name": "n", "plugins": [
                {"type": "azure-vnet"},
                {"type": "portmap", "capabilities": {"portMappings": true, "other": true}},
                {"type": "tuning", "capabilities": {"portMappings": false}},
            ]})
        };
        let ports = json!({"portMappings": PORT.mappings()});
        let add = [
            ("azure-vnet".to_owned(), json!({"name": "n"})),
            (
                "portmap".to_owned(),
                json!({"name": "n", "prevResult": "azure-vnet", "runtimeConfig": ports}),
            ),
            (
                "tuning".to_owned(),
                json!({"name": "n", "prevResult": "portmap"}),
            ),
        ];
        let told = calls(&chain("0.4.0"));
        assert_eq!(told[..3], add);
        assert_eq!(
            told[3..],
            ["tuning", "portmap", "azure-vnet"].map(|kind| {
                let mut added = json!({"name": "n", "prevResult": "tuning"});
                if kind == "portmap" {
                    added["runtimeConfig"] = ports.clone();
                }
                (kind.to_owned(), added)
            })
        );
        let earlier = calls(&chain("0.3.1"));
        assert_eq!(earlier[..3], add);
        assert!(
            earlier[3..]
                .iter()
                .all(|(_, added)| added.get("prevResult").is_none())
        );
        let alone = calls(&json!({"cniVersion": "1.0.0", "name": "n", "type": "azure-vnet"}));
        assert_eq!(alone.len(), 2);
    }

    #[test]
    fn a_plug_in_that_fails_keeps_no_other_from_its_del() {
        let conflist = json!({"plugins": [{"type": "a"}, {"type": "b"}]});
        let network = Network::parse(&conflist.to_string()).unwrap();
        let mut called = Vec::new();
        let failed = network.del(None, None, |kind, _| {
            called.push(kind.to_owned());
            anyhow::bail!("{kind} fails")
        });
        assert_eq!(called, ["b", "a"]);
        assert_eq!(failed.unwrap_err().to_string(), "b fails");
    }
}
