//! CRI-O is not packaged: its calls, in its order (ocicni over libcni 1.3), with a list of CNI 1.1.0.
//!
//! At its start it asks VERSION of every plug-in, STATUS until the network is ready, and GC once. A pod is ADD and, at once,
//! CHECK, which fails the pod when it fails. DEL uses the configuration and the result of then.

use std::collections::BTreeSet;

use lab::libcni::{self, Attachment, Network, Verb};
use lab::{CONFLIST, Lab, Node, Pod};
use serde_json::{Value, json};

/// Debian's other plug-ins do not speak that version.
const LIST: &str = r#"{"cniVersion": "1.1.0", "name": "azure", "plugins": [
  {"type": "azure-vnet", "mode": "transparent", "ipam": {"type": "azure-vnet-ipam"}}]}"#;
const PODS: usize = 12;

fn node() -> Lab {
    Lab::new().nodes(1).conflist(LIST).build().unwrap()
}

/// `ValidateNetworkList`: the variables that VERSION has no use for are dummies.
fn versions(node: &Node) -> Vec<Value> {
    let dummy = Attachment {
        container_id: String::new(),
        netns: Some("dummy".to_owned()),
        ifname: "dummy".to_owned(),
        ..Attachment::of_pod("dummy", "dummy", None)
    };
    let environment = dummy.environment(Verb::Version);
    let asked = br#"{"cniVersion": "1.1.0"}"#;
    let answer = libcni::exec(node, "azure-vnet", &environment, asked).unwrap();
    let answer = libcni::outcome("azure-vnet", &answer).unwrap().unwrap();
    answer["supportedVersions"].as_array().unwrap().clone()
}

/// GC as ocicni asks: a list that is empty is `null`.
fn gc(node: &Node, network: &Network, valid: &[&Pod]) {
    if !valid.is_empty() {
        let attachments: Vec<_> = valid.iter().map(|pod| pod.attachment()).collect();
        return network.gc(node, 1, &attachments).unwrap();
    }
    let nobody = Attachment::of_pod("nobody", "", None);
    let mut netconf = network.first_netconf(&nobody).unwrap();
    netconf["cni.dev/valid-attachments"] = Value::Null;
    netconf["cni.dev/attachments"] = Value::Null;
    let environment = [
        ("CNI_COMMAND", "GC".to_owned()),
        ("CNI_PATH", libcni::CNI_PATH.to_owned()),
    ];
    let text = netconf.to_string();
    let answer = libcni::exec(node, "azure-vnet", &environment, text.as_bytes()).unwrap();
    assert_eq!(libcni::outcome("azure-vnet", &answer).unwrap(), None);
}

/// ADD and CHECK, as one step.
fn run_pod(node: &Node, network: &Network, name: &str) -> Pod {
    let mut pod = node.new_netns(name).unwrap();
    pod.add(network).unwrap();
    pod.check().unwrap();
    pod
}

#[test]
fn crio_starts_when_the_loader_does() {
    let lab = node();
    let node = lab.node(1);
    let network = node.network().unwrap();
    assert!(versions(node).contains(&json!("1.1.0")));
    for _ in 0..3 {
        let error = network.status(node, 1).unwrap_err();
        assert!(format!("{error:#}").contains("code 50"), "{error:#}");
    }
    node.start_loader().unwrap();
    network.status(node, 1).unwrap();
    gc(node, &network, &[]);
    let pod = run_pod(node, &network, "web");
    let inet = lab.inet().addr();
    assert_eq!(pod.tcp(inet, 8080).unwrap().peer_ip(), node.addr());
}

#[test]
fn crio_checks_every_pod_right_after_its_add() {
    let lab = node();
    let node = lab.node(1);
    node.start_loader().unwrap();
    let network = node.network().unwrap();
    let before = node.snapshot().unwrap();
    let pods: Vec<Pod> = std::thread::scope(|scope| {
        let network = &network;
        let run = |n| scope.spawn(move || run_pod(node, network, &format!("web{n}")));
        let running: Vec<_> = (0..PODS).map(run).collect();
        running.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let addresses: BTreeSet<_> = pods.iter().map(Pod::addr).collect();
    assert_eq!(addresses.len(), PODS);
    // What CHECK would keep from running: a pod whose default route was lost.
    let broken = &pods[0];
    broken.ip("route del default\n").unwrap();
    let error = format!("{:#}", broken.check().unwrap_err());
    assert!(error.contains("route"), "{error}");
    // The list changes; DEL has the one of then.
    let changed = LIST.replace("azure-vnet-ipam", "host-local");
    node.write(CONFLIST, &changed).unwrap();
    std::thread::scope(|scope| {
        for pod in pods {
            scope.spawn(|| pod.delete().unwrap());
        }
    });
    assert_eq!(before.left(&node.snapshot().unwrap()), Vec::<String>::new());
}

#[test]
fn crio_collects_at_its_start_what_it_does_not_know_any_more() {
    let lab = node();
    let node = lab.node(1);
    node.start_loader().unwrap();
    let network = node.network().unwrap();
    let before = node.snapshot().unwrap();
    let [known, forgotten] = ["known", "forgotten"].map(|name| run_pod(node, &network, name));
    let stream = known.stream(lab.inet().addr(), 8080).unwrap();
    // CRI-O comes back without one of its pods.
    network.status(node, 1).unwrap();
    gc(node, &network, &[&known]);
    known.check().unwrap();
    assert!(forgotten.check().is_err());
    let report = stream.finish().unwrap();
    assert_eq!((report.resets, report.error), (0, None));
    forgotten.delete().unwrap();
    known.remove_netns().unwrap();
    gc(node, &network, &[]);
    assert_eq!(before.left(&node.snapshot().unwrap()), Vec::<String>::new());
}
