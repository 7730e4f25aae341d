//! kube-proxy's Services, in every shape: every connection works, and takes the path that was designed for it.

use std::collections::BTreeSet;
use std::env;

use lab::{Namespace, Probe, Proxy, Service};

use super::*;

/// kube-proxy's modes, each in a fresh lab. IPVS, which few kernels have, where `LAB_PROXY=ipvs` asks for it, and then alone.
fn in_every_shape(test: impl Fn(&Scene, Proxy) -> Result) -> Result {
    let shapes = match env::var("LAB_PROXY").as_deref() {
        Ok("ipvs") => &[Proxy::Ipvs][..],
        Ok(other) => panic!("LAB_PROXY is `{other}`; it may be `ipvs`, or not be set"),
        Err(_) => &[Proxy::Iptables, Proxy::Nftables],
    };
    for &proxy in shapes {
        test(&Scene::new()?, proxy).map_err(|error| error.context(format!("{proxy:?}")))?;
    }
    Ok(())
}

/// Connects, and says which ways the pods' packets took meanwhile.
fn watched(from: &Namespace, to: (Ipv4Addr, u16), pods: &[&Pod]) -> Result<(Probe, Vec<String>)> {
    let (probe, paths) = paths_during(pods, || from.tcp(to.0, to.1))?;
    Ok((probe?, paths))
}

#[test]
fn a_cluster_ip_leads_to_a_local_a_remote_and_the_pods_own_backend() -> Result {
    in_every_shape(|scene, proxy| {
        let Scene {
            client,
            local,
            remote,
            ..
        } = scene;
        let at = |last| Ipv4Addr::new(10, 0, 0, last);
        scene.node().proxy(
            proxy,
            &[
                Service::new("local", at(10), PORT).backend(local.addr(), TARGET),
                Service::new("remote", at(11), PORT).backend(remote.addr(), TARGET),
                Service::new("own", at(12), PORT).backend(client.addr(), TARGET),
            ],
        )?;

        let (probe, paths) = watched(client, (at(10), PORT), &[client, local])?;
        assert_eq!(probe.peer_ip(), client.addr());
        assert_eq!(paths, ["from_stack to_stack"; 2]);

        let (probe, paths) = watched(client, (at(11), PORT), &[client])?;
        assert_eq!(probe.peer_ip(), client.addr());
        assert_eq!(paths, ["from_stack to_stack"]);

        // The pod would not take its own address as a client's: the node's stands for it.
        let (probe, paths) = watched(client, (at(12), PORT), &[client])?;
        assert_eq!(probe.peer_ip(), scene.node().addr());
        assert_eq!(paths, ["from_stack to_stack"]);
        Ok(())
    })
}

#[test]
fn udp_services_answer_as_tcp_services_do() -> Result {
    in_every_shape(|scene, proxy| {
        let (client, local, remote) = (&scene.client, &scene.local, &scene.remote);
        let at = |last| Ipv4Addr::new(10, 0, 0, last);
        scene.node().proxy(
            proxy,
            &[
                Service::new("local", at(10), PORT)
                    .udp()
                    .node_port(30_053)
                    .backend(local.addr(), TARGET),
                Service::new("remote", at(11), PORT)
                    .udp()
                    .backend(remote.addr(), TARGET),
            ],
        )?;
        for service in [at(10), at(11)] {
            for _ in 0..3 {
                let (probe, paths) = paths_during(&[client], || client.udp(service, PORT))?;
                assert_eq!(probe?.peer_ip(), client.addr());
                assert_eq!(paths, ["from_stack to_stack"]);
            }
            // Directly, beside it: nothing of it sticks to the backend.
            let backend = if service == at(10) { local } else { remote };
            let (probe, paths) = paths_during(&[client], || client.udp(backend.addr(), TARGET))?;
            assert_eq!(probe?.peer_ip(), client.addr());
            assert!(!paths.concat().contains("stack"), "{paths:?}");
        }
        // The client's address is hidden behind the node's, as kube-proxy does it.
        let outside = scene.lab.onprem();
        let probe = outside.udp(scene.node().addr(), 30_053)?;
        assert_eq!(probe.peer_ip(), scene.node().addr());
        Ok(())
    })
}

#[test]
fn the_same_ports_go_through_a_service_and_then_directly() -> Result {
    in_every_shape(|scene, proxy| {
        let Scene {
            client,
            local,
            remote,
            ..
        } = scene;
        for (number, backend) in [(10, local), (11, remote)] {
            let service = Ipv4Addr::new(10, 0, 0, number);
            if number == 10 {
                scene.node().proxy(
                    proxy,
                    &[
                        Service::new("local", service, PORT).backend(local.addr(), TARGET),
                        Service::new("remote", Ipv4Addr::new(10, 0, 0, 11), PORT)
                            .backend(remote.addr(), TARGET),
                    ],
                )?;
            }
            for round in 0..5 {
                let mut through = client.converse(0, service, PORT)?;
                through.say("through the Service")?;
                let from = through.seen().port();
                drop(through);
                // TIME_WAIT of the pod's own stack belongs to the Service's address, and stands in nobody's way.
                let mut direct = client.converse(from, backend.addr(), TARGET)?;
                direct.say("directly")?;
                assert_eq!(*direct.seen().ip(), client.addr(), "round {round}");
            }
        }
        Ok(())
    })
}

#[test]
fn direct_traffic_stays_fast_beside_services() -> Result {
    in_every_shape(|scene, proxy| {
        let Scene {
            client,
            local,
            remote,
            ..
        } = scene;
        let service = Service::new("local", CLUSTER_IP, PORT).backend(local.addr(), TARGET);
        scene.node().proxy(proxy, &[service])?;
        client.tcp(CLUSTER_IP, PORT)?;
        let (_, paths) = watched(client, (local.addr(), TARGET), &[client, local])?;
        assert_eq!(paths, ["from_pod to_pod"; 2]);
        let (_, paths) = watched(client, (remote.addr(), TARGET), &[client])?;
        assert_eq!(paths, ["from_vnet to_vnet"]);
        Ok(())
    })
}

#[test]
fn a_node_port_for_the_whole_cluster_hides_the_client() -> Result {
    in_every_shape(|scene, proxy| {
        let Scene {
            client,
            local,
            remote,
            lab,
            ..
        } = scene;
        let node = scene.node().addr();
        scene.node().proxy(
            proxy,
            &[
                Service::new("local", CLUSTER_IP, PORT)
                    .backend(local.addr(), TARGET)
                    .node_port(30_080),
                Service::new("remote", Ipv4Addr::new(10, 0, 0, 11), PORT)
                    .backend(remote.addr(), TARGET)
                    .node_port(30_081),
            ],
        )?;
        let callers: [&Namespace; 4] = [lab.peer(), lab.inet(), lab.node(2), client];
        for from in callers {
            let (probe, paths) = watched(from, (node, 30_080), &[local])?;
            assert_eq!(probe.peer_ip(), node, "from {}", from.name());
            assert_eq!(paths, ["from_stack to_stack"], "from {}", from.name());
            assert_eq!(
                from.tcp(node, 30_081)?.peer_ip(),
                node,
                "from {}",
                from.name()
            );
        }
        Ok(())
    })
}

#[test]
fn a_node_port_for_local_backends_shows_the_client() -> Result {
    in_every_shape(|scene, proxy| {
        let Scene {
            client,
            local,
            remote,
            lab,
            ..
        } = scene;
        let node = scene.node().addr();
        // From outside only the local one may be chosen.
        let service = Service::new("web", CLUSTER_IP, PORT)
            .backend(remote.addr(), TARGET)
            .backend(local.addr(), TARGET)
            .node_port(30_080)
            .local_only();
        scene.node().proxy(proxy, &[service])?;
        // To kube-proxy the nodes' subnet is the pods': a node as a client would be sent to any backend, its own pods included.
        let callers: [(&Namespace, Ipv4Addr); 2] = [
            (lab.peer(), lab.peer().addr()),
            (lab.inet(), lab.inet().addr()),
        ];
        for (from, addr) in callers {
            for _ in 0..4 {
                let (probe, paths) = watched(from, (node, 30_080), &[local])?;
                assert_eq!(probe.peer_ip(), addr);
                assert_eq!(paths, ["from_stack to_stack"]);
            }
        }
        for _ in 0..4 {
            assert_eq!(client.tcp(node, 30_080)?.peer_ip(), client.addr());
        }
        Ok(())
    })
}

#[test]
fn session_affinity_keeps_a_client_at_its_backend() -> Result {
    in_every_shape(|scene, proxy| {
        let Scene {
            client,
            local,
            remote,
            ..
        } = scene;
        let own = [local.serve_echo(9001)?, remote.serve_echo(9001)?];
        let service = Service::new("web", CLUSTER_IP, PORT)
            .backend(local.addr(), 9001)
            .backend(remote.addr(), 9001)
            .session_affinity();
        scene.node().proxy(proxy, &[service])?;
        for _ in 0..12 {
            client.tcp(CLUSTER_IP, PORT)?;
        }
        let mut served: Vec<_> = own.iter().map(|server| server.clients().len()).collect();
        served.sort_unstable();
        assert_eq!(served, [0, 12]);
        Ok(())
    })
}

#[test]
fn without_affinity_both_backends_get_their_share() -> Result {
    in_every_shape(|scene, proxy| {
        let Scene {
            client,
            local,
            remote,
            ..
        } = scene;
        let own = [local.serve_echo(9001)?, remote.serve_echo(9001)?];
        let service = Service::new("web", CLUSTER_IP, PORT)
            .backend(local.addr(), 9001)
            .backend(remote.addr(), 9001);
        scene.node().proxy(proxy, &[service])?;
        // One of two is left out with a probability of 2^-39.
        for _ in 0..40 {
            client.tcp(CLUSTER_IP, PORT)?;
        }
        let used: BTreeSet<_> = own
            .iter()
            .map(|server| server.clients().is_empty())
            .collect();
        assert_eq!(used, BTreeSet::from([false]));
        Ok(())
    })
}

#[test]
fn a_load_balancers_address_and_an_external_ip_are_answered_on_the_node() -> Result {
    in_every_shape(|scene, proxy| {
        let Scene {
            client,
            local,
            remote,
            ..
        } = scene;
        // Of an internal load balancer in the virtual network, and one that the nodes' network does not know.
        let addresses = [Ipv4Addr::new(10, 240, 9, 9), Ipv4Addr::new(192, 0, 2, 80)];
        for node in scene.lab.nodes() {
            let stack = "serviceCidrs: [10.0.0.0/16, 10.240.9.9/32, 192.0.2.80/32]\n";
            node.write("/etc/azure-vnet/loader.yaml", stack)?;
            node.loader().kill9()?;
            node.start_loader()?;
        }
        let service = |name, last, backend: &Pod, addr| {
            Service::new(name, Ipv4Addr::new(10, 0, 0, last), PORT)
                .backend(backend.addr(), TARGET)
                .external_ip(addr)
        };
        scene.node().proxy(
            proxy,
            &[
                service("local", 10, local, addresses[0]),
                service("remote", 11, remote, addresses[1]),
            ],
        )?;
        for addr in addresses {
            let (probe, paths) = watched(client, (addr, PORT), &[client])?;
            assert_eq!(probe.peer_ip(), scene.node().addr());
            assert_eq!(paths, ["from_stack to_stack"]);
        }
        Ok(())
    })
}
