//! `/etc/azure-vnet/loader.yaml`: every key optional, an unknown key is an error that names the nearest known one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;
use serde::Deserialize;

use crate::fallback::KERNEL_PORTS;

/// The loader's configuration. YAML, so JSON works too.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Config {
    /// The NIC that pods' traffic uses; the default route's when absent.
    pub nic: Option<String>,
    /// Prefixes of this VNet and its peers beyond what the wireserver tells: direct, no SNAT.
    pub vnet_cidrs: Vec<Ipv4Net>,
    /// More destinations that are reached directly, without SNAT.
    pub direct_cidrs: Vec<Ipv4Net>,
    /// Destinations without SNAT; the private ranges of RFC 1918 when absent.
    #[serde(rename = "nonMasqueradeCIDRs")]
    pub non_masquerade_cidrs: Option<Vec<Ipv4Net>>,
    /// The cluster's Service ranges, which kube-proxy handles.
    pub service_cidrs: Vec<Ipv4Net>,
    /// What pods get of the metadata service.
    pub imds: Imds,
    /// Drop pods' TCP to ports 80 and 32526 of 168.63.129.16.
    pub block_wireserver: bool,
    /// Ports for eBPF SNAT.
    pub nat_ports: PortRange,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            nic: None,
            vnet_cidrs: Vec::new(),
            direct_cidrs: Vec::new(),
            non_masquerade_cidrs: None,
            service_cidrs: Vec::new(),
            imds: Imds::Snat,
            block_wireserver: true,
            nat_ports: PortRange {
                first: 1024,
                last: 29_999,
            },
        }
    }
}

/// Access to 169.254.169.254.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Imds {
    /// With the node's primary address, as IMDS wants it.
    Snat,
    /// Dropped.
    Deny,
}

/// An inclusive range of ports, written `1024-29999`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct PortRange {
    /// First port.
    pub first: u16,
    /// Last port.
    pub last: u16,
}

impl PortRange {
    /// Number of ports.
    pub fn count(self) -> u16 {
        self.last - self.first + 1
    }

    /// Whether the two ranges share a port.
    pub fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

impl TryFrom<String> for PortRange {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let parsed = text.split_once('-').and_then(|(first, last)| {
            Some(Self {
                first: first.trim().parse().ok()?,
                last: last.trim().parse().ok()?,
            })
        });
        match parsed {
            Some(range) if range.overlaps(KERNEL_PORTS) => Err(format!(
                "`{text}` overlaps {}-{}, the ports of the kernel's own masquerading: answers would reach the wrong pod",
                KERNEL_PORTS.first, KERNEL_PORTS.last
            )),
            Some(range) if range.first >= 1024 && range.first <= range.last => Ok(range),
            _ => Err(format!(
                "`{text}` is not a port range such as 1024-29999 (first port 1024 or higher)"
            )),
        }
    }
}

/// The configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is there and cannot be read.
    #[error("read {path}: {source}; make it readable for root, or remove it to run with defaults")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Not YAML, or a value of the wrong kind.
    #[error("read {path}: {source}; see docs/configuration.md for every key")]
    Value {
        /// The file.
        path: PathBuf,
        /// The parser's reason, with line and column.
        source: serde_yaml_ng::Error,
    },
    /// A key that does not exist.
    #[error(
        "read {path}: unknown key `{key}`; did you mean `{nearest}`? See docs/configuration.md for every key"
    )]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// The known key that looks most like it.
        nearest: &'static str,
    },
    /// A prefix with host bits.
    #[error("read {path}: {key}: {prefix} has bits set behind its prefix length; write {aligned}")]
    Unaligned {
        /// The file.
        path: PathBuf,
        /// The key.
        key: &'static str,
        /// The prefix as written.
        prefix: Ipv4Net,
        /// The prefix as it must have been meant.
        aligned: Ipv4Net,
    },
}

/// Every key.
const KEYS: [&str; 8] = [
    "nic",
    "vnetCidrs",
    "directCidrs",
    "nonMasqueradeCIDRs",
    "serviceCidrs",
    "imds",
    "blockWireserver",
    "natPorts",
];

impl Config {
    /// Reads `path`; defaults when there is no such file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        match fs::read_to_string(path) {
            Ok(text) => Self::parse(path, &text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(source) => Err(ConfigError::Read {
                path: path.to_owned(),
                source,
            }),
        }
    }

    /// Parses `text`; `path` is for messages.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let value_error = |source| ConfigError::Value {
            path: path.to_owned(),
            source,
        };
        let document: Option<serde_yaml_ng::Mapping> =
            serde_yaml_ng::from_str(text).map_err(value_error)?;
        let Some(document) = document else {
            return Ok(Self::default());
        };
        for key in document.keys().filter_map(serde_yaml_ng::Value::as_str) {
            if !KEYS.contains(&key) {
                return Err(ConfigError::UnknownKey {
                    path: path.to_owned(),
                    key: key.to_owned(),
                    nearest: nearest_key(key),
                });
            }
        }
        // Parsed again from the text, because then messages carry line and column.
        let config: Self = serde_yaml_ng::from_str(text).map_err(value_error)?;
        config.check_alignment(path)?;
        Ok(config)
    }

    fn check_alignment(&self, path: &Path) -> Result<(), ConfigError> {
        let lists = [
            ("vnetCidrs", self.vnet_cidrs.as_slice()),
            ("directCidrs", self.direct_cidrs.as_slice()),
            (
                "nonMasqueradeCIDRs",
                self.non_masquerade_cidrs.as_deref().unwrap_or_default(),
            ),
            ("serviceCidrs", self.service_cidrs.as_slice()),
        ];
        for (key, prefixes) in lists {
            if let Some(&prefix) = prefixes.iter().find(|prefix| prefix.trunc() != **prefix) {
                let aligned = prefix.trunc();
                return Err(ConfigError::Unaligned {
                    path: path.to_owned(),
                    key,
                    prefix,
                    aligned,
                });
            }
        }
        Ok(())
    }
}

fn nearest_key(key: &str) -> &'static str {
    let distance =
        |known: &&str| strsim::damerau_levenshtein(&known.to_lowercase(), &key.to_lowercase());
    KEYS.into_iter().min_by_key(distance).unwrap_or("nic")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(Path::new("loader.yaml"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn an_empty_file_and_no_file_are_defaults() {
        assert_eq!(parse("").unwrap(), Config::default());
        assert_eq!(parse("# nothing\n").unwrap(), Config::default());
        assert_eq!(
            Config::load(Path::new("/nonexistent/loader.yaml")).unwrap(),
            Config::default()
        );
    }

    #[test]
    fn yaml_and_json_say_the_same() {
        let yaml = parse("nic: eth1\nvnetCidrs:\n- 10.0.0.0/8\nimds: deny\nnatPorts: 2000-2999\n")
            .unwrap();
        let json = parse(
            r#"{"nic":"eth1","vnetCidrs":["10.0.0.0/8"],"imds":"deny","natPorts":"2000-2999"}"#,
        )
        .unwrap();
        assert_eq!(yaml, json);
        assert_eq!(yaml.nat_ports.count(), 1000);
    }

    #[test]
    fn an_unknown_key_names_the_nearest_known_one() {
        for (typo, meant) in [
            ("nonMasqueradeCidr", "nonMasqueradeCIDRs"),
            ("vnetCIDR", "vnetCidrs"),
            ("blockwireserver", "blockWireserver"),
        ] {
            let error = parse(&format!("{typo}: []")).unwrap_err();
            assert!(
                error.contains(&format!("did you mean `{meant}`")),
                "{error}"
            );
        }
    }

    #[test]
    fn values_of_the_wrong_kind_are_refused_with_their_place() {
        for text in [
            "nic: [1]",
            "vnetCidrs: 10.0.0.0/8",
            "vnetCidrs: [10.0.0.0/33]",
            "imds: maybe",
            "natPorts: 80-90",
            "natPorts: 60000-61000",
            "- a",
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains("loader.yaml"), "{text}: {error}");
        }
        let error = parse("serviceCidrs: [10.0.0.1/16]").unwrap_err();
        assert!(error.contains("write 10.0.0.0/16"), "{error}");
    }
}
