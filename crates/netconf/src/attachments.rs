//! `cni.dev/valid-attachments`: what GC must keep.

use serde_json::{Map, Value, json};

use crate::document::{Object, WrongKind};

/// The specification's key, and its old, misnamed one, which libcni still sends.
const KEYS: [&str; 2] = ["cni.dev/valid-attachments", "cni.dev/attachments"];

/// The attachments that exist, as the runtime knows them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attachments {
    valid: Vec<(String, String)>,
    /// Containers of which an entry did not tell the interface: all of theirs is kept.
    whole: Vec<String>,
    /// Entries that say nothing, as they are.
    pub malformed: Vec<String>,
}

impl Attachments {
    /// `None` when neither key is there. `null` is an empty list: libcni marshals one like that.
    pub(crate) fn parse(root: Object<'_>) -> Result<Option<Self>, WrongKind> {
        for key in KEYS {
            if root.has(key) {
                return root.list(key).map(|list| Some(Self::of(list)));
            }
        }
        Ok(None)
    }

    fn of(list: &[Value]) -> Self {
        let mut found = Self::default();
        for entry in list {
            let text = |key: &str| entry.get(key)?.as_str().filter(|text| !text.is_empty());
            match (text("containerid"), text("ifname")) {
                (Some(container), Some(ifname)) => {
                    found.valid.push((container.to_owned(), ifname.to_owned()));
                }
                (container, _) => {
                    found.whole.extend(container.map(str::to_owned));
                    found
                        .malformed
                        .push(entry.to_string().chars().take(80).collect());
                }
            }
        }
        found
    }

    /// Container ID and interface of those that the runtime names in full.
    pub fn listed(&self) -> impl Iterator<Item = (&str, &str)> {
        self.valid
            .iter()
            .map(|(container, ifname)| (container.as_str(), ifname.as_str()))
    }

    /// Whether the runtime says, or may have meant to say, that this attachment exists. Without interface name it is the whole
    /// container's.
    pub fn keep(&self, container_id: &str, ifname: &str) -> bool {
        self.whole.iter().any(|container| container == container_id)
            || self.valid.iter().any(|(container, name)| {
                container == container_id && (name == ifname || ifname.is_empty())
            })
    }
}

/// The configuration `stdin` with more attachments, by container ID and interface, in its list: for an IPAM plug-in, which is to free
/// no address that is still in use. Everything else stays as it is.
pub fn list_also(stdin: &[u8], attachments: &[(&str, &str)]) -> serde_json::Result<Vec<u8>> {
    let mut document: Map<String, Value> = serde_json::from_slice(stdin)?;
    for (_, list) in document
        .iter_mut()
        .filter(|(key, _)| KEYS.contains(&key.to_lowercase().as_str()))
    {
        if list.is_null() {
            *list = Value::Array(Vec::new());
        }
        if let Some(list) = list.as_array_mut() {
            let entry = |(id, ifname): &(&str, &str)| json!({"containerID": id, "ifname": ifname});
            list.extend(attachments.iter().map(entry));
        }
    }
    serde_json::to_vec(&document)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::lowered;

    fn parse(value: &Value) -> Option<Attachments> {
        let value = lowered(value.to_string().as_bytes()).unwrap();
        Attachments::parse(Object::root(&value).unwrap()).unwrap()
    }

    #[test]
    fn a_list_that_is_missing_is_told_from_an_empty_one() {
        assert_eq!(parse(&json!({})), None);
        for key in KEYS {
            for empty in [json!([]), json!(null)] {
                assert_eq!(parse(&json!({key: empty})), Some(Attachments::default()));
            }
        }
    }

    #[test]
    fn what_is_listed_is_kept_and_an_entry_without_interface_keeps_its_whole_container() {
        let list = parse(&json!({KEYS[0]: [
            {"containerID": "a", "ifname": "eth0"}, {"CONTAINERID": "b"}, 5, {"ifname": "eth0"}]}));
        let list = list.unwrap();
        for (container, ifname, kept) in [
            ("a", "eth0", true),
            ("a", "net1", false),
            ("b", "net1", true),
            ("c", "eth0", false),
            ("a", "", true),
            ("c", "", false),
        ] {
            assert_eq!(list.keep(container, ifname), kept, "{container} {ifname}");
        }
        assert_eq!(list.malformed.len(), 3);
    }
    #[test]
    fn attachments_are_added_to_every_list_that_there_is() {
        let stdin = json!({"name": "n", KEYS[0]: [{"containerID": "a", "ifname": "eth0"}], "CNI.dev/Attachments": null});
        let longer = list_also(stdin.to_string().as_bytes(), &[("b", "net1")]).unwrap();
        let longer: Value = serde_json::from_slice(&longer).unwrap();
        assert_eq!(longer["name"], "n");
        let added = json!({"containerID": "b", "ifname": "net1"});
        assert_eq!(longer["CNI.dev/Attachments"], json!([added]));
        assert!(parse(&longer).unwrap().keep("a", "eth0"));
        assert!(parse(&longer).unwrap().keep("b", "net1"));
    }
}
