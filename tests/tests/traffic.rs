//! What pods reach through the real plug-in, loader and programs.
#![cfg(test)]

use std::path::Path;
use std::time::Duration;

use lab::{AZURE_CONFLIST, EchoServer, Lab, NARROW, Namespace, Node, Pod};
use serde_json::Value;

/// Two nodes with running loaders that know of the peered virtual network.
fn lab() -> Lab {
    lab_with("vnetCidrs: [10.50.0.0/16]\n")
}

fn lab_with(loader_yaml: &str) -> Lab {
    let lab = Lab::new().nodes(2).build().unwrap();
    for node in lab.nodes() {
        node.write("/etc/azure-vnet/loader.yaml", loader_yaml)
            .unwrap();
        node.start_loader().unwrap();
    }
    lab
}

/// A pod that answers on port 80.
fn server(node: &Node, name: &str) -> (Pod, EchoServer) {
    let pod = node.add_pod(name).unwrap();
    let echo = pod.serve_echo(80).unwrap();
    (pod, echo)
}

#[test]
fn the_documented_conflist_works_unchanged() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let deployed = std::fs::read_to_string(workspace.join("deploy/10-azure.conflist")).unwrap();
    assert_eq!(
        deployed, AZURE_CONFLIST,
        "what we install is what the lab uses"
    );
    // The documents lie beside the developers' and CI's checkouts, not beside a user's clone.
    let documented = documented_conflist(&workspace.join("../shared/seeds"));
    if let Some(documented) = &documented {
        assert_eq!(
            documented.trim(),
            AZURE_CONFLIST.trim(),
            "byte for byte what is documented"
        );
    }
    let lab = Lab::new()
        .nodes(1)
        .conflist(documented.as_deref().unwrap_or(AZURE_CONFLIST))
        .build()
        .unwrap();
    lab.node(1).start_loader().unwrap();
    let pod = lab.node(1).add_pod("web").unwrap();
    assert_eq!(pod.result()["cniVersion"], "0.3.0");
    assert_eq!(
        pod.tcp(lab.inet().addr(), 8080).unwrap().peer_ip(),
        lab.node(1).addr()
    );
    pod.delete().unwrap();
}

/// The first JSON block of the documents that names our IPAM plug-in.
fn documented_conflist(seeds: &Path) -> Option<String> {
    let mut files: Vec<_> = std::fs::read_dir(seeds)
        .ok()?
        .map(|file| file.unwrap().path())
        .collect();
    files.sort();
    let texts = files
        .into_iter()
        .map(|path| std::fs::read_to_string(path).unwrap());
    let blocks = texts.flat_map(|text| text.split("```").map(str::to_owned).collect::<Vec<_>>());
    let mut found =
        blocks.filter(|block| block.starts_with("json") && block.contains("azure-vnet-ipam"));
    Some(
        found
            .next()
            .expect("the documents have lost their conflist")
            .trim_start_matches("json")
            .to_owned(),
    )
}

#[test]
fn pods_see_each_others_own_addresses_on_one_node_and_on_two() {
    let lab = lab();
    let client = lab.node(1).add_pod("client").unwrap();
    let (near, _near) = server(lab.node(1), "near");
    let (far, _far) = server(lab.node(2), "far");
    for target in [near.addr(), far.addr()] {
        assert_eq!(client.tcp(target, 80).unwrap().peer_ip(), client.addr());
        assert_eq!(client.udp(target, 80).unwrap().peer_ip(), client.addr());
        client.ping(target).unwrap();
    }
}

#[test]
fn the_fast_path_leaves_no_trace_in_connection_tracking() {
    let lab = lab();
    let client = lab.node(1).add_pod("client").unwrap();
    let (near, _near) = server(lab.node(1), "near");
    let (far, _far) = server(lab.node(2), "far");
    client.tcp(near.addr(), 80).unwrap();
    client.tcp(far.addr(), 80).unwrap();
    client.tcp(lab.peer().addr(), 8080).unwrap();
    client.tcp(lab.inet().addr(), 8080).unwrap();
    client.udp(lab.inet().addr(), 7).unwrap();
    client.ping(lab.inet().addr()).unwrap();
    let fast = [client.addr(), near.addr(), far.addr(), lab.inet().addr()];
    let traces = |node: &Node| -> Vec<String> {
        let flows = node.tracked().unwrap().into_iter();
        flows
            .filter(|flow| fast.iter().any(|addr| flow.has(*addr)))
            .map(|flow| flow.line)
            .collect()
    };
    for node in lab.nodes() {
        assert_eq!(traces(node), Vec::<String>::new(), "{}", node.name());
    }
    // The instrument works: what goes through the kernel is seen.
    client.tcp(lab.onprem().addr(), 8080).unwrap();
    assert_ne!(traces(lab.node(1)), Vec::<String>::new());
}

#[test]
fn the_internet_and_metadata_see_the_node_and_everybody_else_the_pod() {
    let lab = lab();
    let (pod, _echo) = server(lab.node(1), "web");
    let node = lab.node(1).addr();
    assert_eq!(pod.tcp(lab.inet().addr(), 8080).unwrap().peer_ip(), node);
    assert_eq!(pod.udp(lab.inet().addr(), 7).unwrap().peer_ip(), node);
    pod.ping(lab.inet().addr()).unwrap();
    assert_eq!(
        pod.tcp(lab.peer().addr(), 8080).unwrap().peer_ip(),
        pod.addr()
    );
    assert_eq!(
        pod.tcp(lab.onprem().addr(), 8080).unwrap().peer_ip(),
        pod.addr()
    );
    assert_eq!(
        lab.peer().tcp(pod.addr(), 80).unwrap().peer_ip(),
        lab.peer().addr()
    );
    assert_eq!(pod.dns("www.example.com").unwrap(), pod.addr());
    let answer = pod.http(
        lab::IMDS,
        80,
        "/metadata/instance/network?api-version=2021-01-01",
        &[("Metadata", "true")],
    );
    assert_eq!(answer.unwrap().status, 200);
    let dropped = lab.fabric().dropped().unwrap();
    assert!(dropped.values().all(|packets| *packets == 0), "{dropped:?}");
}

#[test]
fn connections_beyond_the_ports_are_masqueraded_by_the_kernel() {
    let lab = lab_with("natPorts: 1024-1025\n");
    let pod = lab.node(1).add_pod("web").unwrap();
    let ports: Vec<u16> = (0..6)
        .map(|_| pod.tcp(lab.inet().addr(), 8080).unwrap().peer_addr().port())
        .collect();
    assert!(
        ports.iter().any(|port| (1024..=1025).contains(port)),
        "{ports:?}"
    );
    assert!(ports.iter().any(|port| *port >= 61_000), "{ports:?}");
}

#[test]
fn a_narrow_path_is_discovered_through_snat() {
    let lab = lab();
    let pod = lab.node(1).add_pod("web").unwrap();
    // Beyond the first segments, all are too big for the path.
    pod.bulk(NARROW, 8080, 256 * 1024).unwrap();
    let route = pod
        .exec(&["ip", "route", "get", &NARROW.to_string()])
        .unwrap();
    assert!(
        route.contains("mtu 1400"),
        "the pod has learnt the path's MTU: {route}"
    );
}

/// Bytes and packets that have come in by the interface: a super-packet that nobody has cut on its way is one.
fn received(at: &Namespace) -> [u64; 2] {
    // By netlink: a pod's `/sys` is its node's.
    let link = at
        .exec(&["ip", "-j", "-s", "link", "show", "eth0"])
        .unwrap();
    let link: Value = serde_json::from_str(&link).unwrap();
    ["bytes", "packets"].map(|what| link[0]["stats64"]["rx"][what].as_u64().unwrap())
}

/// Bytes and packets of a pod of the first node by this path.
fn by_path(lab: &Lab, pod: &Pod, path: &str) -> [u64; 2] {
    let status = lab.node(1).status().unwrap();
    let pods = status["pods"].as_array().unwrap();
    let own = pod.addr().to_string();
    let pod = pods.iter().find(|pod| pod["address"] == own).unwrap();
    let counted = &pod["paths"][path];
    ["bytes", "packets"].map(|what| counted[what].as_u64().unwrap_or(0))
}

#[test]
fn a_stream_crosses_in_super_packets_on_every_fast_path() {
    const LENGTH: u64 = 4 << 20;
    /// Far fewer than segments, acknowledgements of the echo among them.
    const FEW: u64 = LENGTH / 1448 / 4;
    let lab = lab();
    let client = lab.node(1).add_pod("client").unwrap();
    let (near, _near) = server(lab.node(1), "near");
    let (far, _far) = server(lab.node(2), "far");
    let (inet, peer) = (lab.inet(), lab.peer());
    // Who connects, to whom, the pod of the first node, and by which paths of this pod the stream and its echo go.
    let to_pod = ["to_pod", "from_pod"];
    let streams: [(&Namespace, &Namespace, _, &Pod, [&str; 2]); 4] = [
        (&client, &near, (near.addr(), 80), &client, to_pod),
        (
            &client,
            &far,
            (far.addr(), 80),
            &client,
            ["to_vnet", "from_vnet"],
        ),
        (
            &client,
            inet,
            (inet.addr(), 8080),
            &client,
            ["to_internet", "from_internet"],
        ),
        (
            peer,
            &near,
            (near.addr(), 80),
            &near,
            ["from_vnet", "to_vnet"],
        ),
    ];
    for (from, to, (address, port), pod, paths) in streams {
        let count = || {
            let [there, back] = paths.map(|path| by_path(&lab, pod, path));
            [there, received(to), back, received(from)]
        };
        let before = count();
        from.bulk(address, port, LENGTH.try_into().unwrap())
            .unwrap();
        let places = [paths[0], "its receiver", paths[1], "the echo's receiver"];
        for ((place, before), after) in places.into_iter().zip(before).zip(count()) {
            let [bytes, packets] = [0, 1].map(|at| after[at] - before[at]);
            println!(
                "{} to {}, {place}: {bytes} bytes in {packets} packets",
                from.name(),
                to.name()
            );
            assert!(bytes > LENGTH, "{place}: all of it comes by: {bytes} bytes");
            assert!(packets < FEW, "{place}: {packets} packets");
        }
    }
}

#[test]
fn fragments_cross_through_the_kernel() {
    let lab = lab();
    let client = lab.node(1).add_pod("client").unwrap();
    let (far, _far) = server(lab.node(2), "far");
    for target in [far.addr(), lab.inet().addr()] {
        let size = client.exec(&["ping", "-c1", "-W2", "-s4000", &target.to_string()]);
        assert!(size.is_ok(), "{target}: {size:?}");
    }
}

#[test]
fn a_host_port_of_the_chained_portmap_reaches_the_pod_and_its_answer_comes_back() {
    let lab = lab();
    let network = lab.node(1).network().unwrap();
    let mut pod = lab.node(1).new_netns("web").unwrap();
    *pod.attachment_mut() = pod.attachment().clone().host_port(8081, 80, "tcp");
    pod.add(&network).unwrap();
    let _echo = pod.serve_echo(80).unwrap();
    for client in [lab.peer(), lab.inet()] {
        let seen = client.tcp(lab.node(1).addr(), 8081).unwrap().peer_ip();
        assert_eq!(seen, client.addr());
    }
    assert_eq!(
        lab.node(1).tcp(lab.node(1).addr(), 8081).unwrap().peer_ip(),
        lab.node(1).addr()
    );
    pod.delete().unwrap();
}

#[test]
fn the_wireservers_secrets_are_out_of_reach_with_and_without_programs() {
    let lab = lab();
    let pod = lab.node(1).add_pod("web").unwrap();
    let tries = || {
        [80, 32_526].map(|port| {
            pod.within(Duration::from_millis(300))
                .tcp(lab::WIRESERVER, port)
                .is_ok()
        })
    };
    assert_eq!(tries(), [false, false]);
    let veth = pod.result()["interfaces"][1]["name"]
        .as_str()
        .unwrap()
        .to_owned();
    lab.node(1)
        .exec(&["tc", "qdisc", "del", "dev", &veth, "clsact"])
        .unwrap();
    assert_eq!(tries(), [false, false], "the kernel's own rule");
    assert_eq!(
        pod.dns("www.example.com").unwrap(),
        pod.addr(),
        "DNS works through the kernel"
    );
    assert_eq!(
        pod.tcp(lab.inet().addr(), 8080).unwrap().peer_ip(),
        lab.node(1).addr(),
        "and so does the Internet"
    );
}

#[test]
fn metadata_can_be_denied_with_and_without_programs() {
    let lab = lab_with("imds: deny\n");
    let pod = lab.node(1).add_pod("web").unwrap();
    let reached = || {
        pod.within(Duration::from_millis(300))
            .tcp(lab::IMDS, 80)
            .is_ok()
    };
    assert!(!reached());
    let drops = lab.node(1).exec(&["vnetctl", "status"]).unwrap();
    assert!(drops.contains("denied"), "{drops}");
    let veth = pod.result()["interfaces"][1]["name"]
        .as_str()
        .unwrap()
        .to_owned();
    lab.node(1)
        .exec(&["tc", "qdisc", "del", "dev", &veth, "clsact"])
        .unwrap();
    assert!(!reached(), "the kernel's own rule");
    let own = lab.node(1).http(
        lab::IMDS,
        80,
        "/metadata/instance/network?api-version=2021-01-01",
        &[("Metadata", "true")],
    );
    assert_eq!(own.unwrap().status, 200, "the node itself is not denied");
}

#[test]
fn a_private_range_that_nobody_named_can_call_pods_beside_kube_proxys_rules() {
    let lab = lab();
    let (pod, _echo) = server(lab.node(1), "web");
    let node = lab.node(1);
    // kube-proxy drops what its connection tracking has not seen from the beginning.
    node.exec(&[
        "iptables",
        "-A",
        "FORWARD",
        "-m",
        "conntrack",
        "--ctstate",
        "INVALID",
        "-j",
        "DROP",
    ])
    .unwrap();
    for client in [lab.onprem(), lab.peer()] {
        assert_eq!(client.tcp(pod.addr(), 80).unwrap().peer_ip(), client.addr());
        assert_eq!(client.udp(pod.addr(), 80).unwrap().peer_ip(), client.addr());
        client.ping(pod.addr()).unwrap();
    }
}
