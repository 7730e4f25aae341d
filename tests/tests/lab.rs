//! Is the lab what it says? None of these tests needs the product.

#![expect(clippy::tests_outside_test_module, reason = "the whole file is a test")]

use std::net::Ipv4Addr;
use std::time::Duration;

use lab::{IMDS, Lab, Mac, NARROW, VIRTUAL_MAC, WIRESERVER, Wireserver, frame};

type Result<T = ()> = anyhow::Result<T>;

const SOON: Duration = Duration::from_secs(2);
const INTERFACES: &str = "/machine/plugins?comp=nmagent&type=getinterfaceinfov1";
const NETWORK: &str = "/metadata/instance/network?api-version=2021-01-01";

fn node1_secondary() -> Ipv4Addr {
    Ipv4Addr::new(10, 240, 1, 10)
}

#[test]
fn nodes_reach_each_other_and_everything_beyond() -> Result {
    let lab = Lab::new().nodes(2).build()?;
    let (one, two) = (lab.node(1), lab.node(2));
    let echo = two.serve_echo(9000)?;
    assert_eq!(one.tcp(two.addr(), 9000)?.peer_ip(), one.addr());
    assert_eq!(one.udp(two.addr(), 9000)?.peer_ip(), one.addr());
    assert_eq!(*echo.clients()[0].address.ip(), one.addr());
    one.ping(two.addr())?;
    for outside in [lab.inet(), lab.peer(), lab.onprem()] {
        for &address in outside.addresses() {
            one.ping(address)?;
            assert_eq!(one.tcp(address, 7)?.peer_ip(), one.addr());
            assert_eq!(one.tcp(address, 8080)?.peer_ip(), one.addr());
            assert_eq!(one.udp(address, 7)?.peer_ip(), one.addr());
            let web = one.http(address, 80, "/", &[])?.body;
            assert!(web.starts_with(&one.addr().to_string()), "{web}");
        }
    }
    assert_eq!(*lab.inet().last_client().unwrap().address.ip(), one.addr());
    lab.peer().ping(one.addr())?;
    assert!(
        lab.fabric()
            .dropped()?
            .values()
            .all(|packets| *packets == 0)
    );
    Ok(())
}

#[test]
fn the_platform_answers_each_node_for_itself() -> Result {
    let lab = Lab::new().nodes(2).secondaries(3).build()?;
    for node in lab.nodes() {
        assert_eq!(node.dns("kubernetes.io")?, node.addr());
        node.ping(WIRESERVER)?;
        let xml = node.http(WIRESERVER, 80, INTERFACES, &[])?.body;
        assert!(xml.contains(&node.mac().bare()), "{xml}");
        assert!(
            xml.contains(&format!("\"{}\" IsPrimary=\"true\"", node.addr())),
            "{xml}"
        );
        assert_eq!(xml.matches("IsPrimary=\"false\"").count(), 3, "{xml}");
        assert_eq!(node.http(WIRESERVER, 32526, "/health", &[])?.status, 200);

        let metadata = ("Metadata", "true");
        let json = node.http(IMDS, 80, NETWORK, &[metadata])?.body;
        assert!(json.contains(&node.addr().to_string()), "{json}");
        assert_eq!(node.http(IMDS, 80, NETWORK, &[])?.status, 400);
        let forwarded = ("X-Forwarded-For", "10.0.0.1");
        assert_eq!(
            node.http(IMDS, 80, NETWORK, &[metadata, forwarded])?.status,
            400
        );
    }
    // An address that the node uses, as it would a pod's, is not the primary one.
    lab.node(1).ip("addr replace 10.240.1.10/32 dev eth0\nroute add 169.254.169.254 dev eth0 src 10.240.1.10\n")?;
    assert_eq!(
        lab.node(1)
            .http(IMDS, 80, NETWORK, &[("Metadata", "true")])?
            .status,
        403
    );
    Ok(())
}

#[test]
fn the_wireserver_can_be_broken() -> Result {
    let lab = Lab::new().nodes(1).build()?;
    let ask = |limit| {
        lab.node(1)
            .within(limit)
            .http(WIRESERVER, 80, INTERFACES, &[])
    };
    lab.platform().wireserver(Wireserver::Status(503))?;
    assert_eq!(ask(SOON)?.status, 503);
    lab.platform().wireserver(Wireserver::Garbage)?;
    assert!(!ask(SOON)?.body.contains("</Interfaces>"));
    lab.platform()
        .wireserver(Wireserver::Slow(Duration::from_millis(300)))?;
    assert!(ask(Duration::from_millis(100)).is_err());
    assert_eq!(ask(SOON)?.status, 200);
    lab.platform().wireserver(Wireserver::Absent)?;
    assert!(ask(Duration::from_millis(100)).is_err());
    lab.node(1).dns("example.org")?;
    lab.platform().wireserver(Wireserver::Normal)?;
    assert_eq!(ask(SOON)?.status, 200);
    Ok(())
}

#[test]
fn arp_has_one_answer_for_every_address_but_the_askers_own() -> Result {
    let lab = Lab::new().nodes(2).build()?;
    let one = lab.node(1);
    let capture = one.capture("eth0")?;
    let ask = |target: Ipv4Addr, time| {
        one.send_raw(&frame::arp_request(one.mac(), one.addr(), target))
            .unwrap();
        let reply = capture.wait_for(time, |seen| frame::arp_reply(seen, target).is_some());
        reply.and_then(|reply| frame::arp_reply(&reply, target))
    };
    let registered_nowhere = Ipv4Addr::new(10, 240, 200, 200);
    let of_node2 = Ipv4Addr::new(10, 240, 2, 10);
    for target in [
        lab::GATEWAY,
        lab.node(2).addr(),
        of_node2,
        registered_nowhere,
        WIRESERVER,
    ] {
        assert_eq!(ask(target, SOON), Some(VIRTUAL_MAC), "{target}");
    }
    for own in [node1_secondary(), one.addr()] {
        assert_eq!(ask(own, Duration::from_millis(200)), None, "{own}");
    }
    Ok(())
}

#[test]
fn a_port_drops_and_counts_what_azure_would() -> Result {
    let lab = Lab::new().nodes(2).build()?;
    let (one, two) = (lab.node(1), lab.node(2));
    let (ours, theirs) = (
        (one.mac(), one.addr(), 1000),
        (VIRTUAL_MAC, two.addr(), 2000),
    );
    let foreign = Mac([2, 0, 0, 0, 0, 99]);
    let udp = frame::udp;
    let broadcast = (Mac([0xff; 6]), Ipv4Addr::BROADCAST, 67);
    let multicast = (
        Mac([1, 0, 0x5e, 0, 0, 251]),
        Ipv4Addr::new(224, 0, 0, 251),
        5353,
    );
    let straight = (two.mac(), two.addr(), 2000);
    let stranger = Ipv4Addr::new(10, 240, 2, 10);
    let frames = [
        (
            "foreign_mac",
            udp(theirs, (foreign, one.addr(), 1000), b"x"),
        ),
        (
            "foreign_source",
            udp(theirs, (one.mac(), stranger, 1000), b"x"),
        ),
        ("broadcast", udp(broadcast, ours, b"x")),
        ("multicast", udp(multicast, ours, b"x")),
        ("wrong_mac", udp(straight, ours, b"x")),
        (
            "arp_sender",
            frame::arp_request(one.mac(), stranger, two.addr()),
        ),
        (
            "ipv6",
            frame::ethernet(VIRTUAL_MAC, one.mac(), 0x86dd, &[0x60; 40]),
        ),
        (
            "ethertype",
            frame::ethernet(VIRTUAL_MAC, one.mac(), 0x88b5, &[0; 46]),
        ),
    ];
    let arrived = two.capture("eth0")?;
    for (reason, bytes) in &frames {
        one.send_raw(bytes)?;
        assert_eq!(
            lab.fabric().drops(&format!("node1.{reason}"))?,
            1,
            "{reason}"
        );
    }
    let total: u64 = lab.fabric().dropped()?.values().sum();
    assert_eq!(total, frames.len() as u64);
    // The last one, from a proper sender, arrives, and is the only one that does.
    let good = udp(theirs, (one.mac(), node1_secondary(), 1000), b"good");
    one.send_raw(&good)?;
    let from = |seen: &[u8]| frame::ipv4_ends(seen).map(|(from, _)| from);
    assert!(
        arrived
            .wait_for(SOON, |seen| from(seen) == Some(node1_secondary()))
            .is_some()
    );
    let requests = arrived
        .frames()
        .iter()
        .filter(|seen| seen.get(36..38) == Some(&2000_u16.to_be_bytes()))
        .count();
    assert_eq!(requests, 1);
    assert!(
        lab.fabric()
            .seen(SOON, |seen| from(seen) == Some(node1_secondary()))
    );
    Ok(())
}

#[test]
fn secondary_addresses_belong_to_the_virtual_network_only() -> Result {
    let lab = Lab::new().nodes(1).build()?;
    let one = lab.node(1);
    // Delivered to the NIC's MAC from outside, without being configured anywhere.
    let arrived = one.capture("eth0")?;
    assert!(
        lab.peer()
            .within(Duration::from_millis(50))
            .ping(node1_secondary())
            .is_err()
    );
    let to = |seen: &[u8]| frame::ipv4_ends(seen).map(|(_, to)| to);
    let seen = arrived.wait_for(SOON, |seen| to(seen) == Some(node1_secondary()));
    assert_eq!(seen.unwrap()[..6], one.mac().0);

    // The Internet accepts primary addresses only.
    let inet = lab.inet().capture("eth0")?;
    let from = (one.mac(), node1_secondary(), 1000);
    one.send_raw(&frame::udp((VIRTUAL_MAC, lab.inet().addr(), 7), from, b"x"))?;
    assert_eq!(lab.fabric().drops_reach("inet.not_primary", 1, SOON)?, 1);
    // What is registered nowhere stays nowhere.
    for (number, address) in (1..).zip([[10, 240, 77, 7], [10, 240, 0, 200]]) {
        one.send_raw(&frame::udp((VIRTUAL_MAC, address.into(), 7), from, b"x"))?;
        assert_eq!(
            lab.fabric()
                .drops_reach("vnet.unregistered", number, SOON)?,
            number
        );
    }
    one.send_raw(&frame::udp(
        (VIRTUAL_MAC, [10, 0, 0, 10].into(), 53),
        from,
        b"x",
    ))?;
    assert_eq!(lab.fabric().drops_reach("vnet.no_route", 1, SOON)?, 1);
    one.ping(lab.inet().addr())?;
    assert!(
        inet.frames()
            .iter()
            .all(|seen| to(seen).is_some_and(|to| !to.is_private() || to == one.addr()))
    );
    Ok(())
}

#[test]
fn the_pool_of_a_node_can_change() -> Result {
    let lab = Lab::new().nodes(1).secondaries(1).build()?;
    let one = lab.node(1);
    let extra = Ipv4Addr::new(10, 240, 9, 9);
    let packet = frame::udp(
        (VIRTUAL_MAC, lab.peer().addr(), 7),
        (one.mac(), extra, 1000),
        b"x",
    );
    let known = || {
        Ok::<_, anyhow::Error>(
            one.http(WIRESERVER, 80, INTERFACES, &[])?
                .body
                .contains("10.240.9.9"),
        )
    };
    one.send_raw(&packet)?;
    assert_eq!(
        lab.fabric().drops_reach("node1.foreign_source", 1, SOON)?,
        1
    );
    assert!(!known()?);
    one.add_secondary(extra)?;
    one.ip(&format!("addr add {extra}/32 dev eth0\n"))?;
    lab.peer().ping(extra)?;
    assert!(known()?);
    one.remove_secondary(extra)?;
    assert!(
        lab.peer()
            .within(Duration::from_millis(50))
            .ping(extra)
            .is_err()
    );
    assert!(!known()?);
    Ok(())
}

#[test]
fn the_mtu_is_what_was_ordered_and_narrower_behind_one_hop() -> Result {
    let lab = Lab::new().nodes(1).mtu(1460).build()?;
    let one = lab.node(1);
    assert!(
        one.exec(&["ip", "link", "show", "eth0"])?
            .contains("mtu 1460")
    );
    let capture = one.capture("eth0")?;
    let from = (one.mac(), one.addr(), 1000);
    one.send_raw(&frame::udp((VIRTUAL_MAC, NARROW, 7), from, &[0; 1400]))?;
    let too_big = |seen: &[u8]| seen.get(23) == Some(&1) && seen.get(34..36) == Some(&[3, 4]);
    let error = capture.wait_for(SOON, too_big).unwrap();
    assert_eq!(error[40..42], 1400_u16.to_be_bytes());
    Ok(())
}
