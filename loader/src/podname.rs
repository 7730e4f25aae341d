//! Which attachment does an operator mean by a pod's name?

use std::net::Ipv4Addr;

use rpc::Endpoint;

/// No attachment, or several, are called so.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PodError {
    /// None.
    #[error("no pod of this node is called {wanted}; there are: {known}")]
    None {
        /// What was asked for.
        wanted: String,
        /// What there is.
        known: String,
    },
    /// Several.
    #[error("{wanted} may be any of: {found}; say NAMESPACE/NAME, or the address")]
    Several {
        /// What was asked for.
        wanted: String,
        /// Those that match.
        found: String,
    },
}

/// The pod's name, with its namespace if it has one.
pub fn name(endpoint: &Endpoint) -> String {
    match (endpoint.pod_namespace.as_str(), endpoint.pod_name.as_str()) {
        ("", "") => endpoint.key.container_id.chars().take(13).collect(),
        ("", name) => name.to_owned(),
        (namespace, name) => format!("{namespace}/{name}"),
    }
}

/// The attachment whose pod is called `wanted`: `NAMESPACE/NAME`, a name alone where no other pod has it, an address, or a
/// host veth.
pub fn find<'a>(endpoints: &'a [Endpoint], wanted: &str) -> Result<&'a Endpoint, PodError> {
    let address: Option<Ipv4Addr> = wanted.parse().ok();
    let is_meant = |endpoint: &&Endpoint| {
        address == Some(endpoint.address.addr())
            || [&name(endpoint), &endpoint.pod_name, &endpoint.host_ifname]
                .contains(&&wanted.to_owned())
    };
    let found: Vec<&Endpoint> = endpoints.iter().filter(is_meant).collect();
    match found.as_slice() {
        [one] => Ok(one),
        [] => Err(PodError::None {
            wanted: wanted.to_owned(),
            known: list(&endpoints.iter().collect::<Vec<_>>()),
        }),
        several => Err(PodError::Several {
            wanted: wanted.to_owned(),
            found: list(several),
        }),
    }
}

fn list(endpoints: &[&Endpoint]) -> String {
    let mut names: Vec<String> = endpoints
        .iter()
        .map(|endpoint| format!("{} ({})", name(endpoint), endpoint.address.addr()))
        .collect();
    names.sort();
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn endpoint(namespace: &str, name: &str, last: u8) -> Endpoint {
        let json = serde_json::json!({
            "network": "azure", "container_id": "c", "ifname": "eth0", "boot_id": "", "netns": "",
            "pod_namespace": namespace, "pod_name": name, "host_ifname": format!("azv{last}"),
            "host_ifindex": last, "host_mac": "02:00:00:00:01:01", "mac": "02:00:00:00:00:01",
            "address": format!("10.240.1.{last}/16"), "gateway": "10.240.0.1",
        });
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn a_pod_is_found_by_each_of_its_names_and_a_wrong_one_lists_those_that_exist() {
        let pods = [
            endpoint("default", "web", 10),
            endpoint("test", "web", 11),
            endpoint("test", "db", 12),
        ];
        for wanted in ["db", "test/db", "10.240.1.12", "azv12"] {
            assert_eq!(find(&pods, wanted).unwrap().pod_name, "db", "{wanted}");
        }
        let several = find(&pods, "web").unwrap_err().to_string();
        assert!(
            several.contains("default/web (10.240.1.10), test/web (10.240.1.11); say"),
            "{several}"
        );
        let none = find(&pods, "dbb").unwrap_err().to_string();
        assert!(none.contains("test/db (10.240.1.12)"), "{none}");
        assert!(find(&[], "x").unwrap_err().to_string().ends_with("none"));
    }
}
