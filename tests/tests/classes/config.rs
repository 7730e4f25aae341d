//! A bad configuration is refused with file, key, value and remedy, and what runs stays.

use super::*;

/// loader.yaml, and what its refusal says.
const BAD_LOADER_YAML: [(&str, [&str; 3]); 11] = [
    (
        "vnetCidr: []",
        ["unknown key", "`vnetCidr`", "did you mean `vnetCidrs`?"],
    ),
    (
        "serviceCidrs: [10.0.0.1/16]",
        ["serviceCidrs", "`10.0.0.1/16`", "write 10.0.0.0/16"],
    ),
    (
        "directCidrs: [10.0.0.0]",
        ["directCidrs", "`10.0.0.0`", "write one such as 10.0.0.0/16"],
    ),
    (
        "vnetCidrs: [10.0.0.0/8, 10.1.0.0/16]",
        ["vnetCidrs", "`10.1.0.0/16`", "take one of the two out"],
    ),
    (
        "{serviceCidrs: [10.50.0.0/16], directCidrs: [10.50.0.0/16]}",
        [
            "directCidrs",
            "`10.50.0.0/16`",
            "take it out of one of the two",
        ],
    ),
    ("imds: maybe", ["imds", "`maybe`", "write snat or deny"]),
    (
        "blockWireserver: 1",
        ["blockWireserver", "`1`", "write true or false"],
    ),
    (
        "natPorts: 20000-31000",
        ["natPorts", "`20000-31000`", "1024-29999"],
    ),
    (
        "natPorts: 40000-50000",
        ["natPorts", "ip_local_port_range", "1024-29999"],
    ),
    (
        "natPortsPerPod: 30000",
        ["natPortsPerPod", "`30000`", "28976 of `natPorts`"],
    ),
    (
        "{vnetCidrs: [10.50.0.0/16], denyCidrs: [10.50.7.0/24]}",
        [
            "denyCidrs",
            "`10.50.7.0/24`",
            "overlaps `vnetCidrs` 10.50.0.0/16",
        ],
    ),
];

/// A masq file, and what its refusal says.
const BAD_MASQ_FILES: [(&str, [&str; 3]); 4] = [
    (
        "nonMasqueradeCIDRs: [10.0.0.1/8]",
        ["nonMasqueradeCIDRs", "`10.0.0.1/8`", "write 10.0.0.0/8"],
    ),
    (
        "{\"nonMasqueradeCIDRs\": \"10.0.0.0/8\"}",
        ["nonMasqueradeCIDRs", "`10.0.0.0/8`", "[10.0.0.0/16]"],
    ),
    (
        "masqLinkLocal: yes",
        ["masqLinkLocal", "`yes`", "write true or false"],
    ),
    (
        "resyncInterval: 60",
        ["resyncInterval", "`60`", "write one such as 60s"],
    ),
];

#[track_caller]
fn says(text: &str, file: &str, words: &[&str]) {
    for word in [file].iter().chain(words) {
        assert!(text.contains(word), "`{word}` is not in: {text}");
    }
}

#[test]
fn at_start_the_loader_says_why_and_the_programs_stay() {
    let lab = lab("");
    let node = lab.node(1);
    let pod = node.add_pod("web").unwrap();
    node.loader().kill9().unwrap();
    let loader_yaml = BAD_LOADER_YAML.map(|(text, words)| (LOADER_YAML, text, words));
    let masq = BAD_MASQ_FILES.map(|(text, words)| (MASQ_FILE, text, words));
    for (file, text, words) in loader_yaml.into_iter().chain(masq) {
        node.write(file, text).unwrap();
        let error = format!("{:#}", node.start_loader().unwrap_err());
        says(&error, file, &words);
        node.write(LOADER_YAML, "").unwrap();
    }
    assert_eq!(
        pod.tcp(lab.inet().addr(), 8080).unwrap().peer_ip(),
        node.addr()
    );
    assert_eq!(seen_on_premises(&lab, &pod), pod.addr());
}

#[test]
fn at_reload_the_running_configuration_stays_and_status_and_log_say_why() {
    let good = "imds: deny\n";
    let lab = lab(good);
    let node = lab.node(1);
    let pod = node.add_pod("web").unwrap();
    let classes = || node.exec(&["vnetctl", "classes"]).unwrap();
    node.write(MASQ_FILE, "nonMasqueradeCIDRs: [10.0.0.0/8]")
        .unwrap();
    soon("the good file", || {
        seen_on_premises(&lab, &pod) == node.addr()
    });
    let before = classes();
    let loader_yaml = BAD_LOADER_YAML.map(|(text, words)| (LOADER_YAML, text, words));
    let other = "/etc/azure-vnet/masq/ip-masq-other";
    let masq = BAD_MASQ_FILES.map(|(text, words)| (other, text, words));
    for (file, text, words) in loader_yaml.into_iter().chain(masq) {
        node.write(file, text).unwrap();
        soon(text, || rejected(node).contains(words[1]));
        says(&rejected(node), file, &words);
        assert_eq!(classes(), before, "{text}");
        let table = node.exec(&["vnetctl", "status"]).unwrap();
        assert!(table.contains("REJECTED    read "), "{table}");
        // The log comes through a pipe, a moment later.
        let told = "configuration rejected; the earlier one stays";
        soon(told, || {
            let log = node.loader().log();
            [told].iter().chain(&words).all(|word| log.contains(word))
        });
        // Each goes away by itself when it is mended.
        let mended = if file == LOADER_YAML { good } else { "" };
        node.write(file, mended).unwrap();
        soon("mended", || rejected(node).is_empty());
    }
    assert_eq!(seen_on_premises(&lab, &pod), node.addr());
}

#[test]
fn a_bad_masq_file_does_not_keep_loader_yaml_from_being_taken_over() {
    let lab = lab("");
    let node = lab.node(1);
    node.write(MASQ_FILE, "nonMasqueradeCIDRs: 5").unwrap();
    soon("rejected", || rejected(node).contains("ip-masq-agent"));
    node.write(LOADER_YAML, "imds: deny").unwrap();
    soon("taken over", || {
        class(node, "169.254.169.254").starts_with("deny")
    });
    assert!(rejected(node).contains("ip-masq-agent"), "still");
}

#[test]
fn default_ports_make_room_for_the_nodes_and_configured_ones_are_refused() {
    let lab = Lab::new().nodes(1).build().unwrap();
    let node = lab.node(1);
    node.sysctl("net.ipv4.ip_local_port_range", "15000 60999")
        .unwrap();
    node.start_loader().unwrap();
    assert_eq!(status(node)["nat_ports"], serde_json::json!([1024, 14_999]));
    assert!(warnings(node).contains("SNAT uses ports 1024-14999 instead of 1024-29999"));
    let pod = node.add_pod("web").unwrap();
    let port = pod.tcp(lab.inet().addr(), 8080).unwrap().peer_addr().port();
    assert!((1024..=14_999).contains(&port), "{port}");

    node.write(LOADER_YAML, "natPorts: 1024-29999").unwrap();
    soon("refused", || {
        rejected(node).contains("`1024-29999` overlaps 15000-60999")
    });
    node.sysctl("net.ipv4.ip_local_reserved_ports", "1024-29999")
        .unwrap();
    node.loader()
        .signal(nix::sys::signal::Signal::SIGHUP)
        .unwrap();
    soon("set aside", || rejected(node).is_empty());
    assert_eq!(status(node)["nat_ports"], serde_json::json!([1024, 29_999]));
}

#[test]
fn what_is_odd_is_accepted_with_a_warning() {
    let lab = lab("serviceCidrs: [10.0.0.0/8]\n");
    let node = lab.node(1);
    assert!(warnings(node).contains("contains the VNet's 10.240.0.0/16"));
    node.write(
        LOADER_YAML,
        "{vnetCidrs: [10.50.0.0/16], directCidrs: [10.50.0.0/16]}",
    )
    .unwrap();
    soon("twice", || {
        warnings(node).contains("directCidrs: 10.50.0.0/16 has no effect")
    });
}

/// Four lists with 256 prefixes each: those of a `set` have nothing in common with another's.
fn long_lists(set: usize) -> String {
    let keys = [
        "vnetCidrs",
        "directCidrs",
        "nonMasqueradeCIDRs",
        "serviceCidrs",
    ];
    let lists = keys.iter().enumerate().map(|(number, key)| {
        let prefixes = (0..256).map(|n| format!("20.{}.{n}.0/24", 4 * set + number));
        format!("{key}: [{}]\n", prefixes.collect::<Vec<_>>().join(", "))
    });
    lists.collect()
}

#[test]
fn more_prefixes_than_the_programs_table_holds_are_refused_and_nothing_of_their_file_is_taken_over()
{
    let lab = lab(&long_lists(0));
    let node = lab.node(1);
    node.ip("link add other0 type bridge\nlink set other0 up\n")
        .unwrap();
    // Each is a rule of its own.
    let addresses = (0..2100).map(|n| format!("10.99.{}.{}/32", n / 250, 1 + n % 250));
    let lines = addresses.map(|address| format!("address add {address} dev other0\n"));
    node.ip(&lines.collect::<String>()).unwrap();
    soon("the addresses", || {
        class(node, "10.99.8.100").starts_with("stack 2 ")
    });
    let other = format!("{}imds: deny\n", long_lists(1));
    node.write(LOADER_YAML, &other).unwrap();
    soon("rejected", || !rejected(node).is_empty());
    says(
        &rejected(node),
        LOADER_YAML,
        &["vnetCidrs", "`1024 prefixes`", "do not fit", "in two steps"],
    );
    assert!(class(node, "20.0.1.1").starts_with("direct 9 vnetCidrs"));
    assert!(class(node, "169.254.169.254").starts_with("snat 4 "));
    node.write(LOADER_YAML, "").unwrap();
    soon("room", || rejected(node).is_empty());
    node.write(LOADER_YAML, &other).unwrap();
    soon("in two steps", || {
        class(node, "20.4.1.1").starts_with("direct 9 vnetCidrs")
    });
    assert_eq!(rejected(node), "");
}
