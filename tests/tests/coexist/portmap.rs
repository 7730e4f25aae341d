//! Host ports of the reference plug-in, chained by the documented conflist.

use lab::Namespace;

use super::*;

/// A host port inside the range of our NAT ports.
const HOST_PORT: u16 = 8081;

/// A pod with host ports, and its echo server.
fn published(scene: &Scene, at: Option<Ipv4Addr>) -> Result<(Pod, EchoServer)> {
    let node = scene.node();
    let mut pod = node.new_netns("published")?;
    let mut attachment = pod.attachment().clone();
    for protocol in ["tcp", "udp"] {
        attachment = match at {
            Some(at) => attachment.host_port_at(at, HOST_PORT, TARGET, protocol),
            None => attachment.host_port(HOST_PORT, TARGET, protocol),
        };
    }
    *pod.attachment_mut() = attachment;
    pod.add(&node.network()?)?;
    let server = pod.serve_echo(TARGET)?;
    Ok((pod, server))
}

#[test]
fn a_host_port_is_reached_from_outside_and_from_the_other_node() -> Result {
    let scene = Scene::new()?;
    let (pod, _server) = published(&scene, None)?;
    let (lab, at) = (&scene.lab, scene.node().addr());
    let callers: [(&Namespace, Ipv4Addr); 4] = [
        (lab.inet(), lab.inet().addr()),
        (lab.peer(), lab.peer().addr()),
        // portmap masquerades what comes from the pod's own subnet, which is that of the nodes too.
        (lab.node(2), at),
        (&scene.remote, at),
    ];
    for (from, addr) in callers {
        let ask = || Ok::<_, anyhow::Error>([from.tcp(at, HOST_PORT)?, from.udp(at, HOST_PORT)?]);
        let (probes, paths) = paths_during(&[&pod], ask)?;
        assert_eq!(
            probes?.map(|probe| probe.peer_ip()),
            [addr; 2],
            "{}",
            from.name()
        );
        assert_eq!(paths, ["from_stack to_stack"], "{}", from.name());
    }
    Ok(())
}

#[test]
fn a_host_port_is_reached_from_the_node_from_a_neighbour_and_from_the_pod_itself() -> Result {
    let scene = Scene::new()?;
    let (pod, _server) = published(&scene, None)?;
    let at = scene.node().addr();
    let loopback = Ipv4Addr::LOCALHOST;
    let callers: [(&Namespace, Ipv4Addr); 3] =
        [(scene.node(), at), (&scene.client, at), (&pod, at)];
    for (from, to) in callers {
        let ask = || Ok::<_, anyhow::Error>([from.tcp(to, HOST_PORT)?, from.udp(to, HOST_PORT)?]);
        let (probes, paths) = paths_during(&[&pod], ask)?;
        probes?;
        assert_eq!(paths, ["from_stack to_stack"], "{}", from.name());
    }
    let (probe, paths) = paths_during(&[&pod], || scene.node().tcp(loopback, HOST_PORT))?;
    assert_eq!(probe?.peer_ip(), at, "portmap's `snat`");
    assert_eq!(paths, ["from_stack to_stack"]);
    Ok(())
}

#[test]
fn a_host_port_at_one_address_is_reached_there() -> Result {
    let scene = Scene::new()?;
    let (pod, _server) = published(&scene, Some(scene.node().addr()))?;
    let (peer, at) = (scene.lab.peer(), scene.node().addr());
    let ask = || Ok::<_, anyhow::Error>([peer.tcp(at, HOST_PORT)?, peer.udp(at, HOST_PORT)?]);
    let (probes, paths) = paths_during(&[&pod], ask)?;
    assert_eq!(probes?.map(|probe| probe.peer_ip()), [peer.addr(); 2]);
    assert_eq!(paths, ["from_stack to_stack"]);
    assert!(scene.node().tcp(Ipv4Addr::LOCALHOST, HOST_PORT).is_err());
    Ok(())
}

#[test]
fn a_host_port_and_a_pods_own_port_of_the_same_number_do_not_meet() -> Result {
    let scene = Scene::new()?;
    let (_pod, _server) = published(&scene, None)?;
    let (inet, at) = (scene.lab.inet(), scene.node().addr());
    // The same server is asked by a pod from the host port's number, and asks the host port.
    let mut out = scene.client.converse(HOST_PORT, inet.addr(), TARGET)?;
    out.say("out")?;
    let mut into = inet.converse(0, at, HOST_PORT)?;
    into.say("in")?;
    out.say("out again")?;
    into.say("in again")
}
