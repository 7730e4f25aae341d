//! Versions of the CNI specification.

use serde_json::{Value, json};

/// A version that we speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    V0_1_0,
    V0_2_0,
    V0_3_0,
    V0_3_1,
    V0_4_0,
    V1_0_0,
    V1_1_0,
}

/// The shape of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// 0.1.0 and 0.2.0: `ip4` and nothing about interfaces.
    Legacy,
    /// 0.3.0 to 0.4.0: `ips` with a `version` each.
    Versioned,
    /// 1.0.0 and later: `ips` without.
    Plain,
}

impl Version {
    /// All of them, oldest first.
    pub const ALL: [Self; 7] = [
        Self::V0_1_0,
        Self::V0_2_0,
        Self::V0_3_0,
        Self::V0_3_1,
        Self::V0_4_0,
        Self::V1_0_0,
        Self::V1_1_0,
    ];
    /// The one for answers to requests whose own version is unknown.
    pub const NEWEST: Self = Self::V1_1_0;
    /// What a configuration without `cniVersion` means (azure-vnet's `NetworkConfig`).
    pub const UNSAID: Self = Self::V0_2_0;

    /// As written in `cniVersion`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V0_1_0 => "0.1.0",
            Self::V0_2_0 => "0.2.0",
            Self::V0_3_0 => "0.3.0",
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }

    /// The version written as `text`, if we speak it.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|version| version.as_str() == text)
    }

    /// The shape of this version's results.
    pub fn shape(self) -> Shape {
        match self {
            Self::V0_1_0 | Self::V0_2_0 => Shape::Legacy,
            Self::V0_3_0 | Self::V0_3_1 | Self::V0_4_0 => Shape::Versioned,
            Self::V1_0_0 | Self::V1_1_0 => Shape::Plain,
        }
    }

    /// Whether CHECK exists (since 0.4.0).
    pub fn has_check(self) -> bool {
        self >= Self::V0_4_0
    }

    /// Whether GC and STATUS exist (since 1.1.0).
    pub fn has_gc(self) -> bool {
        self >= Self::V1_1_0
    }

    /// Whether `interfaces[].mtu` exists (since 1.1.0).
    pub fn has_mtu(self) -> bool {
        self >= Self::V1_1_0
    }

    /// All versions in one line, for messages.
    pub fn list() -> String {
        Self::ALL.map(Self::as_str).join(", ")
    }

    /// The answer to VERSION.
    pub fn answer() -> Value {
        json!({
            "cniVersion": Self::NEWEST.as_str(),
            "supportedVersions": Self::ALL.map(Self::as_str),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_version_is_parsed_back_and_their_order_is_their_age() {
        assert!(Version::ALL.is_sorted());
        for version in Version::ALL {
            assert_eq!(Version::parse(version.as_str()), Some(version));
        }
        for bad in ["", "1", "1.0", "1.0.0-rc1", "9.9.9", " 1.0.0", "0.3.2"] {
            assert_eq!(Version::parse(bad), None, "{bad}");
        }
    }
}
