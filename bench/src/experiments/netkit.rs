//! A cable of netkit beside one of veth, without any program of ours: what the cable itself could save.

use anyhow::{Context as _, Result};
use lab::{Node, Pod};

use super::{Trial, Turn, figures};
use crate::load::tcp;
use crate::names::{Path, SideName, Unit};
use crate::run::requests_of;
use crate::scene::{End, Kind, Side, VETH, at_cable, cabled};

/// With Ethernet addresses, as pods have them.
const NETKIT: &str = "netkit mode l2";

pub(super) fn run(trial: &mut Trial, name: &str) -> Result<()> {
    let side = Side::build(SideName::Host, Kind::Traffic, None, &|_| Ok(()))?;
    let node = side.node();
    if let Err(error) = probe(node) {
        trial.table.leave_out(
            name,
            &format!("this kernel, or its `ip`, makes no netkit ({error:#})"),
        );
        return Ok(());
    }
    let veth = cabled(node, "veth", VETH)?;
    let netkit = cabled(node, "netkit", NETKIT)?;
    let times = trial.times;
    let loads = [
        ("tcp_rr", tcp::request_response as fn(_, _) -> _),
        ("tcp_crr", tcp::connect_close),
    ];
    for (load, make) in loads {
        let turn = |(label, pods): (&'static str, &Vec<Pod>)| -> Result<Turn<'static>> {
            Ok((label, requests_of(&ends(pods)?, times, make)?))
        };
        let turns = [(VETH, &veth), ("netkit", &netkit)].map(turn);
        let turns = turns.into_iter().collect::<Result<_>>()?;
        trial.alternate(name, &figures(load, Path::Local, Unit::PerSecond), turns)?;
    }
    Ok(())
}

/// Whether there is such a thing here. What it makes ends with its node.
fn probe(node: &Node) -> Result<()> {
    node.ip(&format!("link add probe type {NETKIT}"))?;
    node.ip("link del probe")
}

fn ends(pods: &[Pod]) -> Result<(End, End)> {
    let end = |number| at_cable(pods.get(number).context("a namespace is missing")?, number);
    Ok((end(0)?, end(1)?))
}
