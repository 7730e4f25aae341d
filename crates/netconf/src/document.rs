//! A JSON document whose keys are found whatever their case, as Go's decoder does it.
//!
//! Every runtime is written in Go and relies on that: containerd sends Go's field names (`HostPort`), podman the
//! documented ones (`hostPort`). So all keys are lowered once; values keep their case.

use std::fmt;

use ipnet::Ipv4Net;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
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

/// Reads a document, with every key in lower case. Of two that differ only in case the last counts, unless it is `null`, as in Go;
/// two objects are not merged, and a list is not emptied by `null`, which Go does.
pub fn lowered(bytes: &[u8]) -> serde_json::Result<Value> {
    serde_json::from_slice(bytes).map(|Lowered(value)| value)
}

struct Lowered(Value);

impl<'de> Deserialize<'de> for Lowered {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Lowering).map(Self)
    }
}

struct Lowering;

impl<'de> Visitor<'de> for Lowering {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(Lowered(item)) = sequence.next_element()? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        while let Some((key, Lowered(value))) = map.next_entry::<String, _>()? {
            let key = key.to_lowercase();
            if !value.is_null() || !fields.contains_key(&key) {
                fields.insert(key, value);
            }
        }
        Ok(Value::Object(fields))
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
        let text =
            br#"{"NAME": "Azure", "RuntimeConfig": {"Ips": ["A"]}, "list": [{"HostPort": 1}]}"#;
        let value = lowered(text).unwrap();
        let root = Object::root(&value).unwrap();
        assert_eq!(root.text("name").unwrap(), Some("Azure"));
        let runtime = root.object("runtimeConfig").unwrap().unwrap();
        assert_eq!(runtime.texts("ips").unwrap(), ["A"]);
        assert_eq!(value["list"][0]["hostport"], 1);
    }

    #[test]
    fn of_keys_that_differ_in_case_only_the_last_counts() {
        for (text, name) in [
            (r#"{"name": "a", "NAME": "b"}"#, "b"),
            (r#"{"NAME": "a", "name": "b"}"#, "b"),
            (r#"{"Name": "b", "nAmE": "a"}"#, "a"),
            (r#"{"name": "a", "NAME": null}"#, "a"),
            (r#"{"name": null, "NAME": "b"}"#, "b"),
        ] {
            assert_eq!(lowered(text.as_bytes()).unwrap()["name"], name);
        }
    }

    #[test]
    fn all_but_the_keys_is_read_as_ever() {
        let text = r#"{"a": [null, true, -1, 18446744073709551615, 1.5, "A\u00e9", {}, [[]]]}"#;
        let as_ever: Value = serde_json::from_str(text).unwrap();
        assert_eq!(lowered(text.as_bytes()).unwrap(), as_ever);
        for broken in ["", "{", "[1,]", "{} x", &"[".repeat(1000)] {
            let ours = lowered(broken.as_bytes()).unwrap_err().to_string();
            let theirs = serde_json::from_str::<Value>(broken).unwrap_err();
            assert_eq!(ours, theirs.to_string());
        }
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
