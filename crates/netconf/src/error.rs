//! What can be wrong with a configuration.

use std::io;

use crate::code;
use crate::document::WrongKind;
use crate::result::BadResult;
use crate::version::Version;

use crate::config::MOST_BYTES;

/// The configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NetconfError {
    #[error(
        "read the network configuration from standard input: {source}; the runtime must send it and close the pipe"
    )]
    Read { source: io::Error },
    #[error(
        "read the network configuration from standard input: more than {MOST_BYTES} bytes; make it smaller"
    )]
    TooLong,
    #[error("decode the network configuration: {source}; correct the JSON, see /etc/cni/net.d")]
    Json { source: serde_json::Error },
    #[error(
        "decode the network configuration: it is not a JSON object; correct it, see /etc/cni/net.d"
    )]
    NotAnObject,
    #[error("decode the network configuration: `cniVersion` is {found}, but must be a string")]
    VersionKind { found: String },
    #[error(
        "incompatible CNI versions: the configuration's cniVersion `{asked}` is not supported; use one of {}",
        Version::list()
    )]
    Version { asked: String },
    #[error("use the network configuration: {0}; correct it in /etc/cni/net.d")]
    Kind(#[from] WrongKind),
    #[error(
        "use the network configuration: {key}=`{value}` is not valid: {rule}; correct it in /etc/cni/net.d"
    )]
    Value {
        key: &'static str,
        value: String,
        rule: &'static str,
    },
    #[error("use the network configuration: {key} is missing; add it in /etc/cni/net.d")]
    Missing { key: &'static str },
    #[error(
        "use the network configuration: {key}=`{value}` is not supported: {why}; remove the key or use Azure's own plug-in"
    )]
    Unsupported {
        key: &'static str,
        value: String,
        why: &'static str,
    },
    #[error(
        "use the network configuration: prevResult is not a result: {source}; the plug-in before this one is broken"
    )]
    PrevResult { source: BadResult },
    #[error(
        "use the network configuration: prevResult has interfaces of another plug-in ({names}), which azure-vnet's result would drop; put azure-vnet first in the list in /etc/cni/net.d"
    )]
    PrevInterfaces { names: String },
}

impl NetconfError {
    /// The CNI code.
    pub fn code(&self) -> u32 {
        match self {
            Self::Read { .. } => code::IO,
            Self::TooLong | Self::Json { .. } | Self::NotAnObject | Self::VersionKind { .. } => {
                code::DECODE
            }
            Self::Version { .. } => code::INCOMPATIBLE_VERSION,
            Self::Kind(_)
            | Self::Value { .. }
            | Self::Missing { .. }
            | Self::PrevResult { .. }
            | Self::PrevInterfaces { .. } => code::CONFIG,
            Self::Unsupported { .. } => code::UNSUPPORTED,
        }
    }

    /// The key that is wrong, for example `ipam.subnet`; `None` when it is the document.
    pub fn key(&self) -> Option<&str> {
        match self {
            Self::Read { .. } | Self::TooLong | Self::Json { .. } | Self::NotAnObject => None,
            Self::VersionKind { .. } | Self::Version { .. } => Some("cniVersion"),
            Self::Kind(wrong) => Some(wrong.path()),
            Self::Value { key, .. } | Self::Missing { key } | Self::Unsupported { key, .. } => {
                Some(key)
            }
            Self::PrevResult { .. } | Self::PrevInterfaces { .. } => Some("prevResult"),
        }
    }

    /// Both lists, as libcni's reconciler prints them.
    pub fn details(&self) -> Option<String> {
        let Self::Version { asked } = self else {
            return None;
        };
        Some(format!(
            "config is [{asked}], plugin supports [{}]",
            Version::list()
        ))
    }
}

/// A key that asks for what only Azure's own plug-in does.
pub(crate) fn unsupported(key: &'static str, value: &str, why: &'static str) -> NetconfError {
    NetconfError::Unsupported {
        key,
        value: value.to_owned(),
        why,
    }
}
