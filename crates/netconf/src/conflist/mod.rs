//! Is a conflist right? Asked offline, answered by the same code that ADD uses.

use serde::Serialize;
use serde_json::Value;

use crate::config::{IPAM_PLUGIN, MAIN_PLUGIN, Netconf, identity};
use crate::document::{Object, lowered};
use crate::error::NetconfError;
use crate::ipam::is_plugin_name;
use crate::keys;
use crate::nearest::nearest;
use crate::place::line_of;
use crate::version::Version;

/// The keys of a list; whatever else a plug-in has is its own.
const LIST_KEYS: [&str; 8] = [
    "cniVersion",
    "cniVersions",
    "name",
    "plugins",
    "disableCheck",
    "disableGC",
    "loadOnlyInlinedPlugins",
    "capabilities",
];
/// A key with at most this many wrong letters is taken for another one.
const TYPO: usize = 3;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Pods cannot be added.
    Error,
    /// Probably not what was meant.
    Warning,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// Where in the text, from 1.
    pub line: usize,
    /// Which key, for example `plugins.0.ipam.subnet`; empty for the whole.
    pub path: String,
    /// What, why, and what to do.
    pub message: String,
}

/// Everything that is wrong with a conflist, in the order of its lines.
pub fn check(text: &str) -> Vec<Finding> {
    let read = lowered(text.as_bytes()).and_then(|list| Ok((list, serde_json::from_str(text)?)));
    let (list, original): (Value, Value) = match read {
        Ok(both) => both,
        Err(error) => {
            return vec![Finding {
                severity: Severity::Error,
                line: error.line(),
                path: String::new(),
                message: format!("not JSON: {error}"),
            }];
        }
    };
    let mut checker = Checker {
        text,
        findings: Vec::new(),
    };
    checker.list(&list, &original);
    let mut findings = checker.findings;
    findings.sort_by_key(|finding| (finding.line, finding.severity));
    findings
}

struct Checker<'a> {
    text: &'a str,
    findings: Vec<Finding>,
}

impl Checker<'_> {
    fn say(&mut self, severity: Severity, path: &[String], message: impl Into<String>) {
        self.findings.push(Finding {
            severity,
            line: line_of(self.text, path),
            path: path.join("."),
            message: message.into(),
        });
    }

    fn error(&mut self, path: &[String], message: impl Into<String>) {
        self.say(Severity::Error, path, message);
    }

    fn warning(&mut self, path: &[String], message: impl Into<String>) {
        self.say(Severity::Warning, path, message);
    }

    fn list(&mut self, list: &Value, original: &Value) {
        let Some(root) = Object::root(list) else {
            return self.error(&[], "a conflist is a JSON object");
        };
        if let Err(error) = identity(root) {
            self.error(&of_key("", &error), error.to_string());
        }
        self.versions(root);
        self.unknown(original, &[], LIST_KEYS);
        let plugins = match root.list("plugins") {
            Ok([]) => {
                return self.error(
                    &["plugins".into()],
                    "`plugins` is missing or empty: a conflist names at least azure-vnet there",
                );
            }
            Ok(plugins) => plugins,
            Err(error) => return self.error(&["plugins".into()], error.to_string()),
        };
        for (index, plugin) in plugins.iter().enumerate() {
            let raw = value_at(original, "plugins").and_then(|plugins| plugins.get(index));
            self.plugin(index, plugin, raw.unwrap_or(&Value::Null), list);
        }
    }

    /// libcni takes the highest of these that it knows.
    fn versions(&mut self, root: Object<'_>) {
        let path = ["cniVersions".to_owned()];
        match root.texts("cniVersions") {
            Err(error) => self.error(&path, error.to_string()),
            Ok(versions) => {
                for asked in versions
                    .iter()
                    .filter(|text| Version::parse(text).is_none())
                {
                    let known = Version::list();
                    self.error(
                        &path,
                        format!("cniVersions has `{asked}`, which azure-vnet does not speak; it speaks {known}"),
                    );
                }
            }
        }
    }

    fn plugin(&mut self, index: usize, plugin: &Value, original: &Value, list: &Value) {
        let path = ["plugins".to_owned(), index.to_string()];
        let Some(fields) = Object::root(plugin) else {
            return self.error(&path, "a plug-in's configuration is an object");
        };
        let of_type = [path.as_slice(), &["type".into()]].concat();
        let kind = match fields.text("type") {
            Err(error) => return self.error(&of_type, error.to_string()),
            Ok(kind) => kind.unwrap_or_default(),
        };
        if !is_plugin_name(kind) {
            return self.error(
                &of_type,
                format!(
                    "type=`{}` is no file name of a plug-in",
                    kind.escape_debug()
                ),
            );
        }
        match (index, kind) {
            (0, _) => self.first(kind, plugin, original, list),
            (_, MAIN_PLUGIN) => self.error(
                &of_type,
                "azure-vnet must be first in the list: its result has its own interfaces only",
            ),
            (_, "bandwidth") if main_is_ours(list) => self.warning(
                &of_type,
                "bandwidth cannot limit pods of azure-vnet: with an egress limit ADD fails, and fast packets pass an ingress limit; remove it",
            ),
            _ => {}
        }
    }

    /// azure-vnet, or another main plug-in with azure-vnet-ipam under it.
    fn first(&mut self, kind: &str, plugin: &Value, original: &Value, list: &Value) {
        let path = "plugins.0";
        let ipam_type = value_at(plugin, "ipam").and_then(|ipam| value_at(ipam, "type"));
        let has_our_ipam = ipam_type.and_then(Value::as_str) == Some(IPAM_PLUGIN);
        if kind != MAIN_PLUGIN && !has_our_ipam {
            return self.error(
                &steps(&format!("{path}.type")),
                format!("the first plug-in is `{kind}`: neither azure-vnet nor one with ipam.type azure-vnet-ipam"),
            );
        }
        self.values(path, plugin, list);
        if kind == MAIN_PLUGIN {
            self.unknown(original, &steps(path), keys::known());
            if Object::root(plugin).is_some_and(keys::wants_limits) {
                self.warning(
                    &steps(&format!("{path}.capabilities.bandwidth")),
                    "azure-vnet limits no bandwidth: the runtime would hand it the limits of a pod that has some, and ADD refuses them; remove the capability (the plug-in `bandwidth` after azure-vnet cannot limit such pods either)",
                );
            }
            for key in ["serviceCidrs", "vnetCidrs"] {
                if plugin
                    .get(key.to_lowercase())
                    .and_then(Value::as_str)
                    .is_some_and(|text| !text.is_empty())
                {
                    self.warning(
                        &steps(&format!("{path}.{key}")),
                        format!(
                            "{key} has no effect here; write it into /etc/azure-vnet/loader.yaml"
                        ),
                    );
                }
            }
        }
        if has_our_ipam && let Some(ipam) = value_at(original, "ipam") {
            self.unknown(ipam, &steps(&format!("{path}.ipam")), keys::known_of_ipam());
        }
    }

    /// What ADD would refuse. It tells one fault and ends; here, each is put aside for the next.
    fn values(&mut self, path: &str, plugin: &Value, list: &Value) {
        let mut one = plugin.clone();
        // As a runtime does it; what is wrong with the list has been told.
        let of_list = Object::root(list).and_then(|root| identity(root).ok());
        let (version, name) = of_list.unwrap_or((Version::UNSAID, "azure".to_owned()));
        if let Some(fields) = one.as_object_mut() {
            fields.insert("cniversion".into(), version.as_str().into());
            fields.insert("name".into(), name.into());
        }
        let mut aside: Vec<String> = Vec::new();
        loop {
            let validated = Object::root(&one)
                .ok_or(NetconfError::NotAnObject)
                .and_then(Netconf::of_any)
                .and_then(|netconf| netconf.ipam_plugin().map(drop));
            let Err(error) = validated else { return };
            let key = error.key().unwrap_or_default().to_lowercase();
            if aside.contains(&key) {
                return;
            }
            self.error(&of_key(path, &error), error.to_string());
            if !remove(&mut one, &key) {
                return;
            }
            aside.push(key);
        }
    }

    /// Plug-ins ignore what they do not know; people seldom mean that.
    fn unknown(
        &mut self,
        object: &Value,
        path: &[String],
        known: impl IntoIterator<Item = &'static str>,
    ) {
        let known: Vec<&str> = known.into_iter().collect();
        for key in object
            .as_object()
            .into_iter()
            .flat_map(|fields| fields.keys())
        {
            let is_known = known.iter().any(|one| one.eq_ignore_ascii_case(key));
            if is_known || key.contains('/') {
                continue;
            }
            let hint = nearest(key, known.iter().copied())
                .filter(|(_, distance)| *distance <= TYPO)
                .map(|(meant, _)| format!("; did you mean `{meant}`?"));
            let at = [path, std::slice::from_ref(key)].concat();
            self.warning(
                &at,
                format!(
                    "unknown key `{}`, which is ignored{}",
                    key.escape_debug(),
                    hint.unwrap_or_default()
                ),
            );
        }
    }
}

/// Whether the list's first plug-in is azure-vnet.
fn main_is_ours(list: &Value) -> bool {
    let first = value_at(list, "plugins").and_then(|plugins| plugins.get(0));
    first.and_then(|first| value_at(first, "type")) == Some(&Value::from(MAIN_PLUGIN))
}

fn steps(path: &str) -> Vec<String> {
    path.split('.')
        .filter(|step| !step.is_empty())
        .map(str::to_owned)
        .collect()
}

/// Where the error's key is, below `path`.
fn of_key(path: &str, error: &NetconfError) -> Vec<String> {
    let key = error.key().unwrap_or_default();
    steps(&format!("{path}.{key}"))
}

/// Whether the key was there.
fn remove(object: &mut Value, path: &str) -> bool {
    let (parents, key) = path.rsplit_once('.').unwrap_or(("", path));
    let parent = parents
        .split('.')
        .filter(|step| !step.is_empty())
        .try_fold(object, |object, step| object.get_mut(step));
    parent
        .and_then(Value::as_object_mut)
        .is_some_and(|fields| fields.remove(key).is_some())
}

fn value_at<'a>(object: &'a Value, key: &str) -> Option<&'a Value> {
    let fields = object.as_object()?;
    let found = fields
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(key));
    found.map(|(_, value)| value)
}

#[cfg(test)]
mod tests;
