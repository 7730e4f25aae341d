//! From what a source tells of the VM's NICs to the pools of this node: the same judgement for the wireserver's XML, IMDS and
//! the file.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::{Interface, MacAddr, Subnet};

/// One NIC as a source tells it, not judged yet.
#[derive(Clone, Debug, Default)]
pub struct ToldInterface {
    /// Ethernet address.
    pub mac: String,
    /// The VM's primary NIC.
    pub is_primary: bool,
    /// Its subnets.
    pub subnets: Vec<ToldSubnet>,
}

/// One subnet as a source tells it.
#[derive(Clone, Debug, Default)]
pub struct ToldSubnet {
    /// The prefix.
    pub prefix: String,
    /// Addresses, and whether each is the node's own.
    pub addresses: Vec<(String, bool)>,
}

/// An interface of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nic {
    /// Index.
    pub index: u32,
    /// Name.
    pub name: String,
    /// Ethernet address.
    pub mac: MacAddr,
}

/// What of `told` belongs to this node, in the order of the interface indexes, and what was left out and why.
///
/// The VF of accelerated networking has the same Ethernet address as its netvsc master: of such `nics` the first one wins.
pub fn judge(told: Vec<ToldInterface>, nics: &[Nic]) -> (Vec<Interface>, Vec<String>) {
    let mut skipped = Vec::new();
    let mut found: Vec<(u32, Interface)> = told
        .into_iter()
        .filter_map(|told| interface(told, nics, &mut skipped))
        .collect();
    found.sort_by_key(|(index, _)| *index);
    let interfaces = found.into_iter().map(|(_, interface)| interface).collect();
    (interfaces, skipped)
}

fn interface(
    told: ToldInterface,
    nics: &[Nic],
    skipped: &mut Vec<String>,
) -> Option<(u32, Interface)> {
    let Ok(mac) = told.mac.parse::<MacAddr>() else {
        skipped.push(format!(
            "an interface with `{}` for an Ethernet address",
            told.mac.escape_debug()
        ));
        return None;
    };
    let Some(nic) = nics.iter().find(|nic| nic.mac == mac) else {
        skipped.push(format!("interface {mac}, which this node does not have"));
        return None;
    };
    let subnets = told.subnets.into_iter();
    let interface = Interface {
        name: nic.name.clone(),
        mac,
        is_primary: told.is_primary,
        subnets: subnets.filter_map(|told| subnet(told, skipped)).collect(),
    };
    Some((nic.index, interface))
}

fn subnet(told: ToldSubnet, skipped: &mut Vec<String>) -> Option<Subnet> {
    let Ok(prefix) = told.prefix.parse::<Ipv4Net>().map(|prefix| prefix.trunc()) else {
        skipped.push(format!(
            "subnet `{}`, which is no IPv4 prefix",
            told.prefix.escape_debug()
        ));
        return None;
    };
    let mut subnet = Subnet {
        prefix,
        primary: None,
        secondary: Vec::new(),
    };
    for (text, is_primary) in told.addresses {
        match text.parse::<Ipv4Addr>() {
            Ok(address) if prefix.contains(&address) && is_primary => {
                subnet.primary = Some(address);
            }
            Ok(address) if prefix.contains(&address) => subnet.secondary.push(address),
            Ok(_) | Err(_) => skipped.push(format!(
                "address `{}`, which is not in its subnet {prefix}",
                text.escape_debug()
            )),
        }
    }
    subnet.secondary.sort_unstable();
    subnet.secondary.dedup();
    Some(subnet)
}
