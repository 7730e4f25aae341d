//! NodeLocal DNS, kubelet's probes, others' masquerading.

use std::net::{SocketAddrV4, UdpSocket};
use std::time::Duration;

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

type Install = fn(&Node) -> Result;

/// Rules of others that masquerade what leaves the node.
const MASQUERADES: [Install; 2] = [Node::documented_masquerade, |node| {
    node.ip_masq_agent(&["10.0.0.0/8"], false)
}];

#[test]
fn another_masquerading_rule_translates_nothing_twice() -> Result {
    for install in MASQUERADES {
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

/// The other rule would keep the pod's port, or take any, and could meet a port that the programs have given to another
/// pod's flow.
#[test]
fn beside_another_masquerading_rule_the_kernel_keeps_to_its_own_ports() -> Result {
    for install in MASQUERADES {
        let scene = Scene::new()?;
        // After the loader: of two chains with one priority the younger one would be asked first.
        install(scene.node())?;
        let (pod, inet) = (&scene.client, scene.lab.inet());
        for from in 2000..2008 {
            let seen = whence_fragments_come(pod, from, inet.addr())?;
            assert_eq!(*seen.ip(), scene.node().addr());
            assert!(seen.port() >= 61_000, "port {from} became {seen}");
        }
    }
    Ok(())
}

/// The sender, as the UDP echo server sees it, of a datagram that leaves the pod's port `from` in fragments.
fn whence_fragments_come(pod: &Pod, from: u16, server: Ipv4Addr) -> Result<SocketAddrV4> {
    let answer = pod.run(|| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, from))?;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        socket.send_to(&[b'x'; 3000], (server, 7))?;
        let mut answer = vec![0; 4096];
        let length = socket.recv(&mut answer)?;
        answer.truncate(length);
        Ok(String::from_utf8(answer)?)
    })?;
    Ok(answer.lines().next().unwrap_or_default().parse()?)
}
