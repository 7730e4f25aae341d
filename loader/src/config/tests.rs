//! What is accepted, what is refused, and how that is said.

use super::*;

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(Path::new("loader.yaml"), text).map_err(|error| error.to_string())
}

#[test]
fn an_empty_file_and_no_file_are_defaults() {
    assert_eq!(parse("").unwrap(), Config::default());
    assert_eq!(parse("# nothing\nvnetCidrs:\n").unwrap(), Config::default());
    assert_eq!(
        Config::load(Path::new("/nonexistent/loader.yaml")).unwrap(),
        Config::default()
    );
}

#[test]
fn yaml_and_json_say_the_same() {
    let yaml =
        parse("nic: eth1\nvnetCidrs:\n- 10.0.0.0/8\nimds: deny\nnatPorts: 2000-2999\n").unwrap();
    let json =
        parse(r#"{"nic":"eth1","vnetCidrs":["10.0.0.0/8"],"imds":"deny","natPorts":"2000-2999"}"#)
            .unwrap();
    assert_eq!(yaml, json);
    assert_eq!(yaml.nat_ports.unwrap().count(), 1000);
}

#[test]
fn an_unknown_key_names_the_nearest_known_one() {
    for (typo, meant) in [
        ("nonMasqueradeCidr", "nonMasqueradeCIDRs"),
        ("vnetCIDR", "vnetCidrs"),
        ("blockwireserver", "blockWireserver"),
    ] {
        let error = parse(&format!("{typo}: []")).unwrap_err();
        assert!(
            error.contains(&format!("did you mean `{meant}`")),
            "{error}"
        );
    }
}

#[test]
fn what_cannot_be_meant_is_refused_with_file_key_value_and_remedy() {
    for (text, words) in [
        ("nic: [1]", ["nic", "`- 1`", "eth0"]),
        (
            "vnetCidrs: 10.0.0.0/8",
            ["vnetCidrs", "`10.0.0.0/8`", "[10.0.0.0/16]"],
        ),
        ("vnetCidrs: [10]", ["vnetCidrs", "`10`", "[10.0.0.0/16]"]),
        (
            "vnetCidrs: [10.0.0.0/33]",
            ["vnetCidrs", "`10.0.0.0/33`", "10.0.0.0/16"],
        ),
        (
            "directCidrs: [\"fd00::/64\"]",
            ["directCidrs", "`fd00::/64`", "10.0.0.0/16"],
        ),
        (
            "serviceCidrs: [10.0.0.1/16]",
            ["serviceCidrs", "`10.0.0.1/16`", "write 10.0.0.0/16"],
        ),
        ("imds: maybe", ["imds", "`maybe`", "write snat or deny"]),
        ("imds: true", ["imds", "`true`", "write snat or deny"]),
        (
            "blockWireserver: yes",
            ["blockWireserver", "`yes`", "write true or false"],
        ),
        (
            "masqLinkLocal: 1",
            ["masqLinkLocal", "`1`", "write true or false"],
        ),
        ("xdp: on", ["xdp", "`on`", "write off or guard"]),
        (
            "denyCidrs: [0.0.0.0/0]",
            [
                "denyCidrs",
                "`0.0.0.0/0` contains 168.63.129.16",
                "leave it out",
            ],
        ),
        (
            "denyCidrs: [169.254.0.0/16]",
            ["denyCidrs", "contains 169.254.169.254", "leave it out"],
        ),
        ("metrics: 9655", ["metrics", "`9655`", "127.0.0.1:9655"]),
        (
            "metrics: localhost:9655",
            ["metrics", "`localhost:9655`", "127.0.0.1:9655"],
        ),
        (
            "datapath: slow",
            ["datapath", "`slow`", "write fast or stack"],
        ),
        ("natPorts: 80-90", ["natPorts", "`80-90`", "1024-29999"]),
        ("natPorts: 5000", ["natPorts", "`5000`", "1024-29999"]),
        ("natPortsPerPod: 0", ["natPortsPerPod", "`0`", "1 to 65535"]),
        ("flowsMax: 1000", ["flowsMax", "`1000`", "1024 to 1048576"]),
        ("snatMax: '4096'", ["snatMax", "4096", "without quotes"]),
        (
            "vnetCidrs: [10.1.0.0/16, 10.0.0.0/8]",
            [
                "vnetCidrs",
                "`10.1.0.0/16` lies in 10.0.0.0/8",
                "take one of the two out",
            ],
        ),
        (
            "directCidrs: [10.1.0.0/16, 10.1.0.0/16]",
            ["directCidrs", "`10.1.0.0/16`", "take one of the two out"],
        ),
        (
            "{serviceCidrs: [10.0.0.0/16], directCidrs: [10.0.0.0/16]}",
            [
                "directCidrs",
                "`10.0.0.0/16` lies in `serviceCidrs` 10.0.0.0/16",
                "take it out",
            ],
        ),
        (
            "{serviceCidrs: [10.0.0.0/8], vnetCidrs: [10.9.0.0/16]}",
            [
                "vnetCidrs",
                "`10.9.0.0/16` lies in `serviceCidrs` 10.0.0.0/8",
                "take it out",
            ],
        ),
        (
            "directCidrs: [169.254.20.10/32]",
            ["directCidrs", "`169.254.20.10/32`", "take it out"],
        ),
    ] {
        let error = parse(text).unwrap_err();
        for word in ["loader.yaml"].iter().chain(&words) {
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}

#[test]
fn what_is_merely_wide_is_accepted() {
    for text in [
        "{serviceCidrs: [10.0.0.0/16], vnetCidrs: [10.0.0.0/8]}",
        "{serviceCidrs: [10.0.0.0/16], nonMasqueradeCIDRs: [10.0.0.0/16]}",
        "directCidrs: [0.0.0.0/0]",
        "nonMasqueradeCIDRs: [169.254.0.0/17]",
    ] {
        assert!(parse(text).is_ok(), "{text}");
    }
}

#[test]
fn ports_that_the_node_needs_are_refused_when_configured() {
    let node = PortUses {
        ephemeral: "32768-60999".parse().ok(),
        reserved: Vec::new(),
    };
    let ports = |text: &str| parse(text).unwrap().ports(Path::new("loader.yaml"), &node);
    assert_eq!(ports("").unwrap(), ("1024-29999".parse().unwrap(), None));
    let error = ports("natPorts: 20000-40000").unwrap_err().to_string();
    for word in [
        "loader.yaml",
        "natPorts",
        "`20000-40000`",
        "30000-32767",
        "1024-29999",
    ] {
        assert!(error.contains(word), "{error}");
    }
}
