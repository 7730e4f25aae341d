//! The NIC's address pools as the wireserver told them, cached for the IPAM plug-in.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::MacAddr;

/// Content of `/run/azure-vnet/ipam/pools.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pools {
    /// The boot during which the pools were read.
    pub boot_id: String,
    /// Where the pools come from: `wireserver`.
    pub source: String,
    /// `CLOCK_BOOTTIME` when they were read, milliseconds.
    pub read_at_ms: u64,
    /// The NICs of this node, in the order of their interface indexes.
    pub interfaces: Vec<Interface>,
}

/// One NIC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Name on this node.
    pub name: String,
    /// Ethernet address.
    pub mac: MacAddr,
    /// The VM's primary NIC.
    pub is_primary: bool,
    /// Its subnets.
    pub subnets: Vec<Subnet>,
}

/// One subnet of a NIC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    /// The subnet, for example 10.240.0.0/16.
    pub prefix: Ipv4Net,
    /// The node's own address in it; never given to a pod.
    pub primary: Option<Ipv4Addr>,
    /// Secondary addresses, which pods get, ascending.
    pub secondary: Vec<Ipv4Addr>,
}

impl Subnet {
    /// Azure's gateway of a subnet: its first address.
    pub fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.prefix.network()).saturating_add(1))
    }
}
