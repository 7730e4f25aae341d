//! A node that Azure's own plug-ins served until this call.

use std::fs;
use std::path::Path;

use nix::errno::Errno;
use serde_json::{Value, json};

use crate::exec::{Answer, Exec, netconf_with};
use crate::faults::Fault;
use crate::full::node;
use crate::loader::Manner;
use crate::sandbox::Sandbox;

const ADDRESSES: &str = "/run/azure-vnet-ipam.json";
const ENDPOINTS: &str = "/run/azure-vnet.json";
const KEPT: &str = "/run/azure-vnet/original";

/// As Azure's plug-in writes it: with tabs.
fn write(path: &str, value: &Value) {
    let mut text = Vec::new();
    let format = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    let mut writer = serde_json::Serializer::with_formatter(&mut text, format);
    serde::Serialize::serialize(value, &mut writer).unwrap();
    fs::write(path, text).unwrap();
}

fn given(addresses: &[(u8, &str, bool)]) -> Value {
    let addresses = addresses.iter().map(|(last, id, in_use)| {
        let ip = format!("10.240.0.{last}");
        (ip.clone(), json!({"ID": id, "Addr": ip, "InUse": in_use}))
    });
    let addresses: serde_json::Map<String, Value> = addresses.collect();
    json!({"IPAM": {"Version": "v1.4.29", "TimeStamp": "2026-11-21T10:00:00Z", "AddressSpaces": {"local": {
        "Id": "local", "Scope": 0, "Pools": {"10.240.0.0/16": {
            "Id": "10.240.0.0/16", "IfName": "eth0", "Subnet": {"IP": "10.240.0.0", "Mask": "//8AAA=="},
            "Gateway": "10.240.0.1", "Addresses": addresses, "IsIPv6": false, "Priority": 0, "RefCount": 1}}}}}})
}

fn held(endpoints: &[(u8, &str, &str)]) -> Value {
    let endpoints = endpoints.iter().map(|(last, id, netns)| {
        let address = json!({"IP": format!("10.240.0.{last}"), "Mask": "//8AAA=="});
        let endpoint = json!({"Id": format!("{id}-eth0"), "IfName": "azv1230eth02", "HostIfName": "azv123",
            "IPAddresses": [address], "NetworkNameSpace": netns, "ContainerID": id, "PODName": id, "PODNameSpace": "ns"});
        (format!("{id}-eth0"), endpoint)
    });
    let endpoints: serde_json::Map<String, Value> = endpoints.collect();
    json!({"Network": {"Version": "v1.4.29", "TimeStamp": "2026-11-21T10:00:00Z", "ExternalInterfaces": {"eth0": {
        "Name": "eth0", "Networks": {"azure": {"Id": "azure", "Mode": "transparent", "Endpoints": endpoints}}}}}})
}

fn add(sandbox: &Sandbox, id: &str) -> Answer {
    sandbox.ipam("ADD").env("CNI_CONTAINERID", id).run()
}

fn address(answer: &Answer) -> String {
    let document = answer.document();
    document["ips"][0]["address"].as_str().unwrap().to_owned()
}

fn leases() -> usize {
    fs::read_dir("/run/azure-vnet/ipam/leases").unwrap().count()
}

/// Five addresses: .5 of a pod that lives, .6 of one that only the IPAM plug-in knew, .7 of one whose namespace is gone, .8 of
/// one that only the main plug-in knew, .9 of Azure's leak: not in use, but with an owner.
fn migrated() -> (Sandbox, crate::loader::Loader) {
    let (sandbox, loader) = node(Manner::Helpful);
    sandbox.cache_pools(&[5, 6, 7, 8, 9]);
    let dead = "/run/netns/dead";
    fs::write(dead, "").unwrap();
    let file = given(&[
        (5, "old5", true),
        (6, "old6", true),
        (7, "old7", true),
        (9, "old9", false),
    ]);
    write(ADDRESSES, &file);
    let (pod, gone) = ("/run/netns/pod", "/run/netns/gone");
    let file = held(&[
        (5, "old5", pod),
        (7, "old7", dead),
        (8, "old8", pod),
        (9, "old9", gone),
    ]);
    write(ENDPOINTS, &file);
    (sandbox, loader)
}

/// The first process of a container has ended, and with it the path to its namespace; another one keeps the namespace.
#[test]
fn the_address_of_an_azures_pod_whose_path_is_gone_is_its_own_while_a_route_leads_to_it() {
    let (sandbox, _loader) = migrated();
    sandbox.ip("link set lo up");
    sandbox.ip("route add 10.240.0.7/32 dev lo");
    assert_eq!(address(&add(&sandbox, "new1")), "10.240.0.9/16");
}

/// Features F78 and F79.
#[test]
fn the_addresses_of_azures_live_pods_are_given_to_nobody_until_their_del() {
    let (sandbox, _loader) = migrated();
    assert_eq!(address(&add(&sandbox, "new1")), "10.240.0.7/16");
    for file in [ADDRESSES, ENDPOINTS] {
        let kept = Path::new(KEPT).join(Path::new(file).file_name().unwrap());
        assert_eq!(fs::read(kept).unwrap(), fs::read(file).unwrap());
    }
    assert_eq!(address(&add(&sandbox, "new2")), "10.240.0.9/16");
    let state = sandbox.azure_vnet("GET_ENDPOINT_STATE").run().document();
    let interfaces = state["ContainerInterfaces"].as_object().unwrap();
    let known: Vec<_> = interfaces.keys().collect();
    assert_eq!(known, ["old5-eth0", "old8-eth0"]);
    assert_eq!(
        interfaces["old5-eth0"],
        json!({"PodName": "old5", "PodNamespace": "ns", "PodEndpointId": "old5-eth0", "ContainerID": "old5",
            "IPAddresses": [{"IP": "10.240.0.5", "Mask": "//8AAA=="}]})
    );
    assert_eq!(
        address(&add(&sandbox, "new3")),
        "10.240.0.50/16",
        "none is left"
    );

    // The runtime deletes by the container; its namespace may be gone by then.
    let main = || sandbox.azure_vnet("DEL").env("CNI_NETNS", "");
    let ipam = || sandbox.ipam("DEL");
    for (id, del) in [
        ("old5", &main as &dyn Fn() -> Exec),
        ("old6", &main),
        ("old8", &ipam),
    ] {
        let before = leases();
        for _ in 0..2 {
            del().env("CNI_CONTAINERID", id).run().silence();
        }
        assert_eq!(leases(), before - 1, "{id}");
    }
}

/// GC keeps what the runtime lists, though nobody remembers the interface, and takes the rest of the network.
#[test]
fn gc_knows_azures_pods_by_their_container() {
    let (sandbox, _loader) = migrated();
    add(&sandbox, "new1").document();
    let list = json!([{"containerID": "old5", "ifname": "eth0"}, {"containerID": "new1", "ifname": "eth0"}]);
    let conf = netconf_with(json!({"cniVersion": "1.1.0", "cni.dev/valid-attachments": list}));
    sandbox.ipam("GC").conf(&conf).run().silence();
    let left: Vec<_> = [5, 6, 7, 8]
        .into_iter()
        .filter(|last| fs::exists(format!("/run/azure-vnet/ipam/leases/10.240.0.{last}")).unwrap())
        .collect();
    assert_eq!(
        left,
        [5, 6, 7],
        ".6: its network is not known, so it may be another's"
    );
}

/// Azure's plug-in knows the container only: several addresses have one owner, or none. A runtime's DEL takes them all, and one
/// that names an address, as `vnetctl` does, no other.
#[test]
fn several_addresses_of_one_of_azures_containers_are_freed_together_or_one_by_one() {
    let (pod, kept) = ("/run/netns/pod", |last: u8| {
        fs::exists(format!("/run/azure-vnet/ipam/leases/10.240.0.{last}")).unwrap()
    });
    for gc in [false, true] {
        let (sandbox, _loader) = node(Manner::Helpful);
        sandbox.cache_pools(&[5, 6, 7, 8, 9]);
        let old = [
            (5, "old", true),
            (6, "old", true),
            (7, "", true),
            (8, "old", true),
        ];
        write(ADDRESSES, &given(&old));
        let mut endpoints = held(&[(5, "old", pod)]);
        let networks = "/Network/ExternalInterfaces/eth0/Networks/azure/Endpoints";
        let endpoint = &mut endpoints.pointer_mut(networks).unwrap()["old-eth0"];
        endpoint["IPAddresses"] = json!([{"IP": "10.240.0.5", "Mask": "//8AAA=="}, {"IP": "10.240.0.6", "Mask": "//8AAA=="}]);
        write(ENDPOINTS, &endpoints);
        assert_eq!(address(&add(&sandbox, "new")), "10.240.0.9/16");

        let del = |id: &str, ip: &str| {
            let ipam = json!({"type": "azure-vnet-ipam", "ipAddress": ip});
            let conf = netconf_with(json!({"ipam": ipam}));
            sandbox
                .ipam("DEL")
                .env("CNI_CONTAINERID", id)
                .conf(&conf)
                .run()
                .silence();
        };
        for _ in 0..2 {
            del("old", "10.240.0.8");
            del("other", "10.240.0.5");
            del("anybody", "10.240.0.7");
            assert_eq!([5, 6, 7, 8, 9].map(kept), [true, true, false, false, true]);
        }
        if gc {
            let list = json!([{"containerID": "new", "ifname": "eth0"}]);
            let conf =
                netconf_with(json!({"cniVersion": "1.1.0", "cni.dev/valid-attachments": list}));
            sandbox.ipam("GC").conf(&conf).run().silence();
        } else {
            sandbox
                .ipam("DEL")
                .env("CNI_CONTAINERID", "old")
                .run()
                .silence();
        }
        assert_eq!([5, 6, 9].map(kept), [false, false, true], "gc: {gc}");
        del("new", "10.240.0.5");
        assert!(
            !kept(9),
            "whoever has an address of ours gives back that one"
        );
        assert_eq!(
            fs::read_dir("/run/azure-vnet/ipam/owners").unwrap().count(),
            0
        );
    }
}

/// What cannot be read may be of live pods: nothing is given, and DEL goes on.
#[test]
fn a_damaged_file_of_azures_is_refused_with_the_remedy_and_an_empty_one_is_none() {
    let garbage: [&[u8]; 5] = [b"{\"IPAM\":", b"[]", b"{}", &[0; 512], b"\xff\xfe"];
    for path in [ADDRESSES, ENDPOINTS] {
        let sandbox = Sandbox::with_pod();
        sandbox.cache_pools(&[5, 6]);
        let first = add(&sandbox, "first").document();
        for text in garbage {
            fs::write(path, text).unwrap();
            let answer = add(&sandbox, "second");
            answer.error_saying(5, &[path, "drain the node", "move the file away"]);
            sandbox.ipam("DEL").run().silence();
        }
        let conf = netconf_with(json!({"cniVersion": "1.1.0"}));
        let status = sandbox.ipam("STATUS").conf(&conf).run();
        status.error_saying(50, &[path]);
        for text in ["", " \n"] {
            fs::write(path, text).unwrap();
            assert_eq!(add(&sandbox, "first").document(), first);
        }
        fs::remove_file(path).unwrap();
        assert_eq!(address(&add(&sandbox, "second")), "10.240.0.6/16");
    }
}

/// A disk that fails once at any operation where Azure's files are kept: no live pod's address is given, then or by the next ADD, and both files are
/// kept.
#[test]
fn whatever_fails_on_the_disk_the_next_call_takes_over() {
    let mut failed = Vec::new();
    for first in 0.. {
        let (sandbox, _loader) = migrated();
        let fault = Fault {
            below: KEPT,
            first,
            lasts: false,
            errno: Errno::EIO,
        };
        let adding = sandbox.ipam("ADD").env("CNI_CONTAINERID", "new");
        let (answer, operations) = adding.run_with(fault);
        let operation = operations.get(first);
        if !answer.status.success() {
            answer.error_saying(5, &[KEPT]);
        }
        assert_eq!(
            address(&add(&sandbox, "new")),
            "10.240.0.7/16",
            "{operation:?}"
        );
        for file in [ADDRESSES, ENDPOINTS] {
            let kept = Path::new(KEPT).join(Path::new(file).file_name().unwrap());
            assert_eq!(
                fs::read(kept).unwrap(),
                fs::read(file).unwrap(),
                "{operation:?}"
            );
        }
        let Some(operation) = operation else { break };
        let (kind, _) = operation.split_once(' ').unwrap();
        failed.push(kind.to_owned());
    }
    assert_eq!(
        failed.iter().filter(|kind| *kind == "link").count(),
        2,
        "{failed:?}"
    );
}
