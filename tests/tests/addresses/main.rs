//! Who has which address: Azure's state files before and after us, and [`leaks`].
#![cfg(test)]

mod leaks;

use std::collections::BTreeSet;
use std::time::Duration;

use lab::{Lab, Node, Pod, eventually};
use serde_json::{Value, json};

const ADDRESSES: &str = "/run/azure-vnet-ipam.json";
const ENDPOINTS: &str = "/run/azure-vnet.json";
const SOON: Duration = Duration::from_secs(10);

fn lab() -> Lab {
    let lab = Lab::new().nodes(1).build().unwrap();
    lab.node(1).start_loader().unwrap();
    lab
}

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

#[track_caller]
fn soon(what: &str, mut holds: impl FnMut() -> bool) {
    assert!(
        eventually(SOON, || holds().then_some(())).is_some(),
        "{what}"
    );
}

/// What `vnetctl ipam …` tells, and whether it succeeds.
fn ipam(node: &Node, arguments: &[&str]) -> (bool, Vec<Value>) {
    let line = [&["vnetctl", "-o", "json", "ipam"], arguments].concat();
    let done = node.feed(&line, b"").unwrap();
    let told = serde_json::from_slice(&done.stdout).unwrap_or_else(|_| panic!("{}", done.stderr));
    (done.status.success(), told)
}

fn told(rows: &[Value], key: &str) -> Vec<String> {
    rows.iter()
        .map(|row| row[key].as_str().unwrap().to_owned())
        .collect()
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

/// What Azure's plug-ins leave of one pod with this address and namespace.
fn write_originals(node: &Node, ip: &str, netns: &str) -> (String, String) {
    let id = "3f813b02cdd4";
    let endpoint = json!({"Id": "3f813b02-eth0", "IfName": "eth0", "ContainerID": id, "PODName": "old",
        "IPAddresses": [{"IP": ip, "Mask": "//8AAA=="}], "NetworkNameSpace": netns});
    let state = json!({"Network": {"Version": "v1.4.29", "ExternalInterfaces": {"eth0": {"Name": "eth0",
        "Networks": {"azure": {"Id": "azure", "Endpoints": {"3f813b02-eth0": endpoint}}}}}}});
    let pool = json!({"Id": "10.240.0.0/16", "Gateway": "10.240.0.1",
        "Addresses": {ip: {"ID": id, "Addr": ip, "InUse": true}}});
    let given = json!({"IPAM": {"Version": "v1.4.29", "AddressSpaces": {"local": {"Pools": {"10.240.0.0/16": pool}}}}});
    let texts = (state.to_string(), given.to_string());
    node.write(ENDPOINTS, &texts.0).unwrap();
    node.write(ADDRESSES, &texts.1).unwrap();
    texts
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
