//! What the kernel's own path needs: links, routes, neighbours, rules, settings.

use crate::{Outcome, Row, Stream};

const WAY: &str = "ip link show dev VETH | grep -q 'state UP' && ip route show ADDR | grep -q 'dev VETH' && \
                   ip neigh show dev VETH nud permanent | grep -q 'ADDR lladdr MAC'";
const TABLE: &str = "nft list table ip azure-vnet > /tmp/table && grep -q masquerade /tmp/table && grep -q 'fib saddr' /tmp/table && \
                     grep -q 'drop' /tmp/table && ! grep -q 8.8.8.8 /tmp/table";

pub(crate) const ROWS: &[Row] = &[
    Row::mended("a pod's route is removed", "ip route del ADDR", WAY),
    Row::mended(
        "a pod's route is led elsewhere",
        "ip route replace ADDR dev lo scope link",
        WAY,
    ),
    Row::mended(
        "a pod's neighbour is removed",
        "ip neigh del ADDR dev VETH",
        WAY,
    ),
    Row::mended(
        "a pod's neighbour gets another Ethernet address",
        "ip neigh replace ADDR lladdr 02:00:00:00:00:99 dev VETH nud permanent",
        WAY,
    ),
    Row::mended("a pod's veth is set down", "ip link set VETH down", WAY).stream(Stream::Stalls),
    Row::mended(
        "a setting of a veth cannot be set any more",
        "mkdir -p /tmp/proc; mount -t proc proc /tmp/proc; \
         echo 0 > /tmp/locked; mount --bind /tmp/locked /proc/sys/net/ipv4/conf/VETH/forwarding; \
         mount -o remount,bind,ro /proc/sys/net/ipv4/conf/VETH/forwarding; \
         echo 0 > /tmp/proc/sys/net/ipv4/conf/VETH/forwarding; umount /tmp/proc; \
         echo 0 > /proc/sys/net/ipv6/conf/VETH/disable_ipv6",
        "grep -q 1 /proc/sys/net/ipv4/conf/VETH/forwarding",
    )
    .outcome(Outcome::Limited("conf/VETH/forwarding"))
    .meanwhile("grep -q 1 /proc/sys/net/ipv6/conf/VETH/disable_ipv6")
    .undo("umount /proc/sys/net/ipv4/conf/VETH/forwarding"),
    Row::mended(
        "the rule for pods in a tunnel mode is removed",
        "ip rule del priority 7320",
        "ip rule show | grep -q 'lookup 7320'",
    ),
    Row::mended(
        "the route for pods in a tunnel mode is removed",
        "ip route flush table 7320",
        "ip route show table 7320 | grep -q default",
    ),
    Row::mended(
        "the route for pods in a tunnel mode is removed, and the gateway is out of reach",
        "ip route flush table 7320; ip route del 10.240.0.0/16 dev eth0",
        "ip route show table 7320 | grep -q default",
    )
    .outcome(Outcome::Limited("to table 7320"))
    .stream(Stream::Stalls)
    .undo(
        "ip route add 10.240.0.0/16 dev eth0 src PRIMARY && ip route add default via 10.240.0.1 dev eth0 table 7320",
    ),
    Row::mended(
        "the nft table is deleted",
        "nft delete table ip azure-vnet",
        TABLE,
    ),
    Row::mended(
        "the nft table is emptied",
        "nft flush table ip azure-vnet",
        TABLE,
    ),
    Row::mended("all nft rules are flushed", "nft flush ruleset", TABLE),
    Row::mended(
        "a rule is added to the nft table",
        "nft insert rule ip azure-vnet postrouting ip daddr 8.8.8.8 accept",
        TABLE,
    ),
    Row::mended(
        "IPv4 forwarding is switched off",
        "echo 0 > /proc/sys/net/ipv4/ip_forward",
        "grep -q 1 /proc/sys/net/ipv4/ip_forward && grep -q 1 /proc/sys/net/ipv4/conf/VETH/forwarding && \
         grep -q 1 /proc/sys/net/ipv4/conf/eth0/forwarding",
    ),
    Row::mended(
        "forwarding is switched off on the NIC and a veth",
        "echo 0 > /proc/sys/net/ipv4/conf/VETH/forwarding; echo 0 > /proc/sys/net/ipv4/conf/eth0/forwarding",
        "grep -q 1 /proc/sys/net/ipv4/conf/VETH/forwarding && grep -q 1 /proc/sys/net/ipv4/conf/eth0/forwarding",
    ),
    Row::mended(
        "redirects and IPv6 are switched on for a veth",
        "echo 1 > /proc/sys/net/ipv4/conf/VETH/accept_redirects; echo 0 > /proc/sys/net/ipv6/conf/VETH/disable_ipv6",
        "grep -q 0 /proc/sys/net/ipv4/conf/VETH/accept_redirects && grep -q 1 /proc/sys/net/ipv6/conf/VETH/disable_ipv6",
    ),
    Row::mended(
        "the node's own ports are laid over those of SNAT",
        "echo 1024 65535 > /proc/sys/net/ipv4/ip_local_port_range",
        "grep -q 32768 /proc/sys/net/ipv4/ip_local_port_range",
    )
    .outcome(Outcome::Warned("SNAT ports"))
    .undo("echo 32768 60999 > /proc/sys/net/ipv4/ip_local_port_range"),
    // The last, because a pod is lost.
    Row::mended(
        "a pod's veth is replaced by an interface that can have no IPv4, and another pod's route is removed",
        "i=$(cat /sys/class/net/GHOST/ifindex); ip link del GHOST; ip link add GHOST index $i type ifb; \
         ip link set GHOST mtu 60 up; ip route del NEARADDR",
        "! bpftool map lookup pinned PINS/maps/pods key GHOSTKEY",
    )
    .outcome(Outcome::Limited("add the route to GHOSTADDR"))
    .meanwhile("ip route show NEARADDR | grep -q dev")
    .undo("ip link del GHOST"),
];
