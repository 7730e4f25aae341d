//! Who has which address: Azure's state files before and after us, and addresses that nobody gives back.
#![cfg(test)]

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

/// An address without record, for a main plug-in, in a namespace.
fn give(node: &Node, plugin: &str, id: &str, netns: &str) {
    let variables = [
        "CNI_COMMAND=ADD",
        &format!("CNI_CONTAINERID={id}"),
        "CNI_IFNAME=eth0",
        &format!("CNI_NETNS={netns}"),
        "CNI_PATH=/opt/cni/bin",
    ];
    let line = [
        &["env"],
        variables.as_slice(),
        &["/opt/cni/bin/azure-vnet-ipam"],
    ]
    .concat();
    let conf = json!({"cniVersion": "1.0.0", "name": "azure", "type": plugin, "ipam": {"type": "azure-vnet-ipam"}});
    let done = node.feed(&line, conf.to_string().as_bytes()).unwrap();
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stdout)
    );
}

#[test]
fn addresses_that_nobody_gives_back_are_found_and_freed_and_those_of_pods_that_live_are_not() {
    let lab = lab();
    let node = lab.node(1);
    let [alive, gone] = ["alive", "gone"].map(|name| node.add_pod(name).unwrap());
    let netns = alive.netns().to_str().unwrap().to_owned();
    give(node, "bridge", "bridged", &netns);
    give(node, "azure-vnet", "lost", &netns);
    give(node, "ptp", "dead", "/run/netns/dead");
    let (fine, rows) = ipam(node, &["check"]);
    assert!(!fine);
    assert_eq!(told(&rows, "container_id"), ["lost", "dead"]);
    // Its owner's own file says the same.
    let lease = format!(
        "/run/azure-vnet/ipam/leases/{}",
        rows[1]["address"].as_str().unwrap()
    );
    node.write(&lease, "damaged").unwrap();
    assert_eq!(
        told(&ipam(node, &["check"]).1, "container_id"),
        ["lost", "dead"]
    );
    let address = gone.addr().to_string();
    let veth = gone.result()["interfaces"][1]["name"]
        .as_str()
        .unwrap()
        .to_owned();
    gone.remove_netns().unwrap();

    let (fine, rows) = ipam(node, &["gc", "--dry-run"]);
    assert!(fine);
    assert_eq!(rows.len(), 3);
    assert_eq!(rows[0]["address"], address);
    for (row, why) in rows
        .iter()
        .zip(["is gone", "no endpoint record", "/run/netns/dead is gone"])
    {
        let text = row["why"].as_str().unwrap();
        assert!(text.contains(why) && row["freed"] == false, "{row}");
    }
    assert_eq!(ipam(node, &["show"]).1.len(), 5);

    let (fine, rows) = ipam(node, &["gc", "--bin-dir", "/nowhere"]);
    assert!(
        !fine
            && rows.iter().all(|row| row["error"]
                .as_str()
                .is_some_and(|why| why.contains("/nowhere"))),
        "{rows:?}"
    );
    let (fine, rows) = ipam(node, &["gc"]);
    assert!(
        fine && rows.iter().all(|row| row["freed"] == true),
        "{rows:?}"
    );
    assert_eq!(ipam(node, &["check"]), (true, Vec::new()));
    let (_, left) = ipam(node, &["show"]);
    assert_eq!(
        told(&left, "container_id"),
        [alive.container_id(), "bridged"]
    );
    assert_eq!(told(&left, "state"), ["used", "used"]);
    assert!(!node.exec(&["ip", "-br", "link"]).unwrap().contains(&veth));
    let table = node.exec(&["vnetctl", "ipam", "show"]).unwrap();
    assert!(
        table.starts_with("ADDRESS ") && table.contains(" default/alive "),
        "{table}"
    );
    assert_eq!(
        alive.tcp(lab.inet().addr(), 8080).unwrap().peer_ip(),
        node.addr()
    );
}

/// Found at the start and half a minute later: not a DEL that is on its way.
#[test]
fn the_loader_tells_of_addresses_that_leak() {
    let lab = lab();
    let node = lab.node(1);
    let pod = node.add_pod("gone").unwrap();
    let address = pod.addr().to_string();
    pod.remove_netns().unwrap();
    node.loader().kill9().unwrap();
    node.start_loader().unwrap();
    let warning = || {
        let status = node.status().unwrap();
        let warnings = status["warnings"].as_array()?.clone();
        warnings.into_iter().find(|text| {
            text.as_str()
                .is_some_and(|text| text.contains("vnetctl ipam gc"))
        })
    };
    assert_eq!(warning(), None);
    let told = eventually(Duration::from_mins(1), warning).unwrap();
    assert!(told.as_str().unwrap().contains(&address), "{told}");
    assert!(node.loader().log().contains("an address leaks"));
}
