//! GC, STATUS and `ipsToRouteViaHost` with the real loader.
#![cfg(test)]

use std::time::Duration;

use hooks::Pins;
use lab::libcni::CniError;
use lab::{Lab, Node, Pod, eventually};
use serde_json::{Value, json};

/// How many of the conflist's plug-ins speak 1.1.0: the reference ones of Debian 12 do not.
const OURS: usize = 1;

fn lab() -> Lab {
    let lab = Lab::new().nodes(2).build().unwrap();
    for node in lab.nodes() {
        node.start_loader().unwrap();
    }
    lab
}

fn code(error: &anyhow::Error) -> u64 {
    error.downcast_ref::<CniError>().unwrap().code
}

fn pods_of(node: &Node) -> Vec<Value> {
    let status = node.exec(&["vnetctl", "status", "-o", "json"]).unwrap();
    let status: Value = serde_json::from_str(&status).unwrap();
    status["pods"].as_array().unwrap().clone()
}

/// Row 83: traffic of the pods that stay goes on, and the others are gone from links, maps and pool.
#[test]
fn gc_on_a_node_removes_what_is_not_listed_and_traffic_of_the_rest_goes_on() {
    let lab = lab();
    let node = lab.node(1);
    let network = node.network().unwrap().in_version("1.1.0");
    let before = node.snapshot().unwrap();
    let pods: Vec<Pod> = (0..5)
        .map(|n| node.add_pod(&format!("web{n}")).unwrap())
        .collect();
    let kept = [&pods[1], &pods[3]];
    let streams = kept.map(|pod| pod.stream(lab.inet().addr(), 8080).unwrap());
    let listed = kept.map(Pod::attachment);
    for _ in 0..2 {
        network.gc(node, OURS, &listed).unwrap();
        let mut left: Vec<String> = pods_of(node)
            .iter()
            .map(|pod| pod["name"].as_str().unwrap().to_owned())
            .collect();
        left.sort();
        assert_eq!(left, ["web1", "web3"]);
    }
    for stream in streams {
        stream.finish().unwrap();
    }
    for pod in kept {
        assert_eq!(
            pod.tcp(lab.inet().addr(), 8080).unwrap().peer_ip(),
            node.addr()
        );
    }
    network.gc(node, OURS, &[]).unwrap();
    // portmap made nothing: no pod has a host port.
    for pod in pods {
        pod.remove_netns().unwrap();
    }
    assert_eq!(before.left(&node.snapshot().unwrap()), Vec::<String>::new());
}

/// Rows 89 and 90.
#[test]
fn status_on_a_node_follows_the_loader_and_the_nics_programs() {
    let lab = lab();
    let node = lab.node(1);
    let network = node.network().unwrap().in_version("1.1.0");
    network.status(node, OURS).unwrap();

    // What an operator, or another agent, may do: the loader repairs it within seconds, perhaps before we have asked.
    let error = eventually(Duration::from_secs(10), || {
        node.run(|| Ok(hooks::remove(&Pins::default(), "eth0")?))
            .unwrap();
        network.status(node, OURS).err()
    });
    let error = error.expect("STATUS sees that the NIC has no programs");
    assert_eq!(code(&error), 51, "{error:#}");
    let repaired = eventually(Duration::from_secs(10), || network.status(node, OURS).ok());
    repaired.expect("the loader has put them back");
    node.loader().kill9().unwrap();
    let error = network.status(node, OURS).unwrap_err();
    assert_eq!(code(&error), 50, "{error:#}");
    assert!(format!("{error:#}").contains("is azure-vnet-loader running?"));
    node.start_loader().unwrap();
    network.status(node, OURS).unwrap();
}

/// Row 90: what the kernel lacks keeps the loader from starting, which names it; STATUS leads there.
#[test]
fn status_on_a_kernel_that_lacks_something_leads_to_the_remedy() {
    let lab = Lab::new().nodes(1).build().unwrap();
    let node = lab.node(1);
    let network = node.network().unwrap().in_version("1.1.0");
    let btf = "/sys/kernel/btf";
    node.exec(&["mount", "-t", "tmpfs", "none", btf]).unwrap();
    let refused = format!("{:#}", node.start_loader().unwrap_err());
    let remedy = "the kernel has no BTF (/sys/kernel/btf/vmlinux); use a kernel with CONFIG_DEBUG_INFO_BTF=y";
    assert!(refused.contains(remedy), "{refused}");
    let error = network.status(node, OURS).unwrap_err();
    assert_eq!(code(&error), 50, "{error:#}");
    assert!(
        format!("{error:#}").contains("systemctl status azure-vnet-loader"),
        "{error:#}"
    );
    node.exec(&["umount", btf]).unwrap();
    node.start_loader().unwrap();
    network.status(node, OURS).unwrap();
}

/// F31: an address in the VNet that would go out of the NIC fast is taken by the node's own stack, which knows better.
#[test]
fn an_address_that_is_routed_via_the_host_never_leaves_by_the_nic() {
    let lab = lab();
    let node = lab.node(1);
    let elsewhere = "10.240.77.10";
    let class = |address: &str| {
        let status = node.exec(&["vnetctl", "status", "-o", "json"]).unwrap();
        let status: Value = serde_json::from_str(&status).unwrap();
        let rules = status["classes"].as_array().unwrap().clone();
        let found = rules
            .iter()
            .find(|rule| rule["prefix"] == format!("{address}/32").as_str());
        found.map(|rule| rule["class"].as_str().unwrap().to_owned())
    };
    assert_eq!(class(elsewhere), None);
    let network = node
        .network()
        .unwrap()
        .with("ipsToRouteViaHost", json!([elsewhere, "169.254.20.10"]));
    let mut pod = node.new_netns("web").unwrap();
    pod.add(&network).unwrap();
    assert_eq!(class(elsewhere).as_deref(), Some("stack"));
    assert_eq!(
        class("169.254.20.10"),
        None,
        "link-local takes the stack anyway"
    );

    // The node answers for it without having it as an address of its own, as a redirect of a node-local cache would.
    node.exec(&[
        "ip", "route", "add", "local", elsewhere, "dev", "lo", "table", "local",
    ])
    .unwrap();
    let _echo = node.serve_echo(53).unwrap();
    let seen = pod.tcp(elsewhere.parse().unwrap(), 53).unwrap();
    assert_eq!(seen.peer_ip(), pod.addr());

    // A loader that starts anew reads it from the records.
    node.loader().kill9().unwrap();
    node.start_loader().unwrap();
    assert_eq!(class(elsewhere).as_deref(), Some("stack"));
    pod.delete().unwrap();
}
