//! One attachment of one container: what CNI made and the loader must know.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use sha1::{Digest as _, Sha1};

/// Identity of an attachment: the CNI specification's (network name, container ID, interface name).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct Key {
    /// Network name of the netconf.
    pub network: String,
    /// `CNI_CONTAINERID`.
    pub container_id: String,
    /// `CNI_IFNAME`.
    pub ifname: String,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.network, self.container_id, self.ifname)
    }
}

/// Longest file name that we make from a key; the state files add a suffix, and 255 is the file system's limit.
const FILE_NAME_BYTES: usize = 200;

/// How the names of files begin whose key is too long to be in them.
const DIGEST: &str = "sha1:";

fn digest(text: &str) -> String {
    let digest = Sha1::digest(text.as_bytes());
    let digits = digest.iter().map(|byte| format!("{byte:02x}"));
    digits.collect::<String>()
}

impl Key {
    /// The file name of an attachment, the same in every directory; no two attachments have the same.
    ///
    /// None of the three parts can hold a colon.
    pub fn file_name(&self) -> String {
        let readable = format!("{}:{}:{}", self.network, self.container_id, self.ifname);
        if readable.len() <= FILE_NAME_BYTES {
            return readable;
        }
        format!("{DIGEST}{}", digest(&readable))
    }

    /// The file name in the index of the owners of leases.
    pub fn owner_name(&self) -> String {
        digest(&self.file_name())
    }

    /// Whether a file is named by the digest of an attachment's name.
    pub fn is_digest(name: &str) -> bool {
        name.starts_with(DIGEST) && Self::of_file_name(name).is_none()
    }

    /// The attachment that a file is named after; `None` when the name is not ours or a digest.
    pub fn of_file_name(name: &str) -> Option<Self> {
        let mut parts = name.splitn(3, ':');
        let [network, container_id, ifname] = [parts.next()?, parts.next()?, parts.next()?];
        Some(Self {
            network: network.to_owned(),
            container_id: container_id.to_owned(),
            ifname: ifname.to_owned(),
        })
    }
}

/// An attachment. Stored as the endpoint record and sent with [`crate::Request::Register`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Identity.
    #[serde(flatten)]
    pub key: Key,
    /// The boot during which the attachment was made (`/proc/sys/kernel/random/boot_id`).
    pub boot_id: String,
    /// `CNI_NETNS` as the runtime gave it.
    pub netns: String,
    /// `K8S_POD_NAMESPACE`.
    pub pod_namespace: String,
    /// `K8S_POD_NAME`.
    pub pod_name: String,
    /// `mode` of the netconf at ADD; a record without it is in no mode.
    #[serde(default)]
    pub mode: String,
    /// Name of the host veth.
    pub host_ifname: String,
    /// Index of the host veth in the node's network namespace.
    pub host_ifindex: u32,
    /// Ethernet address of the host veth.
    pub host_mac: MacAddr,
    /// Ethernet address of the pod's interface.
    pub mac: MacAddr,
    /// The pod's address and the subnet's prefix length.
    pub address: Ipv4Net,
    /// The subnet's gateway, as printed in the CNI result.
    pub gateway: Ipv4Addr,
    /// `ipsToRouteViaHost` of the netconf at ADD.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub via_host: Vec<Ipv4Addr>,
}

impl Endpoint {
    /// Whether packets between this pod and other pods of the node cross the fabric, so that its access lists apply.
    pub fn is_tunnelled(&self) -> bool {
        matches!(self.mode.as_str(), "tunnel" | "transparent-tunnel")
    }
}

/// An Ethernet address, written `00:0d:3a:f9:dc:a6`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MacAddr(pub [u8; 6]);

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// Not an Ethernet address.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not an Ethernet address (twelve hex digits, with or without colons)")]
pub struct BadMac(String);

impl FromStr for MacAddr {
    type Err = BadMac;

    /// Takes `00:0d:3a:f9:dc:a6`, and the wireserver's `000D3AF9DCA6`.
    fn from_str(text: &str) -> Result<Self, BadMac> {
        let bad = || BadMac(text.to_owned());
        let digits: String = text.chars().filter(|c| *c != ':' && *c != '-').collect();
        if digits.len() != 12 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(bad());
        }
        let bits = u64::from_str_radix(&digits, 16).map_err(|_not_hex| bad())?;
        let [_, _, octets @ ..] = bits.to_be_bytes();
        Ok(Self(octets))
    }
}

impl Serialize for MacAddr {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MacAddr {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_of_a_mac_are_read_and_one_is_written() {
        let mac: MacAddr = "000D3AF9DCA6".parse().unwrap();
        assert_eq!(mac, "00:0d:3a:f9:dc:a6".parse().unwrap());
        assert_eq!(mac.to_string(), "00:0d:3a:f9:dc:a6");
        for bad in [
            "",
            "*",
            "000D3AF9DCA",
            "000D3AF9DCA6F",
            "00:0d:3a:f9:dc:zz",
            "é0D3AF9DCA6",
        ] {
            assert!(bad.parse::<MacAddr>().is_err(), "{bad}");
        }
    }
}
