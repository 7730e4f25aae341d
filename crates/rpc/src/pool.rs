//! The NIC's address pools as the platform told them, cached for the IPAM plug-in.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::MacAddr;

/// Content of `/run/azure-vnet/ipam/pools.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pools {
    /// The boot during which the pools were read.
    pub boot_id: String,
    /// Where the pools come from: `wireserver`, `imds` or `file`.
    pub source: String,
    /// `CLOCK_BOOTTIME` when they were read, milliseconds.
    pub read_at_ms: u64,
    /// The NICs of this node, in the order of their interface indexes.
    pub interfaces: Vec<Interface>,
}

impl Pools {
    /// Takes out, and returns, the secondary addresses that an interface of this node has itself: what comes for such an
    /// address through the kernel ends at the node, so no pod may get it. cloud-init sets them up on plain VMs.
    pub fn take_out(&mut self, own: &[Ipv4Addr]) -> Vec<Ipv4Addr> {
        let subnets = self.interfaces.iter_mut().flat_map(|nic| &mut nic.subnets);
        subnets
            .flat_map(|subnet| subnet.secondary.extract_if(.., |addr| own.contains(addr)))
            .collect()
    }
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
