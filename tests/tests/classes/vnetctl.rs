//! `vnetctl classes` tells the class of any address and why.

use super::*;

#[test]
fn every_address_has_a_class_and_a_reason() {
    let lab = lab("{serviceCidrs: [10.0.0.0/16], vnetCidrs: [10.50.0.0/16], imds: deny}\n");
    let node = lab.node(1);
    node.write(MASQ_FILE, "nonMasqueradeCIDRs: [192.168.0.0/16]")
        .unwrap();
    let pod = node.add_pod("web").unwrap();
    soon("the masq file", || {
        class(node, "192.168.0.4").contains("ip-masq-agent")
    });
    let pod_addr = pod.addr().to_string();
    for (addr, expected) in [
        (
            pod_addr.as_str(),
            format!("pod 1 pod default/web of this node {pod_addr}/32"),
        ),
        (
            "10.240.0.4",
            "stack 2 address of the node 10.240.0.4/32".into(),
        ),
        (
            "168.63.129.16",
            "wireserver 3 Azure platform address 168.63.129.16/32".into(),
        ),
        (
            "169.254.169.254",
            format!("deny 4 imds 169.254.169.254/32 ({LOADER_YAML})"),
        ),
        ("224.0.0.1", "stack 5 multicast 224.0.0.0/4".into()),
        (
            "10.0.0.10",
            format!("stack 6 serviceCidrs 10.0.0.0/16 ({LOADER_YAML})"),
        ),
        (
            "10.240.7.7",
            "direct 7 subnet told by the wireserver 10.240.0.0/16".into(),
        ),
        (
            "10.50.0.4",
            format!("direct 9 vnetCidrs 10.50.0.0/16 ({LOADER_YAML})"),
        ),
        (
            "192.168.0.4",
            format!("direct 10 nonMasqueradeCIDRs 192.168.0.0/16 ({MASQ_FILE})"),
        ),
        ("172.16.0.1", "snat 11 private range 172.16.0.0/12".into()),
        ("100.64.0.1", "snat 12 private range 100.64.0.0/10".into()),
        ("203.0.113.10", "snat 13 the Internet 0.0.0.0/0".into()),
    ] {
        assert_eq!(class(node, addr), expected, "{addr}");
    }

    let several = node
        .exec(&["vnetctl", "classes", "10.0.0.10", "8.8.8.8", "-o", "json"])
        .unwrap();
    let several: Value = serde_json::from_str(&several).unwrap();
    assert_eq!(several[0]["address"], "10.0.0.10");
    assert_eq!(several[0]["file"], LOADER_YAML);
    assert_eq!(several[1]["class"], "snat");
}

#[test]
fn without_addresses_it_is_the_whole_table_longest_prefix_first() {
    let lab = lab("");
    let table = lab
        .node(1)
        .exec(&["vnetctl", "classes", "-o", "json"])
        .unwrap();
    let table: Vec<Value> = serde_json::from_str(&table).unwrap();
    let length = |row: &Value| {
        let prefix = row["prefix"].as_str().unwrap();
        prefix.split_once('/').unwrap().1.parse::<u8>().unwrap()
    };
    assert!(
        table.is_sorted_by_key(|row| u8::MAX - length(row)),
        "{table:?}"
    );
    assert_eq!(table.last().unwrap()["prefix"], "0.0.0.0/0");
    assert!(table[0]["address"].is_null());
}

/// Everything that a start begins is done.
fn pools_have_come(node: &Node) {
    soon("the pools", || {
        class(node, "10.240.99.99").starts_with("direct 7 ")
    });
}

#[test]
fn a_class_that_the_kernel_does_not_have_is_told() {
    let lab = lab("");
    let node = lab.node(1);
    assert!(class(node, "8.8.8.8").starts_with("snat 13 "));
    // When the pools have come, nobody writes the table any more.
    pools_have_come(node);
    let map = hooks::Pins::default().map("dst4").display().to_string();
    let key = "hex 20 00 00 00 08 08 08 08".split(' ');
    let value = "hex 01 00 00 00".split(' ');
    let line = ["bpftool", "map", "update", "pinned", &map, "key"].into_iter();
    let line: Vec<&str> = line.chain(key).chain(["value"]).chain(value).collect();
    node.exec(&line).unwrap();
    let told = class(node, "8.8.8.8");
    assert!(
        told.starts_with("direct 13 dst4 does not say snat"),
        "{told}"
    );
}

#[test]
fn what_is_no_address_and_a_dead_loader_are_clear_errors() {
    let lab = lab("");
    let node = lab.node(1);
    let run = |argument: &str| node.feed(&["vnetctl", "classes", argument], b"").unwrap();
    for wrong in ["10.0.0", "10.0.0.0/8", "::1", "www.example.com"] {
        let done = run(wrong);
        assert_eq!(done.status.code(), Some(2), "{wrong}");
        assert!(
            done.stderr.contains(wrong) && done.stderr.contains("write one such as"),
            "{}",
            done.stderr
        );
    }
    // An nft that is about to run would still hold the socket.
    pools_have_come(node);
    node.loader().kill9().unwrap();
    let done = run("10.0.0.10");
    assert_eq!(done.status.code(), Some(1));
    assert!(
        done.stderr.contains("is azure-vnet-loader running?"),
        "{}",
        done.stderr
    );
}
