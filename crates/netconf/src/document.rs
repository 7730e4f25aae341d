//! A JSON document whose keys are found whatever their case, as Go's decoder does it.
//!
//! Every runtime is written in Go and relies on that: containerd sends Go's field names (`HostPort`), podman the
//! documented ones (`hostPort`). So all keys are lowered once; values keep their case.

use ipnet::Ipv4Net;
use serde_json::{Map, Value};

/// A value of the wrong kind.
#[derive(Debug, thiserror::Error)]
#[error("`{path}` is {found}, but must be {wanted}")]
pub struct WrongKind {
    /// Where, for example `ipam.subnet`.
    path: String,
    /// The value, shortened.
    found: String,
    wanted: &'static str,
}

impl WrongKind {
    /// Where in the configuration, for example `ipam.subnet`.
    pub fn path(&self) -> &str {
        &self.path
    }
}

/// A JSON object, and where it lies in the document.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Object<'a> {
    prefix: &'a str,
    fields: &'a Map<String, Value>,
}

/// Lowers every key of `value`. Of two keys that differ only in case, the one in lower case wins.
pub fn lower_keys(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(lower_keys),
        Value::Object(fields) => {
            // The map is sorted and capitals come first, so that the lower-case spelling is inserted last.
            *fields = std::mem::take(fields)
                .into_iter()
                .map(|(key, mut value)| {
                    lower_keys(&mut value);
                    (key.to_lowercase(), value)
                })
                .collect();
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

impl<'a> Object<'a> {
    /// The document's root. `None` when it is no object.
    pub(crate) fn root(value: &'a Value) -> Option<Self> {
        value.as_object().map(|fields| Self { prefix: "", fields })
    }

    /// The value at `key` as it is; JSON's `null` counts as absent, as in Go.
    pub(crate) fn get(&self, key: &str) -> Option<&'a Value> {
        self.fields
            .get(&key.to_lowercase())
            .filter(|value| !value.is_null())
    }

    /// A string.
    pub(crate) fn text(&self, key: &str) -> Result<Option<&'a str>, WrongKind> {
        self.take(key, "a string", Value::as_str)
    }

    /// A boolean.
    pub(crate) fn flag(&self, key: &str) -> Result<Option<bool>, WrongKind> {
        self.take(key, "true or false", Value::as_bool)
    }

    /// A number.
    pub(crate) fn number(&self, key: &str) -> Result<Option<f64>, WrongKind> {
        self.take(key, "a number", Value::as_f64)
    }

    /// An object.
    pub(crate) fn object(&self, key: &'a str) -> Result<Option<Object<'a>>, WrongKind> {
        let fields = self.take(key, "an object", Value::as_object)?;
        Ok(fields.map(|fields| Object {
            prefix: key,
            fields,
        }))
    }

    /// A list of strings.
    pub(crate) fn texts(&self, key: &str) -> Result<Vec<&'a str>, WrongKind> {
        let list = self.take(key, "a list of strings", |value| {
            value
                .as_array()?
                .iter()
                .map(Value::as_str)
                .collect::<Option<Vec<&str>>>()
        })?;
        Ok(list.unwrap_or_default())
    }

    /// Whether `key` is there, with whatever value.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.fields.contains_key(&key.to_lowercase())
    }

    /// A list of anything; empty when it is absent.
    pub(crate) fn list(&self, key: &str) -> Result<&'a [Value], WrongKind> {
        let list = self.take(key, "a list", |value| value.as_array().map(Vec::as_slice))?;
        Ok(list.unwrap_or_default())
    }

    /// An IPv4 prefix.
    pub(crate) fn prefix(&self, key: &str) -> Result<Option<Ipv4Net>, WrongKind> {
        self.take(
            key,
            "an IPv4 prefix such as 10.240.0.0/16",
            |value| match value.as_str()? {
                "" => Some(None),
                text => text.parse().ok().map(Some),
            },
        )
        .map(Option::flatten)
    }

    fn take<T>(
        &self,
        key: &str,
        wanted: &'static str,
        convert: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, WrongKind> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        convert(value).map(Some).ok_or_else(|| WrongKind {
            path: if self.prefix.is_empty() {
                key.to_owned()
            } else {
                format!("{}.{key}", self.prefix)
            },
            found: value.to_string().chars().take(60).collect(),
            wanted,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_are_found_in_any_case_and_values_keep_theirs() {
        let mut value =
            json!({"NAME": "Azure", "RuntimeConfig": {"Ips": ["A"]}, "list": [{"HostPort": 1}]});
        lower_keys(&mut value);
        let root = Object::root(&value).unwrap();
        assert_eq!(root.text("name").unwrap(), Some("Azure"));
        let runtime = root.object("runtimeConfig").unwrap().unwrap();
        assert_eq!(runtime.texts("ips").unwrap(), ["A"]);
        assert_eq!(value["list"][0]["hostport"], 1);
    }

    #[test]
    fn a_wrong_kind_names_the_path_and_the_value() {
        let value = json!({"ipam": {"subnet": "10.0.0.0/99"}, "mode": 5, "none": null});
        let root = Object::root(&value).unwrap();
        let error = root.text("mode").unwrap_err().to_string();
        assert_eq!(error, "`mode` is 5, but must be a string");
        let ipam = root.object("ipam").unwrap().unwrap();
        let error = ipam.prefix("subnet").unwrap_err().to_string();
        assert!(
            error.starts_with("`ipam.subnet` is \"10.0.0.0/99\""),
            "{error}"
        );
        assert_eq!(root.text("none").unwrap(), None);
    }
}
