//! Does the loader mend what it looks after, with the rights that it has?

use std::time::Duration;

use crate::node::Node;
use crate::pod::Pod;
use crate::wait::eventually;

/// For a repair on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// Damages something of each kind, and waits until all of it is whole again.
pub fn damage_is_mended(node: &Node, pod: &Pod) -> bool {
    let Ok(veth) = pod.host_veth() else {
        return false;
    };
    let addr = pod.addr();
    let damage = format!(
        "tc qdisc del dev {veth} clsact; rm -r /sys/fs/bpf/azure-vnet; nft flush table ip azure-vnet; \
         echo 0 > /proc/sys/net/ipv4/ip_forward; rm /run/azure-vnet/loader.lock; \
         rm /run/azure-vnet/ipam/leases/*; ip route del {addr}"
    );
    let whole = format!(
        "tc filter show dev {veth} ingress | grep -q from_pod && test -e /sys/fs/bpf/azure-vnet/v1/maps/pods && \
         nft list table ip azure-vnet | grep -q masquerade && grep -q 1 /proc/sys/net/ipv4/ip_forward && \
         test -e /run/azure-vnet/loader.lock && ip route show {addr} | grep -q {veth} && \
         test -e /run/azure-vnet/ipam/leases/{addr}"
    );
    let is_whole = || node.exec(&["sh", "-ec", &whole]).ok();
    node.exec(&["sh", "-ec", &damage]).is_ok() && eventually(PATIENCE, is_whole).is_some()
}
