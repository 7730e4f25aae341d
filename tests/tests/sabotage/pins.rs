//! Pins removed, replaced, and the file system with all of them unmounted.

use crate::{Outcome, Row};

const ALL: &str = "for name in programs/from_pod programs/to_pod programs/from_wire programs/to_wire maps/pods maps/snat \
                   maps/veths maps/veth_cache links/eth0:from_wire links/eth0:to_wire; do test -e PINS/$name || exit 1; done && \
                   bpftool map lookup pinned PINS/maps/pods key KEY";

pub(crate) const ROWS: &[Row] = &[
    Row::mended("the NIC's links lose their pins", "rm PINS/links/*", ALL).runs_on("eth0"),
    Row::mended("the programs lose their pins", "rm PINS/programs/*", ALL).runs_on("eth0"),
    Row::mended("a map loses its pin", "rm PINS/maps/snat", ALL).runs_on("eth0"),
    Row::mended("a map that only programs use loses its pin", "rm PINS/maps/veth_cache", ALL).runs_on("eth0"),
    Row::mended(
        "another map is pinned in the place of one",
        "rm PINS/maps/pods; bpftool map create PINS/maps/pods type hash key 4 value 24 entries 9 name pods",
        ALL,
    )
    .runs_on("eth0"),
    Row::mended("the pin directory is removed", "rm -r /sys/fs/bpf/azure-vnet", ALL).runs_on("eth0"),
    Row::mended("bpffs is unmounted", "umount /sys/fs/bpf", ALL).runs_on("eth0")
        .outcome(Outcome::Limited("is not a BPF file system; mount it"))
        .undo("mount -t bpf bpf /sys/fs/bpf"),
    Row::mended("another file system is mounted over bpffs", "mount -t tmpfs tmpfs /sys/fs/bpf", ALL).runs_on("eth0")
        .outcome(Outcome::Limited("is not a BPF file system; mount it"))
        .undo("umount /sys/fs/bpf"),
];
