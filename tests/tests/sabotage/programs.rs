//! Programs taken off, others' put in front.

use aya::programs::tc::{SchedClassifier, TcAttachOptions};
use aya::programs::{LinkOrder, TcAttachType};

use crate::scene::Scene;
use crate::{Outcome, Row, Stream};

const BOTH: &str = "tc filter show dev VETH ingress | grep -q from_pod && tc filter show dev VETH egress | grep -q to_pod";

pub(crate) const ROWS: &[Row] = &[
    Row::mended(
        "from_pod's filter is deleted",
        "tc filter del dev VETH ingress",
        BOTH,
    )
    .stream(Stream::Stalls),
    Row::mended(
        "to_pod's filter is deleted",
        "tc filter del dev VETH egress",
        BOTH,
    ),
    Row::mended(
        "a pod's clsact qdisc is deleted",
        "tc qdisc del dev VETH clsact",
        BOTH,
    )
    .stream(Stream::Stalls),
    Row::mended(
        "another program is put in the place of from_pod's",
        "tc filter replace dev VETH ingress pref 1 handle 1 bpf da pinned PINS/programs/to_pod",
        BOTH,
    )
    .stream(Stream::Stalls),
    Row::mended(
        "from_wire's link is detached from the NIC",
        "bpftool link detach pinned PINS/links/eth0:from_wire",
        "true",
    )
    .runs_on("eth0")
    // The node knows nothing of the connections whose answers come now, and resets them.
    .stream(Stream::MayBreak),
    Row::mended(
        "to_wire's link is detached from the NIC",
        "bpftool link detach pinned PINS/links/eth0:to_wire",
        "true",
    )
    .runs_on("eth0"),
    Row::mended(
        "a clsact qdisc comes to the NIC and goes",
        "tc qdisc add dev eth0 clsact; tc qdisc del dev eth0 clsact",
        "true",
    )
    .runs_on("eth0")
    .outcome(Outcome::Harmless),
    Row::mended(
        "the NIC's root qdisc is replaced",
        "tc qdisc replace dev eth0 root pfifo limit 1000",
        "true",
    )
    .runs_on("eth0")
    .outcome(Outcome::Harmless)
    .undo("tc qdisc del dev eth0 root"),
    Row::mended(
        "a filter is put before from_pod",
        "tc filter add dev VETH ingress pref 1 handle 9 bpf da pinned PINS/programs/to_wire",
        "! tc filter show dev VETH ingress | grep -q to_wire",
    )
    .outcome(Outcome::Warned("programs of others come before ours"))
    .stream(Stream::MayBreak)
    .undo("tc filter del dev VETH ingress pref 1 handle 9 bpf"),
    Row::mended(
        "a TCX program is put before from_pod",
        "",
        "! test -e /sys/fs/bpf/foreign",
    )
    .by(put_before)
    .outcome(Outcome::Warned("programs of others come before ours"))
    .undo("rm /sys/fs/bpf/foreign"),
];

/// A program that passes on all it gets, in front.
fn put_before(scene: &Scene) -> anyhow::Result<()> {
    let veth = scene.pod.host_veth()?;
    scene.node().run(|| {
        let pins = hooks::Pins::default();
        let mut program = SchedClassifier::from_pin(pins.program("to_pod"))?;
        let options = TcAttachOptions::TcxOrder(LinkOrder::first());
        let link = program.attach_with_options(veth, TcAttachType::Ingress, options)?;
        let link: aya::programs::links::FdLink = program.take_link(link)?.try_into()?;
        link.pin("/sys/fs/bpf/foreign")?;
        Ok(())
    })
}
