//! Azure's state files, before and after us.

use std::collections::BTreeSet;

use lab::{Lab, Node, Pod};
use serde_json::{Value, json};

use crate::{ADDRESSES, ENDPOINTS, ipam, lab, soon, told, write_originals};

fn read(node: &Node, path: &str) -> Value {
    serde_json::from_str(&node.read(path).unwrap()).unwrap()
}

fn addresses(pods: &[&Pod]) -> BTreeSet<String> {
    pods.iter().map(|pod| pod.addr().to_string()).collect()
}

/// As Azure's own test does it: the addresses in use.
fn in_use(node: &Node) -> BTreeSet<String> {
    let state = read(node, ADDRESSES);
    let pool = state["IPAM"]["AddressSpaces"]["local"]["Pools"]["10.240.0.0/16"].clone();
    let all = pool["Addresses"].as_object().cloned().unwrap_or_default();
    all.into_iter()
        .filter(|(_, address)| address["InUse"] == true)
        .map(|(ip, _)| ip)
        .collect()
}

/// As CNS does it: the endpoints of network `azure`.
fn endpoints(node: &Node) -> Vec<Value> {
    let state = read(node, ENDPOINTS);
    let network = &state["Network"]["ExternalInterfaces"]["eth0"]["Networks"]["azure"];
    let all = network["Endpoints"]
        .as_object()
        .cloned()
        .unwrap_or_default();
    all.into_iter().map(|(_, endpoint)| endpoint).collect()
}

/// Feature F78.
#[test]
fn azures_tools_find_pods_and_addresses_in_files_of_azures_shape() {
    let lab = lab();
    let node = lab.node(1);
    let [one, two] = ["one", "two"].map(|name| node.add_pod(name).unwrap());
    soon("both pods", || {
        in_use(node) == addresses(&[&one, &two]) && endpoints(node).len() == 2
    });
    let endpoint = endpoints(node)
        .into_iter()
        .find(|endpoint| endpoint["PODName"] == "one")
        .unwrap();
    assert_eq!(endpoint["ContainerID"], one.container_id());
    assert_eq!(
        endpoint["IPAddresses"],
        json!([{"IP": one.addr().to_string(), "Mask": "//8AAA=="}])
    );
    assert_eq!(
        endpoint["HostIfName"],
        one.result()["interfaces"][1]["name"]
    );
    assert_eq!(endpoint["NetworkNameSpace"], one.netns().to_str().unwrap());
    let first = node.exec(&["head", "-c", "40", ADDRESSES]).unwrap();
    assert!(first.contains("azure-vnet-ebpf"), "{first}");

    one.delete().unwrap();
    soon("one pod", || {
        in_use(node) == addresses(&[&two]) && endpoints(node).len() == 1
    });
}

/// Feature F79: the node goes from Azure's plug-ins to ours while a pod lives.
#[test]
fn on_a_migrated_node_the_old_pods_address_stays_its_own_and_its_files_stay_true() {
    let lab = Lab::new().nodes(1).build().unwrap();
    let node = lab.node(1);
    let old = node.new_netns("old").unwrap();
    let secondaries = node.secondaries().unwrap();
    let ip = secondaries[0].to_string();
    let originals = write_originals(node, &ip, old.netns().to_str().unwrap());
    node.start_loader().unwrap();
    let texts = (node.read(ENDPOINTS).unwrap(), node.read(ADDRESSES).unwrap());
    assert_eq!(
        texts, originals,
        "nothing is written before it is taken over"
    );

    let new = node.add_pod("new").unwrap();
    assert_eq!(new.addr(), secondaries[1]);
    let both = BTreeSet::from([ip.clone(), new.addr().to_string()]);
    soon("both pods", || {
        in_use(node) == both && endpoints(node).len() == 2
    });
    let (_, rows) = ipam(node, &["show"]);
    assert_eq!(told(&rows, "state"), ["used", "used"]);

    old.remove_netns().unwrap();
    let (fine, rows) = ipam(node, &["gc"]);
    assert!(fine);
    assert_eq!(told(&rows, "address"), [ip]);
    soon("the new pod alone", || {
        in_use(node) == addresses(&[&new]) && endpoints(node).len() == 1
    });
    assert_eq!(
        new.tcp(lab.inet().addr(), 8080).unwrap().peer_ip(),
        node.addr()
    );
}

/// In mode bridge Azure's pods have no route, and who has deleted `azure-vnet.json`, as Azure's own guides say, has no paths: such
/// a pod may live, and only an operator knows.
#[test]
fn an_address_of_azures_of_which_nothing_tells_the_namespace_is_freed_by_hand_only() {
    for endpoints in [None, Some(json!({"Network": {"ExternalInterfaces": {}}}))] {
        let lab = Lab::new().nodes(1).build().unwrap();
        let node = lab.node(1);
        let old = node.new_netns("old").unwrap();
        let ip = node.secondaries().unwrap()[0].to_string();
        write_originals(node, &ip, old.netns().to_str().unwrap());
        match endpoints {
            None => drop(node.exec(&["rm", ENDPOINTS]).unwrap()),
            Some(value) => node.write(ENDPOINTS, &value.to_string()).unwrap(),
        }
        node.start_loader().unwrap();
        let new = node.add_pod("new").unwrap();
        let (_, rows) = ipam(node, &["show"]);
        assert_eq!(told(&rows, "state"), ["unknown", "used"]);
        assert_eq!(ipam(node, &["gc"]), (true, Vec::new()));
        assert_eq!(told(&ipam(node, &["free", &ip]).1, "address"), [ip]);
        let (_, rows) = ipam(node, &["show"]);
        assert_eq!(told(&rows, "address"), [new.addr().to_string()]);
    }
}

#[test]
fn an_azures_pod_is_not_cut_off_by_uninstall_and_keeps_its_files() {
    let lab = Lab::new().nodes(1).build().unwrap();
    let node = lab.node(1);
    let old = node.new_netns("old").unwrap();
    let ip = node.secondaries().unwrap()[0].to_string();
    let originals = write_originals(node, &ip, old.netns().to_str().unwrap());
    node.start_loader().unwrap();
    let files = || (node.read(ENDPOINTS).unwrap(), node.read(ADDRESSES).unwrap());
    node.add_pod("new").unwrap().delete().unwrap();
    soon("our own files", || {
        files().0 != originals.0 && files().1 != originals.1
    });
    let refused = node.feed(&["vnetctl", "uninstall"], b"").unwrap();
    let why = "1 pods live on this node (3f813b02cdd4)";
    assert!(refused.stderr.contains(why), "{}", refused.stderr);
    node.exec(&["vnetctl", "uninstall", "--force"]).unwrap();
    assert_eq!(files(), originals);
    // What is Azure's alone is nobody's to remove.
    node.start_loader().unwrap();
    node.exec(&["vnetctl", "uninstall"]).unwrap();
    assert_eq!(files(), originals);
}
