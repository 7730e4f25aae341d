//! The other direction: what comes from the wire and is no honest IPv4 packet for a pod.

use lab::{Ipv4, VIRTUAL_MAC, frame};

use crate::{Result, SOON, Scene};

#[test]
fn only_plain_ipv4_from_the_wire_gets_into_a_pod() -> Result {
    let scene = Scene::new()?;
    let (node, peer) = (scene.lab.node(1), scene.lab.peer().addr());
    let capture = scene.near.capture("eth0")?;
    let wire = scene.lab.fabric().sender("node1")?;
    let to = scene.near.addr();
    let packet = Ipv4::udp((peer, 4000), (to, 7777), b"tagged");
    let good = packet.framed(node.mac(), VIRTUAL_MAC);
    let tagged = [&good[..12], &[0x81, 0, 0, 5], &good[12..]].concat();
    let redirect = Ipv4::icmp(peer, to, (5, 1), [10, 240, 0, 9], &packet.bytes());
    let arp = frame::arp_request(VIRTUAL_MAC, peer, to);
    let others = packet.framed(lab::Mac([2, 0, 0, 0, 0, 7]), VIRTUAL_MAC);
    wire.send(&tagged)?;
    wire.send(&redirect.framed(node.mac(), VIRTUAL_MAC))?;
    wire.send(&arp)?;
    wire.send(&others)?;
    let last = Ipv4::udp((peer, 4000), (to, 7777), b"the last one");
    wire.send(&last.framed(node.mac(), VIRTUAL_MAC))?;
    let ends_with = |frame: &[u8], data: &[u8]| frame.ends_with(data);
    let came = capture.wait_for(SOON, |frame| ends_with(frame, b"the last one"));
    assert!(came.is_some(), "an honest datagram arrives");
    let mut frames = capture.frames();
    // Its own answer: nobody listens on the port.
    frames.retain(|frame| Ipv4::of_frame(frame).is_none_or(|packet| packet.dst == to));
    assert_eq!(frames.len(), 1, "{frames:?}");
    assert_eq!(node.drops("icmp_redirect")?, 1);
    Ok(())
}

#[test]
fn whatever_a_pod_sends_to_the_internet_has_the_nodes_address() -> Result {
    let scene = Scene::new()?;
    let inet = scene.lab.inet().addr();
    let own = (scene.pod.addr(), 4000);
    let icmp = |kind, data: &[u8]| Ipv4::icmp(own.0, inet, (kind, 0), [0, 1, 0, 1], data);
    let mut short = Ipv4::tcp(own, (inet, 80), 2, &[]);
    short.payload.truncate(10);
    let mut lying = Ipv4::udp(own, (inet, 53), b"lying");
    lying.payload.splice(4..6, [0, 200]);
    let about = Ipv4::udp((inet, 53), own, b"never sent").bytes();
    let odd = [
        ("TCP cut short", short),
        ("UDP whose length lies", lying),
        (
            "an acknowledgement of nothing",
            Ipv4::tcp(own, (inet, 81), 16, b"?"),
        ),
        ("a reset of nothing", Ipv4::tcp(own, (inet, 82), 4, &[])),
        ("TCP with all flags", Ipv4::tcp(own, (inet, 83), 0xff, &[])),
        ("an echo reply to nobody", icmp(0, b"?")),
        ("a timestamp request", icmp(13, &[0; 12])),
        ("an unknown message", icmp(200, b"?")),
        ("an error about nothing", icmp(3, &about)),
        (
            "a protocol with no header",
            Ipv4::new(own.0, inet, 132, b""),
        ),
    ];
    let mut leaked = Vec::new();
    for (name, packet) in odd {
        let before = scene.lab.fabric().drops("node1.foreign_source")?
            + scene.lab.fabric().drops("inet.not_primary")?;
        scene.pod.send_packets(&[packet])?;
        // Behind it.
        scene.pod.udp(inet, 7)?;
        let after = scene.lab.fabric().drops("node1.foreign_source")?
            + scene.lab.fabric().drops("inet.not_primary")?;
        if after > before {
            leaked.push(name);
        }
    }
    assert_eq!(leaked, Vec::<&str>::new());
    Ok(())
}
