//! The NIC goes, comes, and is another.

use crate::scene::Scene;
use crate::{Outcome, Row, Stream};

pub(crate) const ROWS: &[Row] = &[
    Row::mended(
        "the NIC goes down and comes up",
        "ip link set eth0 down; ip link set eth0 up; ip route add default via 10.240.0.1 dev eth0",
        "true",
    )
    .runs_on("eth0")
    .outcome(Outcome::Harmless)
    .stream(Stream::Stalls),
    Row::mended(
        "the default route is removed",
        "ip route del default",
        "ip route show default | grep -q eth0",
    )
    .outcome(Outcome::Limited("there is no IPv4 default route"))
    .stream(Stream::Stalls)
    .undo("ip route add default via 10.240.0.1 dev eth0"),
    Row::mended("the NIC gets another MTU", "ip link set eth0 mtu 1400", "vnetctl status | grep -q 'MTU 1400'")
        .outcome(Outcome::Followed)
        .stream(Stream::Stalls)
        .undo("ip link set eth0 mtu 1500"),
    Row::mended(
        "the NIC gets another Ethernet address",
        "ip link set eth0 address 02:00:00:00:77:77",
        "vnetctl status | grep -q '02:00:00:00:77:77'",
    )
    .outcome(Outcome::Followed)
    .stream(Stream::Stalls)
    .undo("ip link set eth0 address NICMAC"),
    Row::mended(
        "the NIC gets another primary address",
        "ip address flush dev eth0; ip address add 10.240.77.77/16 dev eth0; ip route replace default via 10.240.0.1 dev eth0",
        "vnetctl status | grep -q 'eth0 10.240.77.77'",
    )
    .outcome(Outcome::Followed)
    .stream(Stream::MayBreak)
    .undo("ip address flush dev eth0; ip address add PRIMARY/16 dev eth0; ip route replace default via 10.240.0.1 dev eth0"),
    Row::mended(
        "the NIC gets another name",
        "ip link set eth0 down; ip link set eth0 name nic7; ip link set nic7 up; ip route replace default via 10.240.0.1 dev nic7",
        "vnetctl status | grep -q 'to_wire and from_wire on nic7' && nft list table ip azure-vnet | grep -q nic7",
    )
    .outcome(Outcome::Followed)
    .stream(Stream::Stalls)
    .undo(
        "ip link set nic7 down; ip link set nic7 name eth0; ip link set eth0 up; ip route replace default via 10.240.0.1 dev eth0",
    ),
    Row::mended(
        "a second interface with the NIC's Ethernet address comes",
        "ip link add vf0 address NICMAC type veth peer name vf1; ip link set vf0 up",
        "true",
    )
    .runs_on("eth0")
    .outcome(Outcome::Harmless)
    .undo("ip link del vf0"),
    Row::mended(
        "the NIC is made anew",
        "",
        "true",
    )
    .runs_on("eth0")
    .by(renew)
    .stream(Stream::MayBreak),
    // The last, because nothing thaws a map.
    Row::mended(
        "the map of settings is frozen, and the NIC gets another MTU",
        "bpftool map freeze pinned PINS/maps/config; ip link set eth0 mtu 1490",
        "grep -q 1500 /sys/class/net/eth0/mtu",
    )
    .outcome(Outcome::Limited("in map `config`"))
    .stream(Stream::Stalls)
    .undo("ip link set eth0 mtu 1500"),
];

fn renew(scene: &Scene) -> anyhow::Result<()> {
    scene.node().renew_nic()
}
