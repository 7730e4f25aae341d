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
