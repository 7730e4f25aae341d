//! What the state files of Azure's plug-ins and ours in their shape have in common (`azure-vnet.md` §1.10, §2.10).

use std::collections::BTreeSet;
use std::fs;

use ipnet::Ipv4Net;
use serde_json::{Map, Value};

use crate::{Key, Lease, RunDirectory};

/// How our `Version` in these files begins; it is in the file's first bytes.
pub const WRITER: &str = "azure-vnet-ebpf";
/// So many bytes tell who wrote a file.
pub const WRITER_BYTES: usize = 64;
/// How much of a container's ID Azure puts into the ID of an endpoint.
const ID_BYTES: usize = 8;

/// Whether we wrote the file that begins like this.
pub fn is_ours(start: &[u8]) -> bool {
    let start = start.get(..WRITER_BYTES).unwrap_or(start);
    String::from_utf8_lossy(start).contains(WRITER)
}

/// Whether a file with this content says nothing, as an empty one does to Azure's plug-ins.
pub fn is_blank(content: &[u8]) -> bool {
    content.trim_ascii().is_empty()
}

/// Azure's ID of an endpoint, beside those that are `taken`.
pub fn endpoint_id(key: &Key, taken: &Map<String, Value>) -> String {
    let short = key.container_id.get(..ID_BYTES);
    let short = short.unwrap_or(&key.container_id);
    let id = format!("{short}-{}", key.ifname);
    if taken.contains_key(&id) {
        return format!("{}-{}", key.container_id, key.ifname);
    }
    id
}

/// Every endpoint below the root object `Network`: name of the network, ID, and what the file says.
pub fn endpoints(state: &Value) -> Vec<(&String, &String, &Value)> {
    let networks = values(state, "ExternalInterfaces").flat_map(|nic| fields(nic, "Networks"));
    let found = networks.flat_map(|(name, network)| {
        fields(network, "Endpoints").map(move |(id, endpoint)| (name, id, endpoint))
    });
    found.collect()
}

/// The endpoints of Azure's own that still have their address.
pub fn original_endpoints(run: &RunDirectory, leases: &[Lease]) -> Vec<(String, String, Value)> {
    let taken_over = leases.iter().filter(|lease| lease.is_taken_over());
    let alive: BTreeSet<String> = taken_over.map(|lease| lease.ip.to_string()).collect();
    if alive.is_empty() {
        return Vec::new();
    }
    let path = run.azure_network();
    let original = path.file_name().map(|name| run.originals().join(name));
    let text = original.and_then(|path| fs::read(path).ok());
    let file: Value = text
        .and_then(|text| serde_json::from_slice(&text).ok())
        .unwrap_or_default();
    let Some(state) = file.get("Network") else {
        return Vec::new();
    };
    let all = endpoints(state).into_iter();
    all.filter(|(_, _, endpoint)| {
        let mut addresses = addresses(endpoint);
        addresses.any(|address| alive.contains(text_of(address, "IP")))
    })
    .map(|(name, id, endpoint)| (name.clone(), id.clone(), endpoint.clone()))
    .collect()
}

/// An endpoint's addresses.
pub fn addresses(endpoint: &Value) -> impl Iterator<Item = &Value> {
    let found = endpoint.get("IPAddresses").and_then(Value::as_array);
    found.into_iter().flatten()
}

/// The text below `key`; empty when there is none.
pub fn text_of<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// What is below the object `key`; nothing when there is none.
pub fn fields<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    let found = value.get(key).and_then(Value::as_object);
    found.into_iter().flat_map(Map::iter)
}

/// The same without the names.
pub fn values<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    fields(value, key).map(|(_, value)| value)
}

/// Go's encoding of a byte slice (RFC 4648, section 4): of masks and Ethernet addresses.
pub fn base64(bytes: &[u8]) -> String {
    let digit = |value: u8| match value {
        0..=25 => char::from(b'A' + value),
        26..=51 => char::from(b'a' + (value - 26)),
        52..=61 => char::from(b'0' + (value - 52)),
        62 => '+',
        _ => '/',
    };
    let groups = bytes.chunks(3).flat_map(|group| {
        let mut octets = [0; 4];
        for (octet, byte) in octets.iter_mut().skip(1).zip(group) {
            *octet = *byte;
        }
        let bits = u32::from_be_bytes(octets);
        (0..4_usize).map(move |place| {
            if place > group.len() {
                return '=';
            }
            let [.., last] = (bits >> (18 - 6 * place)).to_be_bytes();
            digit(last & 0x3f)
        })
    });
    groups.collect()
}

/// A prefix's mask, as Go writes it.
pub fn mask(prefix: Ipv4Net) -> String {
    base64(&prefix.netmask().octets())
}

/// The prefix length that a mask means.
pub fn prefix_len(text: &str) -> Option<u8> {
    (0..=32).find(|length| {
        let prefix = Ipv4Net::new(std::net::Ipv4Addr::UNSPECIFIED, *length);
        prefix.is_ok_and(|prefix| mask(prefix) == text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_written_as_go_writes_them() {
        for (bytes, text) in [
            (&[255, 255, 0, 0][..], "//8AAA=="),
            (&[255, 255, 240, 0], "///wAA=="),
            (&[0, 0, 0, 0], "AAAAAA=="),
            (&[0x8a, 0x73, 0x40, 0x9c, 0x48, 0xca], "inNAnEjK"),
            (&[1, 2], "AQI="),
            (&[], ""),
        ] {
            assert_eq!(base64(bytes), text);
        }
        assert_eq!(prefix_len("//8AAA=="), Some(16));
        assert_eq!(prefix_len("nonsense"), None);
    }
}
