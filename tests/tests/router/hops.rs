//! Who shows as a hop, and what becomes of the TTL?

use std::net::{Ipv4Addr, UdpSocket};

use lab::{Capture, GATEWAY, Ipv4, Lab, Namespace, ipv4};

use crate::{Result, SOON, Scene, arrived, started};

/// The hops from `from` to `to`, in order, the target last.
fn hops(from: &Namespace, how: &str, to: Ipv4Addr) -> Result<Vec<Ipv4Addr>> {
    let to = to.to_string();
    let text = from.exec(&["traceroute", "-n", "-q1", "-w2", "-m8", how, &to])?;
    let lines = text.lines().skip(1);
    let hop = |line: &str| line.split_whitespace().nth(1)?.parse().ok();
    Ok(lines.filter_map(hop).collect())
}

#[test]
fn traceroute_shows_the_node_every_router_and_the_target() -> Result {
    let scene = Scene::new()?;
    let (pod, node) = (&scene.pod, scene.node().addr());
    for how in ["-U", "-I", "-T"] {
        for (trail, _) in scene.trails() {
            let [first, second] = trail.routers();
            let expected = [node, GATEWAY, first, second, trail.addr()];
            assert_eq!(hops(pod, how, trail.addr())?, expected, "{how}");
        }
        let [first, second] = scene.peered.routers();
        let expected = [second, first, GATEWAY, node, pod.addr()];
        assert_eq!(
            hops(scene.peered.end(), how, pod.addr())?,
            expected,
            "{how}"
        );
    }
    Ok(())
}

#[test]
fn a_ttl_that_ends_at_the_node_is_answered_by_the_node() -> Result {
    let scene = Scene::new()?;
    let pod = &scene.pod;
    let capture = pod.capture("eth0")?;
    let targets = [
        scene.lab.inet().addr(),
        scene.lab.peer().addr(),
        Ipv4Addr::new(10, 96, 0, 10),
    ];
    let mut id = 0;
    for target in targets {
        for ttl in [1, 0] {
            id += 1;
            let mut sent = Ipv4::udp((pod.addr(), 4000), (target, 53), b"last breath");
            (sent.ttl, sent.id) = (ttl, id);
            // Through the packet socket: the kernel would not send a TTL of zero.
            let (to, from) = pod.macs()?;
            pod.send_raw(&sent.framed(to, from))?;
            let error = arrived(&capture, "TTL exceeded", |packet| {
                packet.message() == Some((11, 0)) && packet.quoted().is_some_and(|q| q.id == id)
            });
            assert_eq!(error.src, scene.node().addr(), "{target} TTL {ttl}");
            assert_eq!(error.quoted(), Some(sent), "{target} TTL {ttl}");
        }
    }
    Ok(())
}

/// The TTL with which a UDP datagram to `port` passes.
#[track_caller]
fn passing(capture: &Capture, port: u16) -> u8 {
    let what = format!("a datagram to port {port}");
    arrived(capture, &what, |packet| {
        packet.protocol == ipv4::UDP && packet.ports().is_some_and(|(_, to)| to == port)
    })
    .ttl
}

#[test]
fn every_fast_path_takes_exactly_one_from_the_ttl() -> Result {
    let lab = started(&Lab::new().nodes(1))?;
    let (node, peer, inet) = (lab.node(1), lab.peer(), lab.inet());
    let (pod, near) = (node.add_pod("web")?, node.add_pod("near")?);
    let (on_wire, in_pod, in_near) = (
        node.capture("eth0")?,
        pod.capture("eth0")?,
        near.capture("eth0")?,
    );
    let own = (pod.addr(), 4000);
    pod.send_packets(&[
        Ipv4::udp(own, (near.addr(), 1001), b"to a pod"),
        Ipv4::udp(own, (peer.addr(), 1002), b"to the VNet"),
        Ipv4::udp(own, (inet.addr(), 1003), b"to the Internet"),
    ])?;
    let ways = [(&in_near, 1001), (&on_wire, 1002), (&on_wire, 1003)];
    for (capture, port) in ways {
        assert_eq!(passing(capture, port), 63, "to port {port}");
    }

    let bound = arrived(&on_wire, "the SNATed datagram", |packet| {
        packet.dst == inet.addr()
    });
    let (nat_port, _) = bound.ports().expect("UDP has ports");
    inet.send_packets(&[Ipv4::udp(
        (inet.addr(), 1003),
        (node.addr(), nat_port),
        b"back",
    )])?;
    peer.send_packets(&[Ipv4::udp(
        (peer.addr(), 1002),
        (pod.addr(), 1004),
        b"from the VNet",
    )])?;
    for (before, after) in [(nat_port, 4000), (1004, 1004)] {
        let (on_wire, in_pod) = (passing(&on_wire, before), passing(&in_pod, after));
        assert_eq!(in_pod, on_wire - 1, "to port {after}");
    }

    let pods = node.status()?["pods"].clone();
    for path in [
        "to_pod",
        "to_vnet",
        "to_internet",
        "from_vnet",
        "from_internet",
    ] {
        let counted = pods.as_array().into_iter().flatten();
        let packets = counted.filter_map(|pod| pod["paths"][path]["packets"].as_u64());
        assert!(packets.sum::<u64>() > 0, "{path} was fast: {pods}");
    }
    Ok(())
}

#[test]
fn an_answer_to_a_snated_flow_whose_ttl_ends_at_the_node_reaches_the_pod() -> Result {
    let scene = Scene::new()?;
    let (pod, inet, node) = (&scene.pod, scene.lab.inet(), scene.node());
    let outside = inet.capture("eth0")?;
    let there = (inet.addr(), 1003);
    let socket = pod.run(|| Ok(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 4000))?))?;
    socket.set_read_timeout(Some(SOON))?;
    socket.send_to(b"question", there)?;
    let question = arrived(&outside, "the question", |packet| packet.dst == inet.addr());
    let (nat_port, _) = question.ports().expect("UDP has ports");
    // The fabric is the first hop, the node the second. It must not take the answer for one to itself, and refuse it.
    let tired = Ipv4 {
        ttl: 2,
        ..Ipv4::udp(there, (node.addr(), nat_port), b"answer")
    };
    inet.send_packets(&[tired])?;
    let mut answer = [0; 16];
    let length = socket.recv(&mut answer)?;
    assert_eq!(answer.get(..length), Some(&b"answer"[..]));
    Ok(())
}
