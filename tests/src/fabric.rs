//! How does Azure's network treat a frame? One port for each NIC, checked at the port, forwarded by the kernel.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::capture::Capture;
use crate::namespace::Namespace;
use crate::rules::{port_rules, rules};
use crate::vnet::{GATEWAY, Nic, PREFIX_LEN, SUBNET, VIRTUAL_MAC, Vnet};
use crate::wait::Deadline;

/// The first hop of the namespaces beyond the virtual network; exists as a permanent neighbour entry only.
const OUTSIDE_HOP: Ipv4Addr = Ipv4Addr::new(169, 254, 0, 1);

const SETTLE_TIMEOUT: Duration = Duration::from_secs(5);

/// What Azure's system routes drop: private ranges that are no part of the virtual network or of a peering.
const NOWHERE: [&str; 5] = [
    SUBNET,
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "100.64.0.0/10",
];

/// A namespace beyond the fabric that gets a port.
#[derive(Debug)]
pub(crate) struct Beyond<'a> {
    pub(crate) namespace: &'a Namespace,
    /// Routed to the port.
    pub(crate) prefixes: &'a [&'a str],
    /// Configured on its `eth0`.
    pub(crate) addresses: &'a [Ipv4Addr],
    /// Addresses behind a hop with a smaller MTU.
    pub(crate) narrow: &'a [(Ipv4Addr, u32)],
}

impl<'a> Beyond<'a> {
    pub(crate) fn new(
        namespace: &'a Namespace,
        prefixes: &'a [&'a str],
        addresses: &'a [Ipv4Addr],
    ) -> Self {
        Self {
            namespace,
            prefixes,
            addresses,
            narrow: &[],
        }
    }
}

/// The simulated network between the nodes and the world. Dereferences to its namespace.
#[derive(Debug)]
pub struct Fabric {
    namespace: Namespace,
    vnet: Arc<Vnet>,
    mtu: u32,
    recorder: Option<Capture>,
}

impl Deref for Fabric {
    type Target = Namespace;

    fn deref(&self) -> &Namespace {
        &self.namespace
    }
}

impl Fabric {
    /// Plugs in every NIC and every outside network.
    pub(crate) fn build(
        vnet: &Arc<Vnet>,
        nodes: &[(Namespace, Nic)],
        beyond: &[Beyond<'_>],
        mtu: u32,
        record: bool,
    ) -> Result<Self> {
        let namespace = Namespace::network("fabric")?;
        for key in ["ip_forward", "conf.all.proxy_arp"] {
            namespace.sysctl(&format!("net.ipv4.{key}"), "1")?;
        }
        for kind in ["all", "default"] {
            for key in ["rp_filter", "send_redirects"] {
                namespace.sysctl(&format!("net.ipv4.conf.{kind}.{key}"), "0")?;
            }
        }
        let mut script = String::from("link set lo up\n");
        for prefix in NOWHERE {
            // A route over lo, because the kernel answers ARP only for what it can route to another
            // port. The forward chain drops what takes it.
            writeln!(script, "route add {prefix} dev lo")?;
        }
        for (node, nic) in nodes {
            node_port(&mut script, nic, node, mtu)?;
        }
        for place in beyond {
            outside_port(&mut script, place, mtu)?;
        }
        writeln!(script, "route add default dev inet")?;
        namespace.ip(&script)?;
        for (_, nic) in nodes {
            answer_at_once(&namespace, nic)?;
        }
        let nics: Vec<_> = nodes.iter().map(|(_, nic)| nic).collect();
        namespace.nft(&rules(&nics)?)?;
        for (node, nic) in nodes {
            boot_nic(node, nic.primary)?;
        }
        beyond.iter().try_for_each(outside_side)?;
        let outside = beyond.iter().map(|place| place.namespace.name());
        let ports: Vec<_> = nics
            .iter()
            .map(|nic| nic.node.as_str())
            .chain(outside)
            .collect();
        settle(&namespace, &ports)?;
        let recorder = record
            .then(|| Capture::everywhere(&namespace))
            .transpose()?;
        Ok(Self {
            namespace,
            vnet: Arc::clone(vnet),
            mtu,
            recorder,
        })
    }

    /// Pulls a node's NIC and plugs in another one of the same name and the same addresses.
    pub(crate) fn renew_nic(&self, node: &Namespace) -> Result<()> {
        let nic = self.vnet.nic(node.name())?;
        let port = nic.node.as_str();
        let mut script = format!("link del {port}\n");
        node_port(&mut script, &nic, node, self.mtu)?;
        self.ip(&script)?;
        answer_at_once(&self.namespace, &nic)?;
        // The port's chain has gone with the old port; its sets and counters have not.
        let mut rules = String::from("table netdev fabric {\n");
        port_rules(&mut rules, &nic)?;
        self.nft(&format!("{rules}}}\n"))?;
        boot_nic(node, nic.primary)?;
        settle(&self.namespace, &[port])
    }

    /// Registers one more address on a node's NIC.
    pub(crate) fn add_secondary(&self, node: &str, address: Ipv4Addr) -> Result<()> {
        let nic = self.vnet.nic(node)?;
        self.vnet.add_secondary(node, address)?;
        let via = nic.primary;
        self.ip(&format!("route add {address} via {via} dev {node}"))?;
        self.nft(&format!(
            "add element netdev fabric {node}_addresses {{ {address} }}"
        ))
    }

    /// Takes a secondary address off a node's NIC.
    pub(crate) fn remove_secondary(&self, node: &str, address: Ipv4Addr) -> Result<()> {
        self.nft(&format!(
            "delete element netdev fabric {node}_addresses {{ {address} }}"
        ))?;
        self.ip(&format!("route del {address} dev {node}"))?;
        self.vnet.remove_secondary(node, address)
    }

    /// Drops what `from` sends to `to`, as a network security group does; `vnet.acl` counts. Only what crosses the fabric.
    pub fn deny(&self, from: Ipv4Addr, to: Ipv4Addr) -> Result<()> {
        self.nft(&format!("add element ip fabric acl {{ {from} . {to} }}"))
    }

    /// Takes [`Fabric::deny`] back.
    pub fn permit(&self, from: Ipv4Addr, to: Ipv4Addr) -> Result<()> {
        self.nft(&format!("delete element ip fabric acl {{ {from} . {to} }}"))
    }

    /// What the virtual network knows about a node's NIC.
    pub fn nic(&self, node: &str) -> Result<Nic> {
        self.vnet.nic(node)
    }

    /// Packets dropped since the start, by counter: `node1.foreign_source`, `inet.not_primary`, …
    pub fn dropped(&self) -> Result<BTreeMap<String, u64>> {
        let text = self.exec(&["nft", "-j", "list", "counters"])?;
        let json: Value = serde_json::from_str(&text).context("parse nft's counters")?;
        let objects = json.get("nftables").and_then(Value::as_array);
        let counters = objects.into_iter().flatten().filter_map(|object| {
            let counter = object.get("counter")?;
            let name = counter.get("name")?.as_str()?;
            Some((name.to_owned(), counter.get("packets")?.as_u64()?))
        });
        Ok(counters.collect())
    }

    /// The value of one drop counter, e.g. `lab.fabric().drops("node1.foreign_mac")?`.
    pub fn drops(&self, counter: &str) -> Result<u64> {
        let dropped = self.dropped()?;
        let found = dropped.get(counter).copied();
        found.with_context(|| format!("no counter {counter} among {dropped:?}"))
    }

    /// The value of a drop counter as soon as it is at least `least`, or when the time is over: frames
    /// cross the fabric a moment after they were sent.
    pub fn drops_reach(&self, counter: &str, least: u64, within: Duration) -> Result<u64> {
        let deadline = Deadline::after(within);
        loop {
            let drops = self.drops(counter)?;
            if drops >= least || deadline.passed() {
                return Ok(drops);
            }
        }
    }

    /// Whether a frame like this has crossed the fabric, or does so within the time. Forwarded frames
    /// are looked at on both ports. False when the lab records no frames.
    pub fn seen(&self, within: Duration, like: impl Fn(&[u8]) -> bool) -> bool {
        let recorder = self.recorder.as_ref();
        recorder.is_some_and(|recorder| recorder.wait_for(within, like).is_some())
    }

    /// The newest frames on all ports; empty when the lab records none.
    pub fn frames(&self) -> Vec<Vec<u8>> {
        self.recorder
            .as_ref()
            .map(Capture::frames)
            .unwrap_or_default()
    }
}

/// Questions for addresses behind the port are answered without the usual delay of a proxy.
fn answer_at_once(fabric: &Namespace, nic: &Nic) -> Result<()> {
    fabric.sysctl(&format!("net.ipv4.neigh.{}.proxy_delay", nic.node), "0")
}

fn node_port(script: &mut String, nic: &Nic, node: &Namespace, mtu: u32) -> Result<()> {
    let Nic { mac, primary, .. } = nic;
    let port = &nic.node;
    cable(script, port, &mac.to_string(), node, mtu)?;
    writeln!(script, "addr add {GATEWAY}/32 dev {port}")?;
    writeln!(script, "route add {primary} dev {port}")?;
    writeln!(
        script,
        "neigh add {primary} lladdr {mac} dev {port} nud permanent"
    )?;
    for address in &nic.secondary {
        writeln!(script, "route add {address} via {primary} dev {port}")?;
    }
    Ok(())
}

fn outside_port(script: &mut String, place: &Beyond<'_>, mtu: u32) -> Result<()> {
    let port = place.namespace.name();
    let mac = "02:00:00:00:00:02";
    cable(script, port, mac, place.namespace, mtu)?;
    for address in place.addresses {
        writeln!(script, "route add {address} dev {port}")?;
        writeln!(
            script,
            "neigh add {address} lladdr {mac} dev {port} nud permanent"
        )?;
    }
    for (address, mtu) in place.narrow {
        writeln!(script, "route replace {address} dev {port} mtu {mtu}")?;
    }
    if let Some(first) = place.addresses.first() {
        for prefix in place.prefixes {
            writeln!(script, "route replace {prefix} via {first} dev {port}")?;
        }
    }
    Ok(())
}

/// A veth pair between the fabric's port and `eth0` in `peer`.
fn cable(script: &mut String, port: &str, mac: &str, peer: &Namespace, mtu: u32) -> Result<()> {
    let netns = peer.net_path();
    writeln!(
        script,
        "link add {port} mtu {mtu} address {VIRTUAL_MAC} type veth \
         peer name eth0 mtu {mtu} address {mac} netns {netns}"
    )?;
    writeln!(script, "link set {port} up")?;
    Ok(())
}

fn outside_side(place: &Beyond<'_>) -> Result<()> {
    let mut script = String::from("link set lo up\nlink set eth0 up\n");
    for address in place.addresses {
        writeln!(script, "addr add {address}/32 dev eth0")?;
    }
    writeln!(
        script,
        "neigh add {OUTSIDE_HOP} lladdr {VIRTUAL_MAC} dev eth0 nud permanent\n\
         route add default via {OUTSIDE_HOP} dev eth0 onlink"
    )?;
    place.namespace.ip(&script)
}

/// Waits until the ports send: the kernel gives a port its queue a moment after the other end came up, and
/// drops what comes before. Asking for one link by name hurries it (since 6.8).
fn settle(fabric: &Namespace, ports: &[&str]) -> Result<()> {
    let deadline = Deadline::after(SETTLE_TIMEOUT);
    let questions: Vec<_> = ports
        .iter()
        .map(|port| format!("link show dev {port}"))
        .collect();
    let questions = questions.join("\n");
    loop {
        let answer = fabric.feed(&["ip", "-o", "-batch", "-"], questions.as_bytes())?;
        let links = answer.success().context("look at the ports")?;
        if links.matches(" state UP ").count() == ports.len() {
            return Ok(());
        }
        ensure!(!deadline.passed(), "ports did not come up:\n{links}");
    }
}

/// The node's side of its NIC: what DHCP configures on an Azure VM.
fn boot_nic(node: &Namespace, primary: Ipv4Addr) -> Result<()> {
    node.ip(&format!(
        "link set lo up\nlink set eth0 up\naddr add {primary}/{PREFIX_LEN} dev eth0\n\
         route add default via {GATEWAY} dev eth0\n"
    ))
}
