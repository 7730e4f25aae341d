//! How does each side get its network? As its own documents say, with its own binaries.

use anyhow::{Context as _, Result};
use lab::libcni::Network;
use lab::{AZURE_CONFLIST, GATEWAY, Node, Pod, SUBNET};
use serde_json::{Value, json};

use super::Kind;
use crate::names::SideName;

/// The bridge with the NIC on it.
const BRIDGE: &str = "azure0";

/// The rule of Azure's documents: what leaves the virtual network gets the node's address.
const MASQUERADE: &str = "iptables -w -t nat -A POSTROUTING -m iprange ! --dst-range 168.63.129.16 -m addrtype ! --dst-type \
                          local ! -d 10.240.0.0/16 -j MASQUERADE";

/// Sets the node up and says how pods are made there.
pub(super) fn set_up(side: SideName, kind: Kind, node: &Node) -> Result<Option<Network>> {
    let list = match side {
        SideName::Host => return Ok(None),
        SideName::Bridge => {
            bridge(node)?;
            exec(node, MASQUERADE)?;
            let gateway = GATEWAY.to_string();
            let plugin = json!({"type": "bridge", "bridge": BRIDGE, "ipMasq": false, "ipam": ipam(kind, &gateway)});
            list(&plugin)
        }
        SideName::Ptp => {
            let plugin = json!({"type": "ptp", "ipMasq": true, "ipam": ipam(kind, PTP_GATEWAY)});
            list(&plugin)
        }
        SideName::Ours => {
            node.start_loader()?;
            AZURE_CONFLIST.to_owned()
        }
    };
    Network::parse(list.as_bytes()).map(Some)
}

/// The node's end of every cable of ptp; an address of the node that nobody else has.
const PTP_GATEWAY: &str = "10.240.1.1";

/// The addresses that are registered on the NIC. The subnet is the virtual network, which `ipMasq` leaves alone as the rule does.
fn ipam(kind: Kind, gateway: &str) -> Value {
    let last = match kind {
        Kind::Traffic => "10.240.1.249",
        Kind::Pods | Kind::NoPods => "10.240.4.240",
    };
    json!({"type": "host-local", "subnet": SUBNET, "rangeStart": "10.240.1.10", "rangeEnd": last, "gateway": gateway,
        "routes": [{"dst": "0.0.0.0/0"}]})
}

fn list(plugin: &Value) -> String {
    json!({"cniVersion": "0.4.0", "name": "peer", "plugins": [plugin]}).to_string()
}

/// Puts the NIC on a bridge that takes over its address, with the rules of azure-vnet's bridge mode: the Azure network takes
/// frames from the NIC's address only, does not answer for the node itself, and broadcasts nothing.
fn bridge(node: &Node) -> Result<()> {
    let (mac, address) = (node.mac(), node.addr());
    node.ip(&format!(
        "link add {BRIDGE} address {mac} type bridge\n\
         addr del {address}/16 dev eth0\n\
         link set eth0 master {BRIDGE}\n\
         link set {BRIDGE} up\n\
         addr add {address}/16 dev {BRIDGE}\n\
         route add default via {GATEWAY} dev {BRIDGE}\n"
    ))?;
    // As with every runtime of pods; iptables sees bridged packets.
    node.sysctl("net.ipv4.ip_forward", "1")?;
    node.sysctl("net.bridge.bridge-nf-call-iptables", "1")?;
    for rule in [
        format!("POSTROUTING -s unicast -o eth0 -j snat --to-src {mac} --snat-arp --snat-target ACCEPT"),
        format!(
            "PREROUTING -p ARP --arp-op Request --arp-ip-dst {address} -j arpreply --arpreply-mac {mac} \
             --arpreply-target DROP"
        ),
        "PREROUTING -p ARP -i eth0 --arp-op Reply -j dnat --to-dst ff:ff:ff:ff:ff:ff --dnat-target ACCEPT".into(),
    ] {
        exec(node, &format!("ebtables -t nat -A {rule}"))?;
    }
    Ok(())
}

/// The rules of bridge mode for one pod: who asks for it is answered, and what comes for it gets its address.
pub(super) fn bridged(node: &Node, pod: &Pod) -> Result<()> {
    let mac = mac_of(pod)?;
    let address = pod.addr();
    for rule in [
        format!(
            "-p ARP --arp-op Request --arp-ip-dst {address} -j arpreply --arpreply-mac {mac} --arpreply-target DROP"
        ),
        format!("-p IPv4 -i eth0 --ip-dst {address} -j dnat --to-dst {mac} --dnat-target ACCEPT"),
    ] {
        exec(node, &format!("ebtables -t nat -A PREROUTING {rule}"))?;
    }
    Ok(())
}

/// The pod's own address; the reference plug-in lists the pod's interface last.
fn mac_of(pod: &Pod) -> Result<String> {
    let interfaces = pod.result().get("interfaces").and_then(Value::as_array);
    let own = interfaces.and_then(|all| all.iter().find(|one| one["sandbox"].is_string()));
    let mac = own.and_then(|own| own.get("mac")?.as_str());
    mac.map(str::to_owned)
        .context("no Ethernet address in the result of ADD")
}

/// A command line without blanks in its words.
fn exec(node: &Node, line: &str) -> Result<String> {
    node.exec(&line.split_whitespace().collect::<Vec<_>>())
}
