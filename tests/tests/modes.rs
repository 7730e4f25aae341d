//! Which way packets between pods of one node take, by the conflist's `mode`.
#![cfg(test)]

use std::net::Ipv4Addr;
use std::time::Duration;

use lab::frame::ipv4_ends;
use lab::libcni::Network;
use lab::{AZURE_CONFLIST, EchoServer, Lab, Node, Pod, eventually};

/// Delivered on the node.
const LOCAL: [Option<&str>; 2] = [Some("bridge"), Some("transparent")];
/// Out to the fabric and back. No mode at all means `tunnel`.
const TUNNELLED: [Option<&str>; 4] = [Some("tunnel"), Some(""), None, Some("transparent-tunnel")];
/// What never comes, comes not within this time.
const NEVER: Duration = Duration::from_millis(300);
const SOON: Duration = Duration::from_secs(3);
/// The loader follows the node, on a busy machine too, and looks at all of it every 30 s only.
const LOOKED: Duration = Duration::from_secs(10);
const PROTOCOLS: [u8; 3] = [1, 6, 17];

/// The documented conflist in another mode.
fn conflist(mode: Option<&str>) -> String {
    let documented = r#""mode":"bridge","#;
    assert!(AZURE_CONFLIST.contains(documented));
    let line = mode.map_or_else(String::new, |mode| format!(r#""mode":"{mode}","#));
    AZURE_CONFLIST.replace(documented, &line)
}

/// One node with a running loader, and pods in this mode.
fn lab(mode: Option<&str>) -> Lab {
    let lab = Lab::new()
        .nodes(1)
        .conflist(&conflist(mode))
        .build()
        .unwrap();
    lab.node(1).start_loader().unwrap();
    lab
}

/// A pod that answers on port 80.
fn server(node: &Node, name: &str) -> (Pod, EchoServer) {
    let pod = node.add_pod(name).unwrap();
    let echo = pod.serve_echo(80).unwrap();
    (pod, echo)
}

/// A pod in another mode than the node's conflist says.
fn server_in(node: &Node, name: &str, mode: &str) -> (Pod, EchoServer) {
    let network = Network::parse(conflist(Some(mode)).as_bytes()).unwrap();
    let mut pod = node.new_netns(name).unwrap();
    pod.add(&network).unwrap();
    let echo = pod.serve_echo(80).unwrap();
    (pod, echo)
}

fn talk(client: &Pod, server: Ipv4Addr) {
    assert_eq!(client.tcp(server, 80).unwrap().peer_ip(), client.addr());
    assert_eq!(client.udp(server, 80).unwrap().peer_ip(), client.addr());
    client.ping(server).unwrap();
}

/// Whether packets of this IP protocol from `from` to `to` have crossed the fabric.
fn crossed(lab: &Lab, from: &Pod, to: &Pod, protocol: u8, within: Duration) -> bool {
    let ends = Some((from.addr(), to.addr()));
    lab.fabric().seen(within, |frame| {
        ipv4_ends(frame) == ends && frame.get(23) == Some(&protocol)
    })
}

#[test]
fn pods_of_one_node_talk_on_the_node_in_modes_bridge_and_transparent() {
    for mode in LOCAL {
        let lab = lab(mode);
        let (a, _a) = server(lab.node(1), "a");
        let (b, _b) = server(lab.node(1), "b");
        talk(&a, b.addr());
        talk(&b, a.addr());
        // A list that refuses everything between them changes nothing, as it never sees a packet.
        lab.fabric().deny(a.addr(), b.addr()).unwrap();
        talk(&a, b.addr());
        for protocol in PROTOCOLS {
            for (from, to) in [(&a, &b), (&b, &a)] {
                let crossed = crossed(&lab, from, to, protocol, Duration::ZERO);
                assert!(!crossed, "{mode:?}: protocol {protocol}");
            }
        }
        assert_eq!(lab.fabric().drops("vnet.acl").unwrap(), 0);
    }
}

#[test]
fn pods_of_one_node_talk_over_the_fabric_in_the_tunnel_modes() {
    for mode in TUNNELLED {
        let lab = lab(mode);
        let (a, _a) = server(lab.node(1), "a");
        let (b, _b) = server(lab.node(1), "b");
        talk(&a, b.addr());
        talk(&b, a.addr());
        for protocol in PROTOCOLS {
            for (from, to) in [(&a, &b), (&b, &a)] {
                let crossed = crossed(&lab, from, to, protocol, SOON);
                assert!(crossed, "{mode:?}: protocol {protocol}");
            }
        }
        let tracked = lab.node(1).tracked().unwrap();
        let through_kernel = tracked.iter().find(|flow| flow.has(a.addr()));
        assert_eq!(
            through_kernel.map(|flow| &flow.line),
            None,
            "{mode:?}: not fast"
        );
        let dropped = lab.fabric().dropped().unwrap();
        assert!(dropped.values().all(|n| *n == 0), "{mode:?}: {dropped:?}");
    }
}

#[test]
fn an_access_list_of_the_fabric_decides_in_the_tunnel_modes() {
    for mode in [Some("tunnel"), Some("transparent-tunnel")] {
        let lab = lab(mode);
        let (a, _a) = server(lab.node(1), "a");
        let (b, _b) = server(lab.node(1), "b");
        for (from, to) in [(&a, &b), (&b, &a)] {
            lab.fabric().deny(from.addr(), to.addr()).unwrap();
            let before = lab.fabric().drops("vnet.acl").unwrap();
            // Neither the question nor, in the other direction, the answer comes through.
            assert!(a.within(NEVER).tcp(b.addr(), 80).is_err(), "{mode:?}");
            assert!(a.within(NEVER).udp(b.addr(), 80).is_err(), "{mode:?}");
            assert!(a.within(NEVER).ping(b.addr()).is_err(), "{mode:?}");
            assert!(lab.fabric().drops("vnet.acl").unwrap() >= before + 3);
            lab.fabric().permit(from.addr(), to.addr()).unwrap();
            talk(&a, b.addr());
        }
    }
}

#[test]
fn one_end_in_a_tunnel_mode_is_enough_and_both_directions_cross() {
    let lab = lab(Some("transparent"));
    let (near, _near) = server(lab.node(1), "near");
    let (other, _other) = server(lab.node(1), "other");
    let (far, _far) = server_in(lab.node(1), "far", "transparent-tunnel");
    talk(&near, far.addr());
    talk(&far, near.addr());
    talk(&near, other.addr());
    for protocol in PROTOCOLS {
        assert!(crossed(&lab, &near, &far, protocol, SOON));
        assert!(crossed(&lab, &far, &near, protocol, SOON));
        assert!(!crossed(&lab, &near, &other, protocol, Duration::ZERO));
        assert!(!crossed(&lab, &other, &near, protocol, Duration::ZERO));
    }
}

/// What the programs leave to the kernel, which knows a shorter way.
#[test]
fn fragments_and_other_protocols_cross_the_fabric_too() {
    const SCTP: u8 = 132;
    let lab = lab(Some("tunnel"));
    let (a, _a) = server(lab.node(1), "a");
    let (b, _b) = server(lab.node(1), "b");
    let big = |count: &str| {
        let target = b.addr().to_string();
        a.exec(&["ping", "-c1", "-W", count, "-s4000", &target])
    };
    big("3").unwrap();
    assert!(crossed(&lab, &a, &b, 1, SOON));
    assert!(crossed(&lab, &b, &a, 1, SOON));
    lab.fabric().deny(a.addr(), b.addr()).unwrap();
    assert!(big("1").is_err(), "fragments take a way around the list");
    assert!(lab.fabric().drops("vnet.acl").unwrap() > 0);

    a.run(|| {
        let raw = socket2::Socket::new(
            socket2::Domain::IPV4,
            socket2::Type::RAW,
            Some(socket2::Protocol::from(i32::from(SCTP))),
        )?;
        raw.send_to(&[0; 32], &(std::net::SocketAddrV4::new(b.addr(), 0)).into())?;
        Ok(())
    })
    .unwrap();
    assert!(crossed(&lab, &a, &b, SCTP, SOON));
}

#[test]
fn a_service_with_a_backend_on_the_node_works_in_every_mode_and_stays_on_the_node() {
    let service = Ipv4Addr::new(10, 0, 0, 10);
    for mode in LOCAL.into_iter().chain(TUNNELLED) {
        let lab = lab(mode);
        let client = lab.node(1).add_pod("client").unwrap();
        let (backend, _backend) = server(lab.node(1), "backend");
        let to = backend.addr().to_string();
        for protocol in ["tcp", "udp"] {
            let rule = format!(
                "-t nat -A PREROUTING -d {service} -p {protocol} --dport 80 -j DNAT --to-destination {to}:80"
            );
            let line: Vec<&str> = std::iter::once("iptables").chain(rule.split(' ')).collect();
            lab.node(1).exec(&line).unwrap();
        }
        for _ in 0..3 {
            let seen = client.tcp(service, 80).unwrap().peer_ip();
            assert_eq!(seen, client.addr(), "{mode:?}");
            assert_eq!(client.udp(service, 80).unwrap().peer_ip(), client.addr());
            // Directly, in turns with it.
            talk(&client, backend.addr());
        }
    }
}

#[test]
fn the_tunnel_modes_leave_the_internet_and_the_virtual_network_as_they_are() {
    for mode in [Some("tunnel"), Some("transparent-tunnel")] {
        let lab = Lab::new()
            .nodes(2)
            .conflist(&conflist(mode))
            .build()
            .unwrap();
        for node in lab.nodes() {
            node.start_loader().unwrap();
        }
        let (a, _a) = server(lab.node(1), "a");
        let (far, _far) = server(lab.node(2), "far");
        talk(&a, far.addr());
        talk(&far, a.addr());
        let node = lab.node(1).addr();
        assert_eq!(a.tcp(lab.inet().addr(), 8080).unwrap().peer_ip(), node);
        assert_eq!(a.udp(lab.inet().addr(), 7).unwrap().peer_ip(), node);
        a.ping(lab.inet().addr()).unwrap();
        assert_eq!(a.tcp(lab.peer().addr(), 8080).unwrap().peer_ip(), a.addr());
        assert_eq!(a.dns("www.example.com").unwrap(), a.addr());
        a.ping(node).unwrap();
        lab.node(1).ping(a.addr()).unwrap();
    }
}

#[test]
fn the_mode_outlives_the_loader_and_the_maps() {
    // CHECK came with 0.4.0.
    let conflist = conflist(Some("tunnel")).replace("0.3.0", "1.0.0");
    let lab = Lab::new().nodes(1).conflist(&conflist).build().unwrap();
    let node = lab.node(1);
    node.start_loader().unwrap();
    let (a, _a) = server(node, "a");
    let (b, _b) = server(node, "b");
    a.check().unwrap();
    lab.fabric().deny(a.addr(), b.addr()).unwrap();
    let refused = || a.within(NEVER).tcp(b.addr(), 80).is_err();
    assert!(refused());
    node.loader().kill9().unwrap();
    assert!(refused(), "without a loader");
    node.start_loader().unwrap();
    assert!(refused(), "after a restart");
    node.loader().kill9().unwrap();
    node.exec(&["rm", "-r", "/sys/fs/bpf/azure-vnet/v1/maps"])
        .unwrap();
    node.exec(&["ip", "rule", "del", "priority", "7320"])
        .unwrap();
    node.start_loader().unwrap();
    assert!(refused(), "with new maps");
    a.check().unwrap();
    lab.fabric().permit(a.addr(), b.addr()).unwrap();
    talk(&a, b.addr());
}

#[test]
fn the_nodes_routing_rules_change_only_while_a_pod_needs_them() {
    let lab = lab(Some("transparent"));
    let node = lab.node(1);
    let rules = || node.exec(&["ip", "rule"]).unwrap();
    let (_a, _echo) = server(node, "a");
    assert!(!rules().contains("7320"), "{}", rules());
    let (b, echo) = server_in(node, "b", "transparent-tunnel");
    assert!(rules().contains("7320"), "{}", rules());
    drop(echo);
    b.delete().unwrap();
    node.loader().terminate().unwrap();
    node.start_loader().unwrap();
    assert!(!rules().contains("7320"), "{}", rules());
}

/// The route that leads what the programs leave to the kernel to the fabric.
fn way_out(node: &Node) -> Option<()> {
    let table = node.exec(&["ip", "route", "show", "table", "7320"]).ok()?;
    table.contains("default via").then_some(())
}

/// The routing table goes with the NIC, the rule that leads to it does not.
#[test]
fn the_way_to_the_fabric_comes_back_with_a_nic_that_was_made_anew() {
    let lab = lab(Some("tunnel"));
    let node = lab.node(1);
    let (a, _a) = server(node, "a");
    let (b, _b) = server(node, "b");
    assert!(way_out(node).is_some());
    node.renew_nic().unwrap();
    assert!(eventually(LOOKED, || way_out(node)).is_some());
    let (from, to) = (a.addr(), b.addr());
    lab.fabric().deny(from, to).unwrap();
    let big = || a.exec(&["ping", "-c1", "-W1", "-s4000", &to.to_string()]);
    assert!(big().is_err(), "fragments take a way around the list");
    lab.fabric().permit(from, to).unwrap();
    big().unwrap();
    talk(&a, to);
}

/// Without a default route for a while, on a NIC that stays what it is.
#[test]
fn the_way_to_the_fabric_comes_back_with_the_default_route() {
    let lab = lab(Some("tunnel"));
    let node = lab.node(1);
    let _pod = node.add_pod("a").unwrap();
    let told = || {
        node.loader()
            .log()
            .contains("there is no IPv4 default route")
    };
    node.ip("route flush table 7320\nroute del default\n")
        .unwrap();
    assert!(eventually(LOOKED, || told().then_some(())).is_some());
    node.ip("route add default via 10.240.0.1 dev eth0\n")
        .unwrap();
    assert!(eventually(LOOKED, || way_out(node)).is_some());
}

#[test]
fn a_pod_in_a_tunnel_mode_needs_a_gateway() {
    let lab = Lab::new()
        .nodes(1)
        .conflist(&conflist(Some("transparent-tunnel")))
        .build()
        .unwrap();
    let node = lab.node(1);
    node.write("/etc/azure-vnet/loader.yaml", "nic: eth0\n")
        .unwrap();
    // The wireserver stays in reach.
    node.ip("route add 168.63.129.16 via 10.240.0.1\nroute del default\n")
        .unwrap();
    node.start_loader().unwrap();
    let error = format!("{:#}", node.add_pod("a").unwrap_err());
    assert!(error.contains("no default gateway"), "{error}");
    assert!(error.contains("transparent or bridge"), "{error}");
}
