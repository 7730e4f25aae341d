//! Records, leases, locks and sockets, and a pod whose end of the cable somebody takes.

use std::os::unix::net::UnixListener;

use crate::scene::Scene;
use crate::{Outcome, Row, Stream};

const FILES: &str = "test -s RECORD && ! grep -q rubbish RECORD && test -s /run/azure-vnet/ipam/leases/ADDR && \
                     ! grep -q rubbish /run/azure-vnet/ipam/leases/ADDR";
const ANSWERS: &str = "test -S /run/azure-vnet/loader.sock && timeout 1 vnetctl status > /dev/null";

pub(crate) const ROWS: &[Row] = &[
    Row::mended("an endpoint record is removed", "rm RECORD", FILES),
    Row::mended(
        "an endpoint record is damaged",
        "echo rubbish > RECORD",
        FILES,
    ),
    Row::mended(
        "a lease is removed",
        "rm /run/azure-vnet/ipam/leases/ADDR",
        FILES,
    ),
    Row::mended(
        "a lease is damaged",
        "echo rubbish > /run/azure-vnet/ipam/leases/ADDR",
        FILES,
    ),
    Row::mended(
        "the loader's socket is removed",
        "rm /run/azure-vnet/loader.sock",
        ANSWERS,
    ),
    Row::mended(
        "another's socket is put in the place of the loader's",
        "",
        ANSWERS,
    )
    .by(replace_socket),
    Row::mended(
        "the loader's lock is removed",
        "rm /run/azure-vnet/loader.lock",
        "test -e /run/azure-vnet/loader.lock && ! flock --nonblock /run/azure-vnet/loader.lock true",
    ),
    Row::mended(
        "a directory takes the place of the loader's lock",
        "mv /run/azure-vnet/loader.lock /run/azure-vnet/kept && mkdir /run/azure-vnet/loader.lock",
        "test -f /run/azure-vnet/loader.lock",
    )
    .outcome(Outcome::Limited("loader.lock"))
    .undo(
        "rmdir /run/azure-vnet/loader.lock && mv /run/azure-vnet/kept /run/azure-vnet/loader.lock",
    ),
    Row::mended(
        "the run directory is removed",
        "rm -r /run/azure-vnet",
        "test -s RECORD && test -s /run/azure-vnet/ipam/leases/ADDR && timeout 1 vnetctl status > /dev/null",
    ),
    Row::mended(
        "a pod's veth is removed",
        "ip link del GHOST",
        "! bpftool map lookup pinned PINS/maps/pods key GHOSTKEY",
    )
    .stream(Stream::Flows),
];

/// One that nobody listens at any more.
fn replace_socket(scene: &Scene) -> anyhow::Result<()> {
    scene.sh("rm /run/azure-vnet/loader.sock")?;
    scene.node().run(|| {
        UnixListener::bind("/run/azure-vnet/loader.sock")?;
        Ok(())
    })
}
