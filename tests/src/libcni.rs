//! How does a container runtime call plug-ins? The part of libcni that containerd and CRI-O use.

use std::net::Ipv4Addr;
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Map, Value, json};

use crate::namespace::Namespace;
use crate::plugin::{self, call};
pub use crate::plugin::{CniError, exec, outcome};
use crate::process::{Finished, cut_short};

/// Where plug-ins are looked for.
pub const CNI_PATH: &str = "/opt/cni/bin";

/// The CNI verbs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Add,
    Del,
    Check,
    Version,
    Status,
    Gc,
}

impl Verb {
    /// As in `CNI_COMMAND`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Version => "VERSION",
            Self::Status => "STATUS",
            Self::Gc => "GC",
        }
    }
}

/// One container's attachment to a network, as the runtime describes it.
#[derive(Clone, Debug)]
pub struct Attachment {
    pub container_id: String,
    /// Missing when the runtime has lost the namespace already.
    pub netns: Option<String>,
    pub ifname: String,
    /// `CNI_ARGS`.
    pub args: String,
    /// Values for `runtimeConfig`, by capability, e.g. `portMappings`.
    pub capabilities: Map<String, Value>,
}

impl Attachment {
    /// What containerd says about a pod of the namespace `default`.
    pub fn of_pod(pod: &str, container_id: &str, netns: Option<String>) -> Self {
        Self {
            container_id: container_id.to_owned(),
            netns,
            ifname: "eth0".into(),
            args: format!(
                "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={pod};\
                 K8S_POD_INFRA_CONTAINER_ID={container_id}"
            ),
            capabilities: Map::new(),
        }
    }

    /// For verbs that are not about an attachment.
    fn nobody() -> Self {
        Self {
            container_id: String::new(),
            netns: None,
            ifname: String::new(),
            args: String::new(),
            capabilities: Map::new(),
        }
    }

    /// Adds a `hostPort` for `portmap`.
    #[must_use]
    pub fn host_port(self, host: u16, container: u16, protocol: &str) -> Self {
        self.map_port(json!({"hostPort": host, "containerPort": container, "protocol": protocol}))
    }

    /// The same at one address of the node only, Kubernetes' `hostIP`.
    #[must_use]
    pub fn host_port_at(self, at: Ipv4Addr, host: u16, container: u16, protocol: &str) -> Self {
        let at = at.to_string();
        self.map_port(json!({
            "hostIP": at, "hostPort": host, "containerPort": container, "protocol": protocol
        }))
    }

    fn map_port(mut self, mapping: Value) -> Self {
        let mappings = self
            .capabilities
            .entry("portMappings")
            .or_insert_with(|| json!([]));
        if let Some(mappings) = mappings.as_array_mut() {
            mappings.push(mapping);
        }
        self
    }

    /// The environment of a plug-in.
    pub fn environment(&self, verb: Verb) -> Vec<(&'static str, String)> {
        let mut environment = vec![
            ("CNI_COMMAND", verb.name().to_owned()),
            ("CNI_CONTAINERID", self.container_id.clone()),
            ("CNI_IFNAME", self.ifname.clone()),
            ("CNI_PATH", CNI_PATH.to_owned()),
            ("CNI_ARGS", self.args.clone()),
        ];
        environment.push(("CNI_NETNS", self.netns.clone().unwrap_or_default()));
        environment
    }
}

/// A network: a parsed conflist.
#[derive(Clone, Debug)]
pub struct Network {
    name: String,
    version: String,
    plugins: Vec<Map<String, Value>>,
}

impl Network {
    /// Reads a conflist as libcni does.
    pub fn parse(conflist: &[u8]) -> Result<Self> {
        let list: Value = serde_json::from_slice(conflist).context("parse the conflist")?;
        let text = |key| list.get(key).and_then(Value::as_str).map(str::to_owned);
        let plugins = list.get("plugins").and_then(Value::as_array);
        let plugins = plugins.context("the conflist has no `plugins`")?;
        let object = |plugin: &Value| plugin.as_object().cloned().context("a plugin is no object");
        Ok(Self {
            name: text("name").context("the conflist has no `name`")?,
            version: text("cniVersion").unwrap_or_else(|| "0.1.0".into()),
            plugins: plugins.iter().map(object).collect::<Result<_>>()?,
        })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn version(&self) -> &str {
        &self.version
    }

    /// The plug-ins' names, in order.
    pub fn plugins(&self) -> impl Iterator<Item = &str> {
        self.plugins.iter().map(plugin_type)
    }

    /// ADD through all plug-ins; the last result. The plug-ins already done are *not* undone on failure,
    /// as in libcni: the runtime calls DEL.
    pub fn add(&self, node: &Namespace, attachment: &Attachment) -> Result<Value> {
        let mut result = None;
        for plugin in &self.plugins {
            let netconf = self.netconf(plugin, result.as_ref(), attachment);
            result = call(node, Verb::Add, plugin_type(plugin), attachment, &netconf)?;
        }
        result.context("no plug-in printed a result")
    }

    /// DEL through all plug-ins, the last one first. `result` is what the runtime remembers of ADD; libcni
    /// hands it on from CNI version 0.4.0.
    pub fn del(
        &self,
        node: &Namespace,
        attachment: &Attachment,
        result: Option<&Value>,
    ) -> Result<()> {
        let remembered = result.filter(|_| self.at_least(0, 4));
        for plugin in self.plugins.iter().rev() {
            let netconf = self.netconf(plugin, remembered, attachment);
            call(node, Verb::Del, plugin_type(plugin), attachment, &netconf)?;
        }
        Ok(())
    }

    /// CHECK through all plug-ins.
    pub fn check(&self, node: &Namespace, attachment: &Attachment, result: &Value) -> Result<()> {
        ensure!(
            self.at_least(0, 4),
            "configuration version \"{}\" does not support CHECK command",
            self.version
        );
        for plugin in &self.plugins {
            let netconf = self.netconf(plugin, Some(result), attachment);
            call(node, Verb::Check, plugin_type(plugin), attachment, &netconf)?;
        }
        Ok(())
    }

    /// The same network in another version of the specification.
    #[must_use]
    pub fn in_version(mut self, version: &str) -> Self {
        version.clone_into(&mut self.version);
        self
    }

    /// The same network with one more key for its first plug-in.
    #[must_use]
    pub fn with(mut self, key: &str, value: Value) -> Self {
        if let Some(first) = self.plugins.first_mut() {
            first.insert(key.to_owned(), value);
        }
        self
    }

    /// GC through the first `plugins` plug-ins: all but `valid` is to go. libcni sends the list under both of its names.
    pub fn gc(&self, node: &Namespace, plugins: usize, valid: &[&Attachment]) -> Result<()> {
        ensure!(
            self.at_least(1, 1),
            "configuration version {:?} does not support GC",
            self.version
        );
        let list: Value = valid
            .iter()
            .map(|one| json!({"containerID": one.container_id, "ifname": one.ifname}))
            .collect();
        let nobody = Attachment::nobody();
        for plugin in self.plugins.iter().take(plugins) {
            let mut netconf = self.netconf(plugin, None, &nobody);
            if let Some(fields) = netconf.as_object_mut() {
                fields.insert("cni.dev/valid-attachments".into(), list.clone());
                fields.insert("cni.dev/attachments".into(), list.clone());
            }
            call(node, Verb::Gc, plugin_type(plugin), &nobody, &netconf)?;
        }
        Ok(())
    }

    /// STATUS of the first `plugins` plug-ins.
    pub fn status(&self, node: &Namespace, plugins: usize) -> Result<()> {
        ensure!(
            self.at_least(1, 1),
            "configuration version {:?} does not support STATUS",
            self.version
        );
        let nobody = Attachment::nobody();
        for plugin in self.plugins.iter().take(plugins) {
            let netconf = self.netconf(plugin, None, &nobody);
            call(node, Verb::Status, plugin_type(plugin), &nobody, &netconf)?;
        }
        Ok(())
    }

    /// The first plug-in alone, and everything that it left; what a runtime remembers of ADD is not handed on.
    pub fn first(&self, node: &Namespace, verb: Verb, attachment: &Attachment) -> Result<Finished> {
        let (plugin, stdin) = self.first_of(attachment)?;
        exec(node, plugin, &attachment.environment(verb), &stdin)
    }

    /// The same, killed with SIGKILL after `life` if it has not ended by then. What it printed is thrown away.
    pub fn first_for(
        &self,
        node: &Namespace,
        verb: Verb,
        attachment: &Attachment,
        life: Duration,
    ) -> Result<ExitStatus> {
        let (plugin, stdin) = self.first_of(attachment)?;
        let command = plugin::command(node, plugin, &attachment.environment(verb));
        cut_short(command, &stdin, life)
    }

    fn first_of(&self, attachment: &Attachment) -> Result<(&str, Vec<u8>)> {
        let plugin = self.plugins.first().context("a network without plug-ins")?;
        let netconf = self.first_netconf(attachment)?;
        Ok((plugin_type(plugin), serde_json::to_vec(&netconf)?))
    }

    /// What the first plug-in gets on stdin, without a previous result.
    pub fn first_netconf(&self, attachment: &Attachment) -> Result<Value> {
        let plugin = self.plugins.first().context("a network without plug-ins")?;
        Ok(self.netconf(plugin, None, attachment))
    }

    fn netconf(
        &self,
        plugin: &Map<String, Value>,
        result: Option<&Value>,
        attachment: &Attachment,
    ) -> Value {
        let mut netconf = plugin.clone();
        netconf.insert("name".into(), self.name.as_str().into());
        netconf.insert("cniVersion".into(), self.version.as_str().into());
        if let Some(result) = result {
            netconf.insert("prevResult".into(), result.clone());
        }
        let declared = plugin.get("capabilities").and_then(Value::as_object);
        let runtime: Map<_, _> = declared
            .into_iter()
            .flatten()
            .filter(|(_, wanted)| wanted.as_bool() == Some(true))
            .filter_map(|(key, _)| Some((key.clone(), attachment.capabilities.get(key)?.clone())))
            .collect();
        if !runtime.is_empty() {
            netconf.insert("runtimeConfig".into(), runtime.into());
        }
        netconf.into()
    }

    fn at_least(&self, major: u64, minor: u64) -> bool {
        let mut parts = self
            .version
            .split('.')
            .map(|part| part.parse().unwrap_or(0));
        let ours: (u64, u64) = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
        ours >= (major, minor)
    }
}

fn plugin_type(plugin: &Map<String, Value>) -> &str {
    plugin
        .get("type")
        .and_then(Value::as_str)
        .unwrap_or_default()
}
