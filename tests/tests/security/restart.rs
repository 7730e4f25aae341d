//! The moment of a restart: while the loader dies, comes back, and finds its maps gone, nothing bad gets through.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use lab::{Ipv4, WIRESERVER};

use crate::{Result, Scene, Target};

/// Bad frames of every target: what the neighbour would send, an ARP claim, and TCP to the secrets.
fn bad_frames(scene: &Scene) -> Result<Vec<Vec<u8>>> {
    let mut frames = Vec::new();
    for target in Target::ALL {
        let ends = scene.ends(target)?;
        let foreign = Ipv4::udp((ends.neighbour, 4000), (ends.to, 7777), b"foreign");
        let secret = Ipv4::tcp((ends.own, 4000), (WIRESERVER, 80), 2, &[]);
        frames.push(ends.frame(&foreign));
        frames.push(lab::frame::arp_request(ends.mac, ends.to, ends.own));
        frames.push(ends.frame(&secret));
    }
    Ok(frames)
}

#[test]
fn nothing_bad_gets_through_while_the_loader_dies_and_comes_back() -> Result {
    let scene = Scene::new()?;
    let node = scene.lab.node(1);
    let captures = [
        scene.near.capture("eth0")?,
        scene.far.capture("eth0")?,
        scene.lab.platform().capture("eth0")?,
        node.capture("eth0")?,
    ];
    let (frames, sender) = (bad_frames(&scene)?, scene.sender()?);
    let (over, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| -> Result {
        let sending = scope.spawn(|| -> Result {
            while !over.load(Ordering::Relaxed) {
                for frame in &frames {
                    sender.send(frame)?;
                    sent.fetch_add(1, Ordering::Relaxed);
                }
            }
            Ok(())
        });
        let restarts = || -> Result {
            for round in 0..4 {
                let before = sent.load(Ordering::Relaxed);
                node.loader().kill9()?;
                if round == 3 {
                    node.exec(&["rm", "-r", "/sys/fs/bpf/azure-vnet"])?;
                }
                node.start_loader()?;
                assert!(
                    sent.load(Ordering::Relaxed) > before + 100,
                    "meanwhile frames are sent"
                );
            }
            Ok(())
        };
        let restarted = restarts();
        over.store(true, Ordering::Relaxed);
        sending.join().expect("the sender does not panic")?;
        restarted
    })?;

    // What is sent last, and well, arrives behind everything else.
    scene.pod.ping(scene.far.addr())?;
    scene.pod.ping(scene.near.addr())?;
    let neighbour = scene.near.addr();
    let is_bad = |packet: &Ipv4| {
        let foreign = packet.src == neighbour && packet.ports() == Some((4000, 7777));
        foreign || (packet.src == scene.pod.addr() && packet.dst == WIRESERVER)
    };
    for capture in &captures {
        let through = capture.find(|frame| Ipv4::of_frame(frame).filter(is_bad));
        assert_eq!(through, []);
    }
    let neighbours = node.exec(&["ip", "neigh", "show", "dev", scene.pod.host_veth()?])?;
    assert!(
        neighbours
            .lines()
            .all(|line| line.starts_with(&scene.pod.addr().to_string())),
        "{neighbours}"
    );
    Ok(())
}
