//! ICMP errors, in and out: the pod, and the remote, get what quotes the packet that they sent, with right checksums.

use std::net::Ipv4Addr;

use lab::{Capture, Ipv4, ipv4};

use crate::{Result, SOON, Scene, arrived};

const PORT_UNREACHABLE: (u8, u8) = (3, 3);
const HOST_UNREACHABLE: (u8, u8) = (3, 1);
const FRAGMENTATION_NEEDED: (u8, u8) = (3, 4);
const TTL_EXCEEDED: (u8, u8) = (11, 0);

/// Nobody listens there.
const CLOSED: u16 = 9;
/// Of pods, in the range of SNAT ports or not.
const PORTS: [u16; 2] = [4000, 40_000];

/// The captured error is whole, and quotes exactly `about`, but for the TTL.
#[track_caller]
fn assert_quotes(error: &Ipv4, about: &Ipv4, what: &str) {
    assert!(error.is_intact(), "{what}: the error's own checksum");
    let mut quoted = error
        .quoted()
        .unwrap_or_else(|| panic!("{what}: the quoted header's checksum is wrong: {error:?}"));
    assert!(quoted.ttl < about.ttl, "{what}: the quoted TTL");
    quoted.ttl = about.ttl;
    let cut = about
        .payload
        .get(..quoted.payload.len())
        .map(<[u8]>::to_vec);
    let about = Ipv4 {
        payload: cut.unwrap_or_default(),
        ..about.clone()
    };
    assert_eq!(quoted, about, "{what}");
}

/// The error that a pod or a remote receives about the packet with this identification.
#[track_caller]
fn error_about(capture: &Capture, to: Ipv4Addr, message: (u8, u8), id: u16, what: &str) -> Ipv4 {
    arrived(capture, what, |packet| {
        let about = packet.quoted().is_some_and(|quoted| quoted.id == id);
        packet.dst == to && packet.message() == Some(message) && about
    })
}

/// One packet of each protocol that the fast path knows.
fn probes(from: Ipv4Addr, to: Ipv4Addr, port: u16, size: usize) -> [Ipv4; 3] {
    let data = vec![0x5a; size];
    let [high, low] = port.to_be_bytes();
    [
        Ipv4::udp((from, port), (to, CLOSED), &data),
        Ipv4::tcp((from, port), (to, CLOSED), 2, &data),
        Ipv4::icmp(from, to, (8, 0), [high, low, 0, 1], &data),
    ]
}

#[test]
fn routers_and_hosts_tell_the_pod_about_its_own_packets() -> Result {
    let scene = Scene::new()?;
    let pod = &scene.pod;
    let capture = pod.capture("eth0")?;
    let mut id = 0;
    for (trail, _) in scene.trails() {
        let [first, second] = trail.routers();
        let nowhere = Ipv4Addr::from(u32::from(trail.addr()) + 1);
        let via = [scene.lab.inet(), scene.lab.peer()];
        let outside = via.into_iter().find(|outside| outside.addr() == first);
        let outside = outside.expect("a trail begins at an outside network");
        outside.ip(&format!("route replace {nowhere} via {second} dev trail"))?;
        trail
            .router()
            .ip(&format!("route replace unreachable {nowhere}"))?;
        // Error, target, TTL, payload, sender of the error.
        let cases = [
            (TTL_EXCEEDED, trail.addr(), 3, 24, first),
            (TTL_EXCEEDED, trail.addr(), 4, 24, second),
            (HOST_UNREACHABLE, nowhere, 64, 24, second),
            (FRAGMENTATION_NEEDED, trail.addr(), 64, 1400, second),
            (PORT_UNREACHABLE, trail.addr(), 64, 24, trail.addr()),
        ];
        for (message, target, ttl, size, reporter) in cases {
            // The kernel limits "host unreachable" to five in a row, whatever its sysctls say.
            let ports = PORTS
                .iter()
                .take(if message == HOST_UNREACHABLE { 1 } else { 2 });
            for probe in ports.flat_map(|port| probes(pod.addr(), target, *port, size)) {
                let answered = message == PORT_UNREACHABLE && probe.protocol != ipv4::UDP;
                if answered {
                    continue; // with RST, or an echo reply
                }
                id += 1;
                let sent = Ipv4 {
                    ttl,
                    id,
                    fragment: ipv4::DF,
                    ..probe
                };
                let what = format!("{message:?} about protocol {} to {target}", sent.protocol);
                pod.send_packets(std::slice::from_ref(&sent))?;
                let error = error_about(&capture, pod.addr(), message, id, &what);
                assert_eq!(error.src, reporter, "{what}");
                assert_quotes(&error, &sent, &what);
                if message == FRAGMENTATION_NEEDED {
                    assert_eq!(error.payload.get(6..8), Some(&1400_u16.to_be_bytes()[..]));
                }
            }
        }
    }
    Ok(())
}

#[test]
fn errors_about_a_cluster_ip_name_the_cluster_ip() -> Result {
    let scene = Scene::new()?;
    let (pod, peered) = (&scene.pod, &scene.peered);
    let service = Ipv4Addr::new(10, 96, 0, 10);
    for protocol in ["udp", "tcp"] {
        let backend = format!("{}:{CLOSED}", peered.addr());
        scene.node().exec(&[
            "iptables",
            "-t",
            "nat",
            "-A",
            "PREROUTING",
            "-d",
            "10.96.0.10",
            "-p",
            protocol,
            "--dport",
            "9",
            "-j",
            "DNAT",
            "--to-destination",
            &backend,
        ])?;
    }
    let capture = pod.capture("eth0")?;
    let mut id = 0;
    let cases = [
        (TTL_EXCEEDED, 4, 24),
        (FRAGMENTATION_NEEDED, 64, 1400),
        (PORT_UNREACHABLE, 64, 24),
    ];
    for (message, ttl, size) in cases {
        let [udp, tcp, _] = probes(pod.addr(), service, 4000 + id, size);
        for probe in [udp, tcp] {
            if message == PORT_UNREACHABLE && probe.protocol == ipv4::TCP {
                continue; // answered with RST
            }
            id += 1;
            let sent = Ipv4 {
                ttl,
                id,
                fragment: ipv4::DF,
                ..probe
            };
            let what = format!("{message:?} about protocol {}", sent.protocol);
            pod.send_packets(std::slice::from_ref(&sent))?;
            let error = error_about(&capture, pod.addr(), message, id, &what);
            assert_eq!(
                error.src, service,
                "{what}: nobody else is known to the pod"
            );
            assert_quotes(&error, &sent, &what);
        }
    }
    Ok(())
}

#[test]
fn a_pods_error_tells_the_remote_about_the_remotes_own_packet() -> Result {
    let scene = Scene::new()?;
    let (pod, node) = (&scene.pod, scene.node());
    // What portmap does for a host port.
    let to_pod = format!("{}:{CLOSED}", pod.addr());
    node.exec(&[
        "iptables",
        "-t",
        "nat",
        "-A",
        "PREROUTING",
        "-d",
        &node.addr().to_string(),
        "-p",
        "udp",
        "--dport",
        "8081",
        "-j",
        "DNAT",
        "--to-destination",
        &to_pod,
    ])?;
    let peer = scene.lab.peer();
    let capture = peer.capture("eth0")?;
    let own = (peer.addr(), 5555);
    for (id, target) in [(1, (pod.addr(), CLOSED)), (2, (node.addr(), 8081))] {
        let mut sent = Ipv4::udp(own, target, b"is anybody there?");
        sent.id = id;
        let what = format!("an error about {target:?}");
        peer.send_packets(std::slice::from_ref(&sent))?;
        let error = error_about(&capture, peer.addr(), PORT_UNREACHABLE, id, &what);
        assert_eq!(error.src, target.0, "{what}");
        assert_quotes(&error, &sent, &what);
    }
    Ok(())
}

#[test]
fn a_pods_error_about_what_came_to_its_own_address_from_the_internet_is_not_translated() -> Result {
    let scene = Scene::new()?;
    let (pod, inet) = (&scene.pod, scene.lab.inet());
    let mut sent = Ipv4::udp(
        (inet.addr(), 5555),
        (pod.addr(), CLOSED),
        b"is anybody there?",
    );
    sent.id = 7;
    inet.send_packets(std::slice::from_ref(&sent))?;
    // The lab's Internet takes no pod's address, so the error ends in the fabric.
    let is_right = |packet: &Ipv4| {
        let about = packet.quoted().is_some_and(|quoted| {
            let whole = quoted.is_intact() && quoted.src == inet.addr();
            whole && quoted.dst == pod.addr() && quoted.ports() == Some((5555, CLOSED))
        });
        packet.src == pod.addr() && packet.dst == inet.addr() && packet.is_intact() && about
    };
    let is_error = |frame: &[u8]| Ipv4::of_frame(frame).as_ref().is_some_and(is_right);
    assert!(scene.lab.fabric().seen(SOON, is_error));
    Ok(())
}

#[test]
fn a_pods_error_about_an_answer_to_its_snated_flow_names_the_node() -> Result {
    let scene = Scene::new()?;
    let (pod, inet, node) = (&scene.pod, scene.lab.inet(), scene.node());
    let capture = inet.capture("eth0")?;
    for port in PORTS {
        // The pod has no socket for the echo server's answer.
        let question = Ipv4::udp((pod.addr(), port), (inet.addr(), 7), b"is anybody there?");
        pod.send_packets(&[question])?;
        let answer = arrived(&capture, "the server's answer", |packet| {
            packet.src == inet.addr() && packet.protocol == ipv4::UDP && packet.ports().is_some()
        });
        let what = format!("an error about the answer to port {port}");
        let error = error_about(&capture, inet.addr(), PORT_UNREACHABLE, answer.id, &what);
        assert_eq!(error.src, node.addr(), "{what}");
        assert!(error.is_intact(), "{what}");
        let quoted = error.quoted().expect("an error quotes");
        assert_eq!((quoted.src, quoted.dst), (answer.src, answer.dst), "{what}");
        assert_eq!(quoted.ports(), answer.ports(), "{what}");
    }
    Ok(())
}

#[test]
fn the_node_itself_tells_remotes_that_their_packets_ttl_ends() -> Result {
    let scene = Scene::new()?;
    let (pod, node, peer) = (&scene.pod, scene.node(), scene.lab.peer());
    let capture = peer.capture("eth0")?;
    let mut id = 0;
    for probe in probes(peer.addr(), pod.addr(), 5555, 24) {
        id += 1;
        // The fabric is the first hop, the node the second.
        let sent = Ipv4 {
            ttl: 2,
            id,
            ..probe
        };
        let what = format!("TTL exceeded about protocol {}", sent.protocol);
        peer.send_packets(std::slice::from_ref(&sent))?;
        let error = error_about(&capture, peer.addr(), TTL_EXCEEDED, id, &what);
        assert_eq!(error.src, node.addr(), "{what}");
        assert_quotes(&error, &sent, &what);
    }
    Ok(())
}
