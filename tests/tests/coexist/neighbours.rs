//! NodeLocal DNS, kubelet's probes, others' masquerading.

use lab::NODE_LOCAL_DNS;

use super::*;

#[test]
fn node_local_dns_answers_over_udp_and_tcp() -> Result {
    let scene = Scene::new()?;
    let _dns = scene.node().node_local_dns()?;
    let pod = &scene.client;
    let (seen, paths) = paths_during(&[pod], || pod.dns_at(NODE_LOCAL_DNS, "a.example"))?;
    assert_eq!(seen?, [pod.addr(); 2]);
    assert_eq!(paths, ["from_stack to_stack"]);
    Ok(())
}

#[test]
fn a_probe_from_a_link_local_address_of_the_node_is_answered() -> Result {
    let scene = Scene::new()?;
    let probe = Ipv4Addr::new(169, 254, 7, 127);
    scene.node().ip("addr add 169.254.7.127/32 dev lo\n")?;
    let pod = &scene.client;
    let ask = || scene.node().converse_from(probe, 0, pod.addr(), TARGET);
    let (connection, paths) = paths_during(&[pod], || ask().map(|open| open.seen()))?;
    assert_eq!(*connection?.ip(), probe);
    assert_eq!(paths, ["from_stack to_stack"]);
    Ok(())
}

#[test]
fn another_masquerading_rule_translates_nothing_twice() -> Result {
    type Install = fn(&Node) -> Result;
    let rules: [Install; 2] = [Node::documented_masquerade, |node| {
        node.ip_masq_agent(&["10.0.0.0/8"], false)
    }];
    for install in rules {
        let scene = Scene::new()?;
        install(scene.node())?;
        let (pod, inet) = (&scene.client, scene.lab.inet());
        let (probe, paths) = paths_during(&[pod], || pod.tcp(inet.addr(), TARGET))?;
        let probe = probe?;
        assert_eq!(probe.peer_ip(), scene.node().addr());
        // A second translation would choose another port: ours keeps the pod's when it can.
        assert!((1024..30_000).contains(&probe.peer_addr().port()));
        assert_eq!(paths, ["from_internet to_internet"]);
        let tracked = scene.node().tracked()?;
        assert!(
            !tracked.iter().any(|flow| flow.has(inet.addr())),
            "{tracked:?}"
        );
        // In the virtual network the pod keeps its address.
        assert_eq!(pod.tcp(scene.remote.addr(), TARGET)?.peer_ip(), pod.addr());
    }
    Ok(())
}
