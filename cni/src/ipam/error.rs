//! What the IPAM plug-in cannot do.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use ipnet::Ipv4Net;
use netconf::code;
use rpc::Key;

use super::choose::Exhausted;
use crate::loader::LoaderError;

/// No address, or not the one that was asked for. The first words are Azure's, for tools that look for them.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IpamError {
    #[error(
        "Failed to allocate address: No available addresses: {0}; delete pods or add secondary addresses to the NIC"
    )]
    Exhausted(Exhausted),
    #[error(
        "Failed to allocate address: No available addresses: {exhausted}, and no newer pools: {source}"
    )]
    StillExhausted {
        exhausted: Exhausted,
        source: LoaderError,
    },
    #[error(
        "Failed to allocate address: No available addresses: {exhausted}, as of {age_s} s ago; delete pods or add secondary addresses to the NIC, which is asked again after ipam.queryInterval"
    )]
    ExhaustedLately { exhausted: Exhausted, age_s: u64 },
    #[error("Failed to allocate pool: the NIC's addresses are not known yet: {source}")]
    NoPools { source: LoaderError },
    #[error(
        "Failed to allocate address: Pool id {subnet} not found :Invalid address pool; correct ipam.subnet"
    )]
    NoSuchSubnet { subnet: Ipv4Net },
    #[error(
        "Failed to allocate pool: no available address pools: no NIC `{master}` has secondary addresses; correct master"
    )]
    NoSuchMaster { master: String },
    #[error(
        "Failed to allocate address: Address not found: {address} is no secondary address of this node; ask for another"
    )]
    NotFound { address: Ipv4Addr },
    #[error(
        "Failed to allocate address: Address already in use: {address}; ask for another or delete its owner"
    )]
    InUse { address: Ipv4Addr },
    #[error(
        "Failed to allocate address: {key} has {has} and cannot get {wanted} too; delete the attachment first"
    )]
    HasAnother {
        key: Key,
        has: Ipv4Addr,
        wanted: Ipv4Addr,
    },
    #[error(
        "Failed to allocate pool: read {path}: {why}; ipam.environment wants the node's addresses there"
    )]
    File { path: &'static str, why: String },
    #[error(
        "take over the addresses in use from {}: {why}; pods that Azure's plug-in made may hold addresses that only this file tells: delete these pods (drain the node), then move the file away, or reboot", path.display()
    )]
    TakeOver { path: PathBuf, why: String },
    #[error(
        "check the reservation of {key}: there is none; delete the pod, so that it is made anew"
    )]
    NoLease { key: Key },
    #[error(
        "check the reservation of {key}: {address} is not in prevResult; delete the pod, so that it is made anew"
    )]
    NotInResult { key: Key, address: Ipv4Addr },
}

impl IpamError {
    /// The CNI code.
    pub(crate) fn code(&self) -> u32 {
        match self {
            Self::NoPools { source } => source.code(),
            Self::TakeOver { .. } => code::IO,
            Self::NoLease { .. } | Self::NotInResult { .. } => code::CHECK,
            Self::Exhausted(_)
            | Self::ExhaustedLately { .. }
            | Self::StillExhausted { .. }
            | Self::File { .. }
            | Self::NoSuchSubnet { .. }
            | Self::NoSuchMaster { .. }
            | Self::NotFound { .. }
            | Self::InUse { .. }
            | Self::HasAnother { .. } => code::PLUGIN,
        }
    }
}
