//! Does the node's network get in the way?

use std::fs;
use std::net::Ipv4Addr;

use abi::Config;
use rpc::{Endpoint, routed};

use super::node::Node;
use super::{Problem, lasting};
use crate::ports::{PortRange, PortUses};
use crate::reconcile::endpoints;
use crate::words::some;

pub(super) fn default_route(_node: &Node) -> Option<Problem> {
    let routes = fs::read_to_string("/proc/thread-self/net/route").ok()?;
    let is_default = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields.get(1) == Some(&"00000000") && fields.get(7) == Some(&"00000000")
    };
    (!routes.lines().any(is_default)).then(|| {
        Problem::error(
            "there is no IPv4 default route",
            "the loader finds the NIC by it, and pods reach nothing outside",
            "mend the node's network (`networkctl`, `journalctl -u systemd-networkd`, DHCP)",
        )
    })
}

pub(super) fn ip_forward(_node: &Node) -> Option<Problem> {
    let on = sysctl("ip_forward")?;
    (on != "1").then(|| {
        Problem::error(
            format!("net.ipv4.ip_forward is {on}"),
            "what the programs leave to the kernel (Services, host ports, fragments) is not forwarded",
            "sysctl -w net.ipv4.ip_forward=1; find who turns it off in /etc/sysctl.d",
        )
    })
}

/// Only pods in a tunnel mode send what comes back by the NIC.
pub(super) fn rp_filter(node: &Node) -> Option<Problem> {
    let nic = node.nic()?;
    let value = |name: &str| {
        sysctl(&format!("conf/{name}/rp_filter"))?
            .parse::<u8>()
            .ok()
    };
    let strict = value("all")?.max(value(&nic)?) == 1;
    let tunnelled = node.records.iter().any(Endpoint::is_tunnelled);
    (strict && tunnelled).then(|| {
        Problem::warning(
            format!("rp_filter is strict (1) on {nic}, and pods are in a tunnel mode"),
            "fragments between pods of this node come back by the NIC and are dropped",
            format!("sysctl -w net.ipv4.conf.{nic}.rp_filter=2, and the same in /etc/sysctl.d"),
        )
    })
}

/// The loader keeps clear of the range when it starts; later nobody asks it.
pub(super) fn port_range(node: &Node) -> Option<Problem> {
    let ours = nat_ports(&node.config()?)?;
    let clash = PortUses::read().clash(ours)?;
    Some(Problem::error(
        format!("ports {ours} are for pods' SNAT, but {clash}"),
        "a connection of the node's own can meet a pod's: one of the two breaks",
        format!(
            "sysctl -w net.ipv4.ip_local_port_range=\"32768 60999\", or set aside our ports \
             (net.ipv4.ip_local_reserved_ports={ours}), or choose others with `natPorts` in /etc/azure-vnet/loader.yaml"
        ),
    ))
}

fn nat_ports(config: &Config) -> Option<PortRange> {
    let last = config
        .nat_first
        .checked_add(config.nat_count.checked_sub(1)?)?;
    Some(PortRange {
        first: config.nat_first,
        last,
    })
}

pub(super) fn pod_routes(node: &Node) -> Option<Problem> {
    let lost = lasting(|| {
        // Records first: what is routed by then has been added before.
        let pods = endpoints(&node.run).into_iter();
        let pods: Vec<Ipv4Addr> = pods.map(|record| record.address.addr()).collect();
        let Ok(routed) = routed() else {
            return Vec::new();
        };
        let lost = pods.iter().filter(|pod| !routed.contains(pod));
        lost.map(ToString::to_string).collect()
    });
    (!lost.is_empty()).then(|| {
        Problem::error(
            format!("no route leads to the pods {}", some(&lost)),
            "the node itself, Services and probes do not reach them",
            "find who removes routes (systemd-networkd: see the check `networkd`); delete the pods, so that they are made anew",
        )
    })
}

/// Somebody else sets host veths up, or changed the NIC's MTU since.
pub(super) fn pod_links(node: &Node) -> Option<Problem> {
    let of = |ifname: &str, what: &str| {
        let text = fs::read_to_string(format!("/sys/class/net/{ifname}/{what}")).ok()?;
        Some(text.trim().to_owned())
    };
    let mtu = node.nic().and_then(|nic| of(&nic, "mtu"));
    let wrong = lasting(|| {
        let mut wrong = Vec::new();
        for record in endpoints(&node.run) {
            let (veth, wanted) = (&record.host_ifname, record.host_mac.to_string());
            if let Some(mac) = of(veth, "address").filter(|mac| *mac != wanted) {
                wrong.push(format!("{veth} has Ethernet address {mac}, not {wanted}"));
            }
            if let (Some(nic), Some(veth_mtu)) = (&mtu, of(veth, "mtu"))
                && *nic != veth_mtu
            {
                wrong.push(format!("{veth} has MTU {veth_mtu}, the NIC {nic}"));
            }
        }
        wrong
    });
    (!wrong.is_empty()).then(|| {
        Problem::error(
            some(&wrong),
            "frames to another Ethernet address are dropped in the pod; other MTUs cost fragments, or packets vanish",
            "find who sets links up (udev: see the check `udev`); delete the pods, so that they are made anew",
        )
    })
}

/// A setting of IPv4 in this network namespace.
fn sysctl(name: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).ok()?;
    Some(text.trim().to_owned())
}
