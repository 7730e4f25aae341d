//! What does the fabric drop? The nftables rules of its ports and of its way out.

use std::fmt::Write as _;

use anyhow::Result;

use crate::vnet::{Nic, SUBNET, VIRTUAL_MAC};

/// Reasons of the drop counters of a node's port, in the order of the checks.
const PORT_DROPS: [&str; 8] = [
    "foreign_mac",
    "arp_sender",
    "ipv6",
    "ethertype",
    "broadcast",
    "multicast",
    "wrong_mac",
    "foreign_source",
];

/// The checks at the ports, and what may leave the virtual network.
pub(crate) fn rules(nics: &[&Nic]) -> Result<String> {
    let mut script = String::from("table netdev fabric {\n");
    for nic in nics {
        port_rules(&mut script, nic)?;
    }
    let primaries: Vec<_> = nics.iter().map(|nic| nic.primary.to_string()).collect();
    write!(
        script,
        "}}
table ip fabric {{
  counter inet.not_primary {{ }}
  counter vnet.unregistered {{ }}
  counter vnet.no_route {{ }}
  counter vnet.acl {{ }}
  set acl {{ type ipv4_addr . ipv4_addr; }}
  set primary {{ type ipv4_addr; elements = {{ {} }} }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    ip saddr . ip daddr @acl counter name vnet.acl drop
    oif \"inet\" ip saddr != @primary counter name inet.not_primary drop
    oif lo ip daddr {SUBNET} counter name vnet.unregistered drop
    oif lo counter name vnet.no_route drop
  }}
}}
",
        primaries.join(", ")
    )?;
    Ok(script)
}

/// The checks at one port.
pub(crate) fn port_rules(script: &mut String, nic: &Nic) -> Result<()> {
    let (port, mac) = (&nic.node, nic.mac);
    for reason in PORT_DROPS {
        writeln!(script, "  counter {port}.{reason} {{ }}")?;
    }
    let addresses: Vec<_> = nic.addresses().map(|a| a.to_string()).collect();
    let addresses = addresses.join(", ");
    write!(
        script,
        "  set {port}_addresses {{ type ipv4_addr; elements = {{ {addresses} }} }}
  chain {port} {{
    type filter hook ingress device {port} priority 0; policy accept;
    ether saddr != {mac} counter name {port}.foreign_mac drop
    ether type arp arp saddr ether != {mac} counter name {port}.arp_sender drop
    ether type arp arp saddr ip 0.0.0.0 accept
    ether type arp arp saddr ip != @{port}_addresses counter name {port}.arp_sender drop
    ether type arp accept
    ether type ip6 counter name {port}.ipv6 drop
    ether type != ip counter name {port}.ethertype drop
    ether daddr ff:ff:ff:ff:ff:ff counter name {port}.broadcast drop
    ether daddr & 01:00:00:00:00:00 == 01:00:00:00:00:00 counter name {port}.multicast drop
    ether daddr != {VIRTUAL_MAC} counter name {port}.wrong_mac drop
    ip saddr != @{port}_addresses counter name {port}.foreign_source drop
  }}
"
    )?;
    Ok(())
}
