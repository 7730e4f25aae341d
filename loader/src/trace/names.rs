//! Words for what the maps hold numbers of.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use abi::{IfIndex, Ip4, proto};
use rpc::Endpoint;

use crate::{nic, podname};

/// Pods by address.
#[derive(Clone, Debug)]
pub(crate) struct Names(BTreeMap<Ipv4Addr, String>);

impl Names {
    pub(crate) fn of(endpoints: &[Endpoint]) -> Self {
        let named = |endpoint: &Endpoint| (endpoint.address.addr(), podname::name(endpoint));
        Self(endpoints.iter().map(named).collect())
    }

    /// The pod with this address, or the address of one without a record.
    pub(crate) fn pod(&self, addr: Ip4) -> String {
        format!("pod {}", self.name(addr))
    }

    /// The same for programs.
    pub(crate) fn name(&self, addr: Ip4) -> String {
        let name = self.0.get(&addr.into());
        name.cloned().unwrap_or_else(|| addr.to_string())
    }

    /// An interface's name, or the index of one that is gone.
    pub(crate) fn interface(ifindex: IfIndex) -> String {
        nic::ifname(ifindex.get())
            .unwrap_or_else(|| format!("interface {} (which is gone)", ifindex.get()))
    }
}

/// The protocol's word, or its number.
pub(crate) fn protocol(number: u8) -> String {
    match number {
        proto::TCP => "tcp".to_owned(),
        proto::UDP => "udp".to_owned(),
        proto::ICMP => "icmp".to_owned(),
        other => format!("protocol {other}"),
    }
}
