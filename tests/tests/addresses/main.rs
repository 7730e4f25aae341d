//! Who has which address, as Azure's tools read it, and what becomes of addresses that nobody gives back.
#![cfg(test)]

mod host_ports;
mod leaks;
mod originals;
mod reclaimed;

use std::time::Duration;

use lab::{Lab, Node, eventually};
use serde_json::{Value, json};

const ADDRESSES: &str = "/run/azure-vnet-ipam.json";
const ENDPOINTS: &str = "/run/azure-vnet.json";
const SOON: Duration = Duration::from_secs(10);

fn lab() -> Lab {
    let lab = Lab::new().nodes(1).build().unwrap();
    lab.node(1).start_loader().unwrap();
    lab
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
