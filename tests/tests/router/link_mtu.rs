//! The NIC's own MTU: pods get it, packets that do not fit it are the kernel's, and a change is followed.

use std::time::{Duration, Instant};

use lab::{Deadline, Ipv4, Lab, Node, ipv4};

use crate::{Result, SOON, arrived, started};

/// The loader looks at the NIC at least this often, with some time to do so.
const FOLLOWED: Duration = Duration::from_secs(35);

#[test]
fn pods_use_the_nics_whole_mtu_and_not_more() -> Result {
    for mtu in [1400, 1500, 9000] {
        let lab = started(&Lab::new().nodes(2).mtu(mtu))?;
        let (pod, far) = (lab.node(1).add_pod("web")?, lab.node(2).add_pod("far")?);
        assert_eq!(lab.node(1).status()?["node"]["mtu"], mtu);
        for target in [far.addr(), lab.inet().addr(), lab.peer().addr()] {
            let target = target.to_string();
            let ping = |payload: u32| {
                let size = payload.to_string();
                pod.feed(&["ping", "-Mdo", "-c1", "-W2", "-s", &size, &target], b"")
            };
            assert!(ping(mtu - 28)?.status.success(), "{mtu} to {target}");
            assert!(!ping(mtu - 27)?.status.success(), "{mtu} to {target}");
            let large = ["ping", "-c1", "-W2", "-s", "20000", &target];
            assert!(pod.exec(&large).is_ok(), "{mtu}: fragments to {target}");
        }
    }
    Ok(())
}

/// Waits until the loader's configuration has the MTU; returns how long that took.
fn followed(node: &Node, mtu: u32) -> Result<Duration> {
    let (started, deadline) = (Instant::now(), Deadline::after(FOLLOWED));
    while node.status()?["node"]["mtu"] != mtu {
        assert!(
            !deadline.passed(),
            "the loader does not follow the NIC's MTU"
        );
    }
    Ok(started.elapsed())
}

#[test]
fn a_change_of_the_nics_mtu_is_followed_and_old_pods_are_told() -> Result {
    let lab = started(&Lab::new().nodes(1).mtu(1500))?;
    let (node, peer, inet) = (lab.node(1), lab.peer(), lab.inet());
    let pod = node.add_pod("web")?;
    for namespace in [&*pod, node] {
        namespace.sysctl("net.ipv4.icmp_ratemask", "0")?;
    }
    let (on_wire, in_pod) = (node.capture("eth0")?, pod.capture("eth0")?);
    let mut id = 0;
    for mtu in [1400, 1500] {
        node.ip(&format!("link set eth0 mtu {mtu}\n"))?;
        eprintln!("MTU {mtu} followed after {:?}", followed(node, mtu)?);
        for target in [peer.addr(), inet.addr()] {
            id += 1;
            let mut big = Ipv4::udp((pod.addr(), 4000), (target, 9), &[0; 1440]);
            (big.id, big.fragment) = (id, ipv4::DF);
            pod.send_packets(std::slice::from_ref(&big))?;
            let what = format!("MTU {mtu} to {target}");
            if mtu == 1400 {
                let told = arrived(&in_pod, &what, |packet| {
                    packet.quoted().is_some_and(|quoted| quoted.id == id)
                });
                assert_eq!(
                    (told.src, told.message()),
                    (node.addr(), Some((3, 4))),
                    "{what}"
                );
                assert_eq!(
                    told.payload.get(6..8),
                    Some(&1400_u16.to_be_bytes()[..]),
                    "{what}"
                );
            } else {
                arrived(&on_wire, &what, |packet| {
                    packet.id == id && packet.dst == target
                });
            }
        }
    }
    assert!(pod.within(SOON).tcp(inet.addr(), 8080).is_ok());
    Ok(())
}
