//! Do pods' packets take the node's routes, also those that somebody adds later?

use std::net::Ipv4Addr;

use lab::{Deadline, Ipv4};

use super::*;

/// A router that is not the gateway, and its Ethernet address.
const OTHER: Ipv4Addr = Ipv4Addr::new(10, 240, 0, 99);
const OTHER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x99];

/// How long a change of the routes may take to be followed on a busy machine.
const FOLLOWED: Duration = Duration::from_secs(10);

/// The Ethernet address to which the pod's packet to `target` leaves the node.
fn hop(pod: &Pod, capture: &Capture, target: Ipv4Addr) -> Result<[u8; 6]> {
    static NEXT: std::sync::atomic::AtomicU16 = std::sync::atomic::AtomicU16::new(1000);
    let port = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    pod.send_packets(&[Ipv4::udp((pod.addr(), 5000), (target, port), b"x")])?;
    let frame = capture.wait_for(SOON, |frame| {
        Ipv4::of_frame(frame).is_some_and(|packet| {
            packet.dst == target && packet.ports().is_some_and(|(_, dst)| dst == port)
        })
    });
    let mac = frame.as_deref().and_then(<[u8]>::first_chunk);
    Ok(*mac.unwrap_or_else(|| panic!("nothing for {target} left the node")))
}

#[test]
fn pods_packets_follow_the_nodes_routes_and_their_changes() -> Result {
    let lab = started(&Lab::new().nodes(2))?;
    let (node, neighbour) = (lab.node(1), lab.node(2).addr());
    let (inet, peer) = (lab.inet().addr(), lab.peer().addr());
    let pod = node.add_pod("web")?;
    let [a, b, c, d, e, f] = OTHER_MAC.map(|octet| format!("{octet:02x}"));
    node.ip(&format!(
        "neigh add {OTHER} lladdr {a}:{b}:{c}:{d}:{e}:{f} dev eth0 nud permanent\n"
    ))?;
    let capture = node.capture("eth0")?;
    // Each change, and who of the Internet, the peered network and the own subnet is reached over the other router then.
    let steps = [
        (
            "route add 203.0.113.0/24 via 10.240.0.99",
            [true, false, false],
        ),
        (
            "route add 10.50.0.0/16 via 10.240.0.99",
            [true, true, false],
        ),
        ("route del 203.0.113.0/24", [false, true, false]),
        ("route del 10.50.0.0/16", [false, false, false]),
        ("route replace default via 10.240.0.99", [true, true, false]),
        (
            "route replace default via 10.240.0.1",
            [false, false, false],
        ),
        (
            "rule add from 10.240.1.0/24 lookup 77",
            [false, false, false],
        ),
        (
            "route add default via 10.240.0.99 dev eth0 table 77",
            [false, true, true],
        ),
    ];
    for (change, expected) in steps {
        node.ip(&format!("{change}\n"))?;
        let deadline = Deadline::after(FOLLOWED);
        loop {
            let seen = [inet, peer, neighbour]
                .into_iter()
                .map(|target| Ok(hop(&pod, &capture, target)? == OTHER_MAC))
                .collect::<Result<Vec<_>>>()?;
            if seen == expected {
                break;
            }
            assert!(!deadline.passed(), "{change}: {seen:?}");
        }
    }
    Ok(())
}
