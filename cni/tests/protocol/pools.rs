//! Where addresses come from, and what becomes of those that are given when the source tells others.

use std::fs;
use std::path::Path;

use nix::mount::{MsFlags, mount};
use serde_json::{Value, json};

use crate::exec::{Answer, netconf_with};
use crate::loader::{Loader, Manner};
use crate::sandbox::{Sandbox, pools};

const FILE: &str = "/etc/kubernetes/interfaces.json";

fn address(answer: &Answer) -> String {
    let document = answer.document();
    document["ips"][0]["address"].as_str().unwrap().to_owned()
}

fn cache(pools: &Value) {
    rpc::write_json(Path::new("/run/azure-vnet/ipam/pools.json"), pools).unwrap();
}

fn of(environment: &str) -> Value {
    netconf_with(
        json!({"cniVersion": "1.1.0", "ipam": {"type": "azure-vnet-ipam", "environment": environment}}),
    )
}

/// A node with two NICs, of which `eth0` has a VF, and a directory for the file.
fn node_with_nics() -> Sandbox {
    let sandbox = Sandbox::with_pod();
    let none: Option<&str> = None;
    mount(Some("tmpfs"), "/etc", Some("tmpfs"), MsFlags::empty(), none).unwrap();
    fs::create_dir("/etc/kubernetes").unwrap();
    for (name, mac) in [
        ("vf0", "00:0d:3a:f9:dc:a6"),
        ("eth0", "00:0d:3a:f9:dc:a6"),
        ("eth1", "00:0d:3a:f9:dc:a7"),
    ] {
        sandbox.ip(&format!(
            "link add {name} address {mac} type veth peer name of-{name}"
        ));
    }
    // The node has given itself .6.
    for (address, name) in [
        ("10.0.0.4/24", "eth0"),
        ("10.0.0.6/24", "eth0"),
        ("10.1.0.4/24", "eth1"),
    ] {
        sandbox.ip(&format!("address add {address} dev {name}"));
    }
    sandbox
}

fn subnet(prefix: &str, addresses: &[&str]) -> Value {
    let addresses: Vec<Value> = addresses
        .iter()
        .enumerate()
        .map(|(place, ip)| json!({"Address": ip, "IsPrimary": place == 0}))
        .collect();
    json!([{"Prefix": prefix, "IPAddresses": addresses}])
}

/// Azure's own example, with a MAC address in both spellings, a NIC of another node, and nonsense.
#[test]
fn the_nodes_file_tells_the_addresses_where_no_platform_does() {
    let sandbox = node_with_nics();
    let add = |id: &str, conf: &Value| {
        sandbox
            .ipam("ADD")
            .env("CNI_CONTAINERID", id)
            .conf(conf)
            .run()
    };
    add("a", &of("mas")).error_saying(100, &[FILE, "ipam.environment", "No such file"]);
    let first = subnet(
        "10.0.0.0/24",
        &[
            "10.0.0.4", "10.0.0.5", "10.0.0.6", "10.0.0.7", "10.9.0.1", "x",
        ],
    );
    let interfaces = json!({"Interfaces": [
        {"MacAddress": "00:0D:3A:F9:DC:A6", "IsPrimary": true, "IPSubnets": first},
        {"MacAddress": "000d3af9dca7", "IPSubnets": subnet("10.1.0.0/24", &["10.1.0.4", "10.1.0.5"])},
        {"MacAddress": "000d3af9dcff", "IPSubnets": subnet("10.2.0.0/24", &["10.2.0.4", "10.2.0.5"])},
        {"MacAddress": "*"},
    ]});
    fs::write(FILE, interfaces.to_string()).unwrap();
    assert_eq!(address(&add("a", &of("mas"))), "10.0.0.5/24");
    assert_eq!(address(&add("b", &of("fileIpam"))), "10.0.0.7/24");
    // Another NIC's addresses are for those who name it.
    add("c", &of("mas")).error_saying(100, &["No available addresses", "2 of 2 used"]);
    let mut by_master = of("fileIpam");
    by_master["master"] = "eth1".into();
    assert_eq!(address(&add("c", &by_master)), "10.1.0.5/24");
    by_master["master"] = "vf0".into();
    add("d", &by_master).error_saying(100, &["no available address pools"]);
    let status = sandbox.ipam("STATUS").conf(&of("mas")).run();
    status.error_saying(50, &["No available addresses"]);

    fs::write(FILE, "{").unwrap();
    assert_eq!(
        address(&add("a", &of("mas"))),
        "10.0.0.5/24",
        "who has one keeps it"
    );
    add("d", &of("mas")).error_saying(100, &[FILE, "EOF"]);
    fs::write(FILE, r#"{"interfaces":[{"macAddress":"*"}]}"#).unwrap();
    add("d", &of("mas")).error_saying(100, &[FILE, "none of its 1 interfaces"]);
}

/// Addresses appear, vanish while they are free, and vanish while they are used: these stay until DEL, and nobody gets them.
#[test]
fn what_the_source_tells_anew_holds_for_new_pods_only() {
    let sandbox = Sandbox::with_pod();
    sandbox.cache_pools(&[5, 6, 7]);
    let add = |id: &str| sandbox.ipam("ADD").env("CNI_CONTAINERID", id).run();
    assert_eq!(address(&add("a")), "10.240.0.5/16");
    assert_eq!(address(&add("b")), "10.240.0.6/16");
    cache(&pools(&[6, 8]));
    assert_eq!(address(&add("a")), "10.240.0.5/16");
    assert_eq!(address(&add("c")), "10.240.0.8/16", ".7 has vanished");
    let del = |id: &str| {
        sandbox
            .ipam("DEL")
            .env("CNI_CONTAINERID", id)
            .run()
            .silence();
    };
    del("a");
    add("d").error_saying(100, &["2 of 2 used"]);
    cache(&pools(&[5, 6, 8]));
    assert_eq!(address(&add("d")), "10.240.0.5/16");

    // The NIC gets another subnet.
    let mut moved = pools(&[]);
    moved["interfaces"][0]["subnets"] =
        json!([{"prefix": "10.9.0.0/24", "primary": "10.9.0.4", "secondary": ["10.9.0.5"]}]);
    cache(&moved);
    let new = add("e").document();
    assert_eq!(
        (&new["ips"][0]["address"], &new["ips"][0]["gateway"]),
        (&json!("10.9.0.5/24"), &json!("10.9.0.1"))
    );
    assert_eq!(address(&add("b")), "10.240.0.6/16");
    for id in ["b", "c", "d", "e"] {
        del(id);
    }
    assert_eq!(
        fs::read_dir("/run/azure-vnet/ipam/leases").unwrap().count(),
        0
    );
}

/// Feature F75: an exhausted pool makes no storm of requests.
#[test]
fn the_platform_is_not_asked_more_often_than_the_query_interval() {
    let sandbox = Sandbox::with_pod();
    let loader = Loader::start(Manner::Helpful);
    fs::create_dir_all("/run/azure-vnet/ipam").unwrap();
    let mut fresh = pools(&[]);
    fresh["read_at_ms"] = u64::MAX.into();
    cache(&fresh);
    let interval = |seconds: &str| {
        netconf_with(json!({"ipam": {"type": "azure-vnet-ipam", "queryInterval": seconds}}))
    };
    for seconds in ["", "0", "never", "3600"] {
        let answer = sandbox.ipam("ADD").conf(&interval(seconds)).run();
        answer.error_saying(
            100,
            &["No available addresses", "as of 0 s ago", "queryInterval"],
        );
    }
    assert_eq!(loader.requests(), Vec::<String>::new());
    sandbox.cache_pools(&[]);
    // As old as the boot.
    let week = sandbox.ipam("ADD").conf(&interval("604800")).run();
    week.error_saying(100, &["queryInterval"]);
    assert_eq!(
        address(&sandbox.ipam("ADD").conf(&interval("1")).run()),
        "10.240.0.50/16"
    );
    assert_eq!(loader.requests(), ["refresh_pools"]);
}
