//! Which address belongs to which NIC? The model that fabric, wireserver and IMDS answer from.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::sync::Mutex;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::wait::lock;

/// The MAC address by which Azure's fabric answers every ARP request.
pub const VIRTUAL_MAC: Mac = Mac([0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc]);
/// The address space of the virtual network and the subnet of all nodes.
pub const SUBNET: &str = "10.240.0.0/16";
/// The first hop.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 240, 0, 1);
pub(crate) const PREFIX_LEN: u8 = 16;

/// An Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// The way the wireserver and IMDS write it: `000D3A000104`.
    pub fn bare(self) -> String {
        self.0.iter().fold(String::new(), |mut text, byte| {
            // Writing to a String cannot fail.
            write!(text, "{byte:02X}").unwrap_or_default();
            text
        })
    }
}

impl std::str::FromStr for Mac {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let octets = text.split(':').map(|octet| u8::from_str_radix(octet, 16));
        let octets: Vec<u8> = octets.collect::<Result<_, _>>()?;
        let octets = octets.try_into().ok();
        Ok(Self(octets.with_context(|| {
            format!("`{text}` is no Ethernet address")
        })?))
    }
}

impl std::fmt::Display for Mac {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let octets = self.0.map(|octet| format!("{octet:02x}"));
        f.write_str(&octets.join(":"))
    }
}

/// A node's network interface as the virtual network knows it.
#[derive(Clone, Debug)]
pub struct Nic {
    /// The node, and the fabric's port.
    pub node: String,
    pub mac: Mac,
    pub primary: Ipv4Addr,
    pub secondary: Vec<Ipv4Addr>,
}

impl Nic {
    /// The NIC of node `number` (from 1) with `secondaries` more addresses.
    pub(crate) fn of_node(number: u8, secondaries: u16) -> Self {
        Self {
            node: format!("node{number}"),
            mac: Mac([0x00, 0x0d, 0x3a, 0x00, 0x01, number]),
            primary: Ipv4Addr::new(10, 240, 0, 3 + number),
            secondary: (0..u32::from(secondaries))
                .map(|i| Ipv4Addr::from_bits(Ipv4Addr::new(10, 240, number, 10).to_bits() + i))
                .collect(),
        }
    }

    /// All addresses, the primary one first.
    pub fn addresses(&self) -> impl Iterator<Item = Ipv4Addr> {
        std::iter::once(self.primary).chain(self.secondary.iter().copied())
    }
}

/// The NICs of the virtual network. Shared by the parts of one lab.
#[derive(Debug, Default)]
pub(crate) struct Vnet(Mutex<Vec<Nic>>);

impl Vnet {
    pub(crate) fn new(nics: Vec<Nic>) -> Self {
        Self(Mutex::new(nics))
    }

    pub(crate) fn nics(&self) -> Vec<Nic> {
        lock(&self.0).clone()
    }

    pub(crate) fn nic(&self, node: &str) -> Result<Nic> {
        let nics = lock(&self.0);
        let nic = nics.iter().find(|nic| nic.node == node);
        nic.cloned().with_context(|| format!("{node} has no NIC"))
    }

    /// The NIC on which `address` is registered.
    pub(crate) fn owner(&self, address: Ipv4Addr) -> Option<Nic> {
        let nics = lock(&self.0);
        let mut owners = nics.iter();
        owners
            .find(|nic| nic.addresses().any(|own| own == address))
            .cloned()
    }

    pub(crate) fn add_secondary(&self, node: &str, address: Ipv4Addr) -> Result<()> {
        let owner = self.owner(address).map(|nic| nic.node);
        ensure!(
            owner.is_none(),
            "{address} is registered on {owner:?} already"
        );
        self.change(node, |nic| nic.secondary.push(address))
    }

    pub(crate) fn remove_secondary(&self, node: &str, address: Ipv4Addr) -> Result<()> {
        self.change(node, |nic| nic.secondary.retain(|own| *own != address))
    }

    fn change(&self, node: &str, change: impl FnOnce(&mut Nic)) -> Result<()> {
        let mut nics = lock(&self.0);
        let nic = nics.iter_mut().find(|nic| nic.node == node);
        change(nic.with_context(|| format!("{node} has no NIC"))?);
        Ok(())
    }
}

/// The wireserver's answer to `getinterfaceinfov1`.
pub(crate) fn wireserver_xml(nic: &Nic) -> String {
    let addresses = nic.addresses().fold(String::new(), |mut xml, address| {
        let primary = address == nic.primary;
        let line = format!("      <IPAddress Address=\"{address}\" IsPrimary=\"{primary}\"/>\n");
        xml.push_str(&line);
        xml
    });
    format!(
        "<Interfaces>\n  <Interface MacAddress=\"{}\" IsPrimary=\"true\">\n    \
         <IPSubnet Prefix=\"{SUBNET}\">\n{addresses}    </IPSubnet>\n  </Interface>\n</Interfaces>\n",
        nic.mac.bare()
    )
}

/// The network part of the instance metadata.
pub(crate) fn imds_network(nic: &Nic) -> Value {
    let addresses: Vec<_> = nic
        .addresses()
        .map(|address| json!({"privateIpAddress": address.to_string(), "publicIpAddress": ""}))
        .collect();
    json!({"interface": [{
        "ipv4": {
            "ipAddress": addresses,
            "subnet": [{"address": "10.240.0.0", "prefix": PREFIX_LEN.to_string()}],
        },
        "ipv6": {"ipAddress": []},
        "macAddress": nic.mac.bare(),
    }]})
}
