//! Rows of the table by example.

use rpc::{Interface, MacAddr, NodeView, Subnet};

use super::*;

pub(crate) fn node() -> Node {
    Node {
        gateway: None,
        next_hops: None,
        nic: NodeView {
            nic: "eth0".into(),
            nic_ifindex: 2,
            nic_mac: MacAddr([0, 13, 58, 0, 0, 1]),
            mtu: 1500,
            primary: Ipv4Addr::new(10, 240, 0, 4),
        },
        connected: vec!["10.240.0.0/16".parse().unwrap()],
        elsewhere: vec!["172.17.0.0/16".parse().unwrap()],
        addresses: vec![Ipv4Addr::LOCALHOST, Ipv4Addr::new(10, 240, 0, 4)],
        interfaces: Vec::new(),
    }
}

pub(crate) fn pools(prefix: Ipv4Net) -> Pools {
    Pools {
        boot_id: String::new(),
        source: "wireserver".into(),
        read_at_ms: 0,
        interfaces: vec![Interface {
            name: "eth0".into(),
            mac: MacAddr([0; 6]),
            is_primary: true,
            subnets: vec![Subnet {
                prefix,
                primary: None,
                secondary: Vec::new(),
            }],
        }],
    }
}

fn config(yaml: &str) -> Config {
    Config::parse(Path::new(LOADER_CONFIG), yaml).unwrap()
}

fn masq(prefixes: &[&str], link_local: bool) -> Masq {
    let file = PathBuf::from("/etc/azure-vnet/masq/ip-masq-agent");
    Masq {
        prefixes: prefixes
            .iter()
            .map(|text| (text.parse().unwrap(), file.clone()))
            .collect(),
        link_local: link_local.then(|| file.clone()),
        files: vec![file],
        warnings: Vec::new(),
    }
}

/// The rules of [`node`] with this loader.yaml, without a wireserver.
fn rules(yaml: &str, masq: &Masq) -> Vec<Rule> {
    let (config, node) = (config(yaml), node());
    classify(Inputs {
        config: &config,
        masq,
        node: &node,
        pools: None,
    })
}

/// What the kernel's trie answers.
pub(crate) fn rule(rules: &[Rule], addr: Ipv4Addr) -> &Rule {
    rules
        .iter()
        .find(|rule| rule.prefix.contains(&addr))
        .unwrap()
}

fn class(rules: &[Rule], addr: &str) -> (Class, bool) {
    let rule = rule(rules, addr.parse().unwrap());
    (rule.class, rule.masquerade)
}

#[test]
fn nothing_configured_is_safe() {
    let (config, node) = (Config::default(), node());
    let pools = pools("10.241.0.0/16".parse().unwrap());
    let rules = classify(Inputs {
        config: &config,
        masq: &Masq::default(),
        node: &node,
        pools: Some(&pools),
    });
    for (addr, expected) in [
        ("10.240.0.4", (Class::Stack, false)),
        ("127.0.0.1", (Class::Stack, false)),
        ("168.63.129.16", (Class::Wireserver, false)),
        ("169.254.169.254", (Class::Snat, true)),
        ("169.254.20.10", (Class::Stack, false)),
        ("224.0.0.251", (Class::Stack, false)),
        ("255.255.255.255", (Class::Stack, false)),
        ("10.240.7.7", (Class::Direct, false)),
        ("10.241.7.7", (Class::Direct, false)),
        ("10.0.0.1", (Class::Stack, false)),
        ("172.16.0.1", (Class::Stack, false)),
        ("100.64.0.1", (Class::Stack, true)),
        ("8.8.8.8", (Class::Snat, true)),
    ] {
        assert_eq!(class(&rules, addr), expected, "{addr}");
    }
}

#[test]
fn a_subnet_names_the_source_that_told_it() {
    let prefix: Ipv4Net = "10.240.0.0/16".parse().unwrap();
    for (source, why) in [
        ("wireserver", "subnet told by the wireserver"),
        ("imds", "subnet told by IMDS"),
    ] {
        let told = Pools {
            source: source.into(),
            ..pools(prefix)
        };
        let (config, node) = (config(""), node());
        let rules = classify(Inputs {
            config: &config,
            masq: &masq(&[], false),
            node: &node,
            pools: Some(&told),
        });
        let rule = rule(&rules, Ipv4Addr::new(10, 240, 3, 4));
        assert_eq!(rule.why.text, why);
    }
}

#[test]
fn known_services_make_the_rest_fast() {
    let rules = rules("serviceCidrs: [10.0.0.0/16]", &Masq::default());
    assert_eq!(class(&rules, "10.0.0.10"), (Class::Stack, false));
    assert_eq!(class(&rules, "10.1.0.10"), (Class::Direct, false));
    assert_eq!(class(&rules, "100.64.0.1"), (Class::Snat, true));
}

#[test]
fn what_the_node_reaches_by_another_interface_is_the_kernels() {
    let none = Masq::default();
    let known = rules("serviceCidrs: [10.0.0.0/16]", &none);
    assert_eq!(class(&known, "172.17.0.2"), (Class::Stack, false));
    assert_eq!(class(&known, "172.18.0.2"), (Class::Direct, false));
    let wider = rules("vnetCidrs: [172.16.0.0/12]", &none);
    assert_eq!(class(&wider, "172.17.0.2"), (Class::Stack, false));
    // Another NIC of the VM is in a subnet of the VNet, which the fabric reaches from every NIC.
    let (config, node, pools) = (
        Config::default(),
        node(),
        pools("172.17.0.0/16".parse().unwrap()),
    );
    let told = classify(Inputs {
        config: &config,
        masq: &none,
        node: &node,
        pools: Some(&pools),
    });
    assert_eq!(class(&told, "172.17.0.2"), (Class::Direct, false));
}

#[test]
fn a_service_range_inside_the_vnet_still_reaches_kube_proxy() {
    let rules = rules(
        "{serviceCidrs: [10.0.0.0/16], vnetCidrs: [10.0.0.0/8]}",
        &Masq::default(),
    );
    assert_eq!(class(&rules, "10.0.0.10").0, Class::Stack);
    assert_eq!(class(&rules, "10.9.0.10").0, Class::Direct);
}

#[test]
fn an_empty_non_masquerade_list_masquerades_private_ranges_through_the_kernel() {
    let rules = rules("nonMasqueradeCIDRs: []", &Masq::default());
    assert_eq!(class(&rules, "172.16.0.1"), (Class::Stack, true));
    assert_eq!(class(&rules, "10.240.9.9"), (Class::Direct, false));
}

#[test]
fn lists_of_loader_yaml_and_of_masq_files_are_united_and_each_rule_names_its_file() {
    let rules = rules(
        "{nonMasqueradeCIDRs: [172.16.0.0/12], serviceCidrs: [10.0.0.0/16]}",
        &masq(&["192.168.0.0/16"], false),
    );
    for (addr, expected, file) in [
        ("172.18.0.1", (Class::Direct, false), Some(LOADER_CONFIG)),
        (
            "192.168.0.4",
            (Class::Direct, false),
            Some("/etc/azure-vnet/masq/ip-masq-agent"),
        ),
        ("10.9.0.1", (Class::Snat, true), None),
    ] {
        assert_eq!(class(&rules, addr), expected, "{addr}");
        let why = &rule(&rules, addr.parse().unwrap()).why;
        assert_eq!(why.file.as_deref(), file.map(Path::new), "{addr}");
    }
}

#[test]
fn link_local_is_masqueraded_when_a_file_wants_it_and_by_the_kernel_only() {
    let off = rules("", &masq(&[], false));
    assert_eq!(class(&off, "169.254.10.10"), (Class::Stack, false));
    for on in [
        rules("", &masq(&[], true)),
        rules("masqLinkLocal: true", &Masq::default()),
    ] {
        assert_eq!(class(&on, "169.254.10.10"), (Class::Stack, true));
        assert_eq!(class(&on, "169.254.169.254"), (Class::Snat, true));
        assert_eq!(class(&on, "127.0.0.1"), (Class::Stack, false));
    }
}

#[test]
fn a_list_excepts_link_local_destinations_from_masquerading() {
    let part = rules("", &masq(&["169.254.0.0/17"], true));
    assert_eq!(class(&part, "169.254.10.10"), (Class::Stack, false));
    assert_eq!(class(&part, "169.254.200.1"), (Class::Stack, true));
    let whole = rules("", &masq(&["128.0.0.0/1"], true));
    assert_eq!(class(&whole, "169.254.10.10"), (Class::Stack, false));
}

#[test]
fn imds_can_be_denied() {
    let denied = rules("imds: deny", &Masq::default());
    assert_eq!(class(&denied, "169.254.169.254").0, Class::Deny);
}

#[test]
fn what_is_odd_is_told() {
    let node = Node {
        gateway: Some(Ipv4Addr::new(10, 240, 0, 1)),
        ..node()
    };
    let odd = |yaml: &str| {
        let config = config(yaml);
        oddities(Inputs {
            config: &config,
            masq: &Masq::default(),
            node: &node,
            pools: None,
        })
    };
    for usual in ["vnetCidrs: [10.0.0.0/8]", "denyCidrs: [10.240.7.0/24]"] {
        assert_eq!(odd(usual), Vec::<String>::new());
    }
    for (yaml, words) in [
        (
            "serviceCidrs: [10.0.0.0/8]",
            ["10.0.0.0/8", "contains the VNet's 10.240.0.0/16"],
        ),
        (
            "directCidrs: [172.17.5.0/24]",
            ["172.17.5.0/24", "another interface"],
        ),
        (
            "{vnetCidrs: [10.50.0.0/16], directCidrs: [10.50.0.0/16]}",
            ["directCidrs", "vnetCidrs"],
        ),
        (
            "vnetCidrs: [0.0.0.0/0]",
            ["vnetCidrs: 0.0.0.0/0", "nothing is translated"],
        ),
        (
            "directCidrs: [0.0.0.0/0]",
            ["directCidrs: 0.0.0.0/0", "nothing is translated"],
        ),
        (
            "denyCidrs: [10.240.0.0/15]",
            [
                "denyCidrs: 10.240.0.0/15",
                "contains the VNet's 10.240.0.0/16",
            ],
        ),
        (
            "denyCidrs: [10.240.0.0/30]",
            [
                "denyCidrs: 10.240.0.0/30",
                "contains the gateway 10.240.0.1",
            ],
        ),
    ] {
        let told = odd(yaml).join("\n");
        assert!(
            words.iter().all(|word| told.contains(word)),
            "{yaml}: {told}"
        );
    }
}
