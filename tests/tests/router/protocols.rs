//! What the fast path does not know goes through the kernel: IP options, and protocols other than TCP, UDP and ICMP.

use lab::{Capture, Ipv4, ipv4};

use crate::{Result, SOON, Scene, arrived};

const GRE: u8 = 47;
const SCTP: u8 = 132;

#[test]
fn ip_options_go_through_and_come_back() -> Result {
    let scene = Scene::new()?;
    for (trail, _) in scene.trails() {
        let target = trail.addr().to_string();
        let [_, second] = trail.routers();
        // Record route; timestamps with addresses. `ping` prints what came back.
        for option in [&["-R"][..], &["-T", "tsandaddr"]] {
            let line = [&["ping", "-n", "-c1", "-W2"], option, &[&target]].concat();
            let text = scene.pod.exec(&line)?;
            let (node, second) = (scene.node().addr().to_string(), second.to_string());
            let shown = text.contains(&node) && text.contains(&second);
            assert!(shown || option != ["-R"], "{option:?}: {text}");
            assert!(text.contains(" 1 received"), "{option:?}: {text}");
        }
    }
    Ok(())
}

/// The captured packet of a protocol with this payload; the kernel's NAT leaves the payload as it is but for ports and checksums.
#[track_caller]
fn crossing(capture: &Capture, protocol: u8, mark: &[u8]) -> Ipv4 {
    let what = format!("protocol {protocol} with {mark:?}");
    arrived(capture, &what, |packet| {
        packet.protocol == protocol && packet.payload.ends_with(mark)
    })
}

#[test]
fn gre_crosses_in_both_directions() -> Result {
    let scene = Scene::new()?;
    let pod = &scene.pod;
    let in_pod = pod.capture("eth0")?;
    for (trail, seen_as) in scene.trails() {
        let there = trail.end().capture("eth0")?;
        let gre = |mark: &[u8]| [&[0, 0, 0x08, 0][..], mark].concat();
        let out = Ipv4::new(pod.addr(), trail.addr(), GRE, &gre(b"ping"));
        pod.send_packets(&[out])?;
        assert_eq!(crossing(&there, GRE, b"ping").src, seen_as);
        let back = Ipv4::new(trail.addr(), seen_as, GRE, &gre(b"pong"));
        trail.end().send_packets(&[back])?;
        let answer = arrived(&in_pod, "the answer", |packet| {
            packet.src == trail.addr() && packet.payload.ends_with(b"pong")
        });
        assert_eq!(answer.dst, pod.addr());
    }
    Ok(())
}

/// An SCTP packet with one chunk (RFC 9260 §3).
fn sctp(ports: (u16, u16), tag: u32, chunk: u8, mark: &[u8]) -> Vec<u8> {
    let body = [&[0, 0, 0, 1, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 9][..], mark].concat();
    let [high, low] = u16::try_from(4 + body.len()).unwrap_or(0).to_be_bytes();
    let ports = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
    let head = [&ports[..], &tag.to_be_bytes(), &[0; 4]].concat();
    let mut packet = [&head[..], &[chunk, 0, high, low], &body].concat();
    let sum = crc32c(&packet).to_le_bytes();
    packet.splice(8..12, sum);
    packet
}

/// CRC-32C (RFC 9260 appendix A), without which connection tracking does not believe a packet.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32| (crc >> 1) ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
    let byte = |crc: u32, byte: &u8| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc));
    !bytes.iter().fold(u32::MAX, byte)
}

#[test]
fn sctp_crosses_in_both_directions() -> Result {
    const INIT: u8 = 1;
    const INIT_ACK: u8 = 2;
    let scene = Scene::new()?;
    let pod = &scene.pod;
    let in_pod = pod.capture("eth0")?;
    for (trail, seen_as) in scene.trails() {
        let there = trail.end().capture("eth0")?;
        let init = sctp((4000, 3868), 0, INIT, b"ping");
        pod.send_packets(&[Ipv4::new(pod.addr(), trail.addr(), SCTP, &init)])?;
        let seen = crossing(&there, SCTP, b"ping");
        assert_eq!(seen.src, seen_as);
        let (nat_port, _) = seen.ports().expect("SCTP has ports");
        let mut summed = seen.payload.clone();
        summed.splice(8..12, [0; 4]);
        let sum = crc32c(&summed).to_le_bytes();
        assert_eq!(seen.payload.get(8..12), Some(&sum[..]), "the checksum");

        let ack = sctp((3868, nat_port), 1, INIT_ACK, b"pong");
        let back = Ipv4::new(trail.addr(), seen_as, SCTP, &ack);
        trail.end().send_packets(&[back])?;
        let answer = crossing(&in_pod, SCTP, b"pong");
        assert_eq!(
            (answer.dst, answer.ports()),
            (pod.addr(), Some((3868, 4000)))
        );
    }
    Ok(())
}

#[test]
fn a_packet_of_an_unknown_protocol_leaves_with_the_right_address() -> Result {
    let scene = Scene::new()?;
    let pod = &scene.pod;
    for (trail, seen_as) in scene.trails() {
        let there = trail.end().capture("eth0")?;
        let mut packet = Ipv4::new(pod.addr(), trail.addr(), 253, b"experimental");
        packet.fragment = ipv4::DF;
        pod.send_packets(&[packet])?;
        let frame = there.wait_for(SOON, |frame| {
            Ipv4::of_frame(frame).is_some_and(|packet| packet.protocol == 253)
        });
        let packet = frame.as_deref().and_then(Ipv4::of_frame);
        assert_eq!(packet.map(|packet| packet.src), Some(seen_as));
    }
    Ok(())
}
