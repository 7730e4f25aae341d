//! Entries of the maps taken out, put in, and altered.

use std::net::Ipv4Addr;

use abi::{Class, ClassEntry, IfIndex, Ip4, Mac, Pod, Slot, Veth};
use anyhow::{Context as _, Result};
use aya::maps::lpm_trie::Key;
use hooks::{Abi, Maps, Pins};
use nix::net::if_::if_nametoindex;

use crate::scene::Scene;
use crate::{Row, Stream};

/// Pods, veths and classes, and of the settings what does not change by itself: 28 bytes.
const KEEP: &str = "mkdir -p /tmp/maps; cd /tmp/maps; for map in pods veths dst4; do bpftool map dump pinned PINS/maps/$map | sort > $map; \
                    done; bpftool -j map lookup pinned PINS/maps/config key 0 0 0 0 | cut -c1-241 > config";
/// As [`alter`] has found them.
const SAME: &str = "mkdir -p /tmp/now; cd /tmp/now; for map in pods veths dst4; do bpftool map dump pinned PINS/maps/$map | sort > $map; \
                    done; bpftool -j map lookup pinned PINS/maps/config key 0 0 0 0 | cut -c1-241 > config; diff -r /tmp/now /tmp/maps";
const TAKE_OUT: &str = "i=$(cat /sys/class/net/VETH/ifindex); bpftool map delete pinned PINS/maps/veths key $((i & 255)) $((i >> 8)) 0 0";
const IS_IN: &str = "i=$(cat /sys/class/net/VETH/ifindex); bpftool map lookup pinned PINS/maps/veths key $((i & 255)) $((i >> 8)) 0 0";

pub(crate) const ROWS: &[Row] = &[
    Row::mended(
        "a pod is taken out of map pods",
        "bpftool map delete pinned PINS/maps/pods key KEY",
        "bpftool map lookup pinned PINS/maps/pods key KEY",
    )
    // As without from_wire.
    .stream(Stream::MayBreak),
    Row::mended("a veth is taken out of map veths", TAKE_OUT, IS_IN).stream(Stream::Stalls),
    Row::mended(
        "a veth is taken out of map veths, and again at once",
        TAKE_OUT,
        IS_IN,
    )
    .again()
    .stream(Stream::Stalls),
    Row::mended("a veth is tied to another address", "", SAME)
        .by(|scene| {
            of_veth(scene, |veth| {
                veth.addr = Ip4::from(Ipv4Addr::new(10, 240, 9, 9));
            })
        })
        .stream(Stream::Stalls),
    Row::mended("a veth is tied to another Ethernet address", "", SAME)
        .by(|scene| of_veth(scene, |veth| veth.mac = Mac::new([2; 6])))
        .stream(Stream::Stalls),
    Row::mended("a veth answers ARP with another Ethernet address", "", SAME)
        .by(|scene| of_veth(scene, |veth| veth.host_mac = Mac::new([2; 6])))
        .stream(Stream::Stalls),
    Row::mended("a veth is of another generation", "", SAME)
        .by(|scene| of_veth(scene, |veth| veth.generation ^= 1))
        .stream(Stream::MayBreak),
    Row::mended("a veth has another's counters", "", SAME)
        .by(|scene| of_veth(scene, |veth| veth.slot = Slot::new(99))),
    Row::mended("a pod is led to another's veth", "", SAME)
        .by(|scene| {
            let near = if_nametoindex_in(scene, scene.near.host_veth()?)?;
            of_pod(scene, |pod| pod.ifindex = near)
        })
        .stream(Stream::Stalls),
    Row::mended(
        "a pod gets another Ethernet address, and another generation",
        "",
        SAME,
    )
    .by(|scene| {
        of_pod(scene, |pod| {
            pod.mac = Mac::new([2; 6]);
            pod.generation ^= 1;
        })
    })
    .stream(Stream::MayBreak),
    Row::mended("a pod that does not exist is put into map pods", "", SAME).by(|scene| {
        alter(scene, |scene, maps| {
            let (_, pod) = pod(scene, maps)?;
            let nobody = Ip4::from(Ipv4Addr::new(10, 240, 9, 9));
            Ok(maps.pods.insert(Abi(nobody), Abi(pod), 0)?)
        })
    }),
    Row::mended(
        "the programs are told another MTU and no ports for SNAT",
        "",
        SAME,
    )
    .by(|scene| {
        alter(scene, |_, maps| {
            let mut config = maps.config.get(&0, 0)?.0;
            (config.mtu, config.nat_count) = (600, 0);
            Ok(maps.config.set(0, Abi(config), 0)?)
        })
    })
    .stream(Stream::Stalls),
    Row::mended("pods are denied the Internet in map dst4", "", SAME)
        .by(|scene| {
            alter(scene, |scene, maps| {
                let addr = Abi(Ip4::from(scene.lab.inet().addr()));
                let class = Abi(ClassEntry::new(Class::Deny));
                Ok(maps.dst4.insert(&Key::new(32, addr), class, 0)?)
            })
        })
        .stream(Stream::Stalls),
    Row::mended("a prefix is taken out of map dst4", "", SAME)
        .by(|scene| {
            alter(scene, |_, maps| {
                let key = maps.dst4.keys().next().context("dst4 is empty")??;
                Ok(maps.dst4.remove(&key)?)
            })
        })
        .stream(Stream::Stalls),
];

/// Writes the maps, and keeps before how they are.
fn alter(scene: &Scene, change: impl FnOnce(&Scene, &mut Maps) -> Result<()> + Send) -> Result<()> {
    scene.sh(KEEP)?;
    let pins = Pins::default();
    scene
        .node()
        .run(move || change(scene, &mut Maps::from_pins(&pins)?))
}

fn if_nametoindex_in(scene: &Scene, name: &str) -> Result<IfIndex> {
    scene.node().run(|| Ok(IfIndex::new(if_nametoindex(name)?)))
}

fn pod(scene: &Scene, maps: &Maps) -> Result<(Ip4, Pod)> {
    let addr = Ip4::from(scene.pod.addr());
    Ok((addr, maps.pods.get(&Abi(addr), 0)?.0))
}

fn of_pod(scene: &Scene, change: impl FnOnce(&mut Pod) + Send) -> Result<()> {
    alter(scene, |scene, maps| {
        let (addr, mut pod) = pod(scene, maps)?;
        change(&mut pod);
        Ok(maps.pods.insert(Abi(addr), Abi(pod), 0)?)
    })
}

fn of_veth(scene: &Scene, change: impl FnOnce(&mut Veth) + Send) -> Result<()> {
    alter(scene, |scene, maps| {
        let ifindex = pod(scene, maps)?.1.ifindex;
        let mut veth = maps.veths.get(&Abi(ifindex), 0)?.0;
        change(&mut veth);
        Ok(maps.veths.insert(Abi(ifindex), Abi(veth), 0)?)
    })
}
