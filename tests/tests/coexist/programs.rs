//! Others' tc programs on NIC and veth, and others who meddle with ours.

use std::time::Duration;

use anyhow::Context as _;
use hooks::{Hook, Mechanism, Pins};
use lab::eventually;

use super::*;

/// Matches nothing, so that the next filter is asked: `ret #0` in classic BPF.
const FOREIGN: &str = "1,6 0 0 0";

fn tc(node: &Node, line: &str) -> Result<String> {
    let words: Vec<&str> = ["tc"].into_iter().chain(line.split(' ')).collect();
    node.exec(&words)
}

/// The ways of the client's packets to a pod of the other node.
fn ways(scene: &Scene) -> Result<String> {
    let pod = &scene.client;
    let (probe, mut paths) = paths_during(&[pod], || pod.tcp(scene.remote.addr(), TARGET))?;
    assert_eq!(probe?.peer_ip(), pod.addr());
    Ok(paths.remove(0))
}

fn restart(node: &Node) -> Result {
    node.loader().kill9()?;
    node.start_loader()
}

#[test]
fn filters_of_others_on_nic_and_veth_stay_and_ours_still_work() -> Result {
    let scene = Scene::new()?;
    let (node, veth) = (scene.node(), scene.client.host_veth()?);
    // The NIC has no such qdisc where TCX links hold our programs; elsewhere it is there.
    node.feed(&["tc", "qdisc", "add", "dev", "eth0", "clsact"], b"")?;
    let places: Vec<_> = ["eth0", veth]
        .into_iter()
        .flat_map(|ifname| ["ingress", "egress"].map(|side| format!("dev {ifname} {side}")))
        .collect();
    for place in &places {
        let words = format!("filter add {place} pref 7 protocol all bpf bytecode");
        let line: Vec<&str> = ["tc"]
            .into_iter()
            .chain(words.split(' '))
            .chain([FOREIGN])
            .collect();
        node.exec(&line)?;
    }
    assert_eq!(ways(&scene)?, "from_vnet to_vnet");
    restart(node)?;
    assert_eq!(ways(&scene)?, "from_vnet to_vnet");
    for place in &places {
        let shown = tc(node, &format!("filter show {place}"))?;
        assert!(shown.contains("pref 7 bpf"), "{place}: {shown}");
    }
    Ok(())
}

#[test]
fn a_deleted_clsact_is_repaired_by_the_next_start() -> Result {
    let scene = Scene::new()?;
    let (node, veth) = (scene.node(), scene.client.host_veth()?);
    tc(node, &format!("qdisc del dev {veth} clsact"))?;
    assert_eq!(ways(&scene)?, "", "nobody counts, and the kernel forwards");
    restart(node)?;
    assert_eq!(ways(&scene)?, "from_vnet to_vnet");
    Ok(())
}

#[test]
fn a_filter_of_ours_that_somebody_replaced_is_put_back_by_the_next_start() -> Result {
    let scene = Scene::new()?;
    let (node, veth) = (scene.node(), scene.client.host_veth()?);
    // Some program that is not the one that belongs there.
    tc(
        node,
        &format!(
            "filter replace dev {veth} ingress pref 1 handle 1 protocol all bpf direct-action \
             pinned /sys/fs/bpf/azure-vnet/v1/programs/to_pod"
        ),
    )?;
    let ours = |node: &Node| -> Result<bool> {
        Ok(tc(node, &format!("filter show dev {veth} ingress"))?.contains("from_pod"))
    };
    assert!(!ours(node)?);
    restart(node)?;
    assert!(ours(node)?);
    assert_eq!(ways(&scene)?, "from_vnet to_vnet");
    Ok(())
}

#[test]
fn a_link_of_ours_that_somebody_detached_is_made_again() -> Result {
    let scene = Scene::new()?;
    let (node, hook) = (scene.node(), Hook::FROM_WIRE);
    if hook.mechanism()? == Mechanism::Clsact {
        return Ok(());
    }
    let runs = || node.run(|| Ok(hooks::runs(&Pins::default(), hook, "eth0")));
    assert!(runs()?);
    let pin = Pins::default().link("eth0", hook.program);
    let pin = pin.to_str().context("a path in ASCII")?;
    node.exec(&["bpftool", "link", "detach", "pinned", pin])?;
    assert!(!runs()?);
    // The loader looks at the NIC when anything of the node changes.
    node.ip("link add other0 type bridge\n")?;
    let again = eventually(Duration::from_secs(10), || runs().ok()?.then_some(()));
    assert!(again.is_some(), "{}", node.loader().log());
    assert_eq!(ways(&scene)?, "from_vnet to_vnet");
    Ok(())
}
