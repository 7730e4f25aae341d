//! Conflists with one fault each.

use super::*;

fn found(text: &str) -> Vec<(usize, &'static str, String)> {
    check(text)
        .into_iter()
        .map(|finding| {
            let severity = match finding.severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
            };
            (
                finding.line,
                severity,
                format!("{}: {}", finding.path, finding.message),
            )
        })
        .collect()
}

/// A list with the first plug-in's `more` keys on line 4 and `ipam` on line 5.
fn list(more: &str, ipam: &str) -> String {
    format!(
        "{{\"cniVersion\": \"0.3.0\",\n\"name\": \"azure\",\n\"plugins\": [{{\"type\": \"azure-vnet\",\n{more}\n\"ipam\": {ipam}}},\n{{\"type\": \"portmap\", \"capabilities\": {{}}}}]}}"
    )
}

const GOOD_IPAM: &str = r#"{"type": "azure-vnet-ipam"}"#;

#[test]
fn the_documented_conflist_is_right() {
    assert_eq!(
        found(include_str!("../../../../deploy/10-azure.conflist")),
        []
    );
    assert_eq!(found(&list("\"MODE\": \"transparent\",", GOOD_IPAM)), []);
    let under_bridge = r#"{"name": "a", "plugins": [{"type": "bridge", "isGateway": true, "ipam": {"type": "azure-vnet-ipam"}}]}"#;
    assert_eq!(found(under_bridge), []);
    // Its mode is not one of ours.
    let under_ipvlan = r#"{"name": "a", "plugins": [{"type": "ipvlan", "mode": "l2", "master": "eth0", "ipam": {"type": "azure-vnet-ipam"}}]}"#;
    assert_eq!(found(under_ipvlan), []);
}

/// A conflist, and the line, the severity and words of what is wrong with it.
type Case = (String, usize, &'static str, Vec<&'static str>);

fn told(cases: Vec<Case>) {
    for (text, line, severity, words) in cases {
        let findings = found(&text);
        let fits = |(at, how, what): &(usize, &str, String)| {
            *at == line && *how == severity && words.iter().all(|word| what.contains(word))
        };
        assert!(
            findings.iter().any(fits),
            "{words:?} of line {line}: {findings:?}\n{text}"
        );
    }
}

#[test]
fn every_fault_of_the_list_is_told_with_its_line_and_key() {
    told(vec![
        (
            list("", "{").replace("}]}", ""),
            6,
            "error",
            vec!["not JSON"],
        ),
        ("[]".into(), 1, "error", vec!["object"]),
        (
            list("", GOOD_IPAM).replace("0.3.0", "0.3.7"),
            1,
            "error",
            vec!["cniVersion", "0.3.7"],
        ),
        (
            list("", GOOD_IPAM).replace("\"azure\"", "\"../x\""),
            2,
            "error",
            vec!["name", "../x"],
        ),
        (
            list("", GOOD_IPAM).replace("\"plugins\"", "\"plugin\""),
            1,
            "error",
            vec!["`plugins` is missing"],
        ),
        (
            list("", r#"{"type": "host-local"}"#).replace("azure-vnet\",", "bridge\","),
            3,
            "error",
            vec!["bridge", "azure-vnet"],
        ),
        (
            list("", GOOD_IPAM).replace("portmap", "azure-vnet"),
            6,
            "error",
            vec!["must be first"],
        ),
        (
            list("", GOOD_IPAM).replace("portmap", "../x"),
            6,
            "error",
            vec!["plugins.1.type", "../x"],
        ),
    ]);
}

#[test]
fn every_fault_of_our_plugin_is_told_with_its_line_and_key() {
    told(vec![
        (
            list("\"mode\": \"l2bridge\",", GOOD_IPAM),
            4,
            "error",
            vec!["plugins.0.mode", "l2bridge"],
        ),
        (
            list("\"mode\": 5,", GOOD_IPAM),
            4,
            "error",
            vec!["plugins.0.mode", "string"],
        ),
        (
            list("\"multiTenancy\": true,", GOOD_IPAM),
            4,
            "error",
            vec!["multiTenancy", "not supported"],
        ),
        (
            list("\"executionMode\": \"baremetal\",", GOOD_IPAM),
            4,
            "error",
            vec!["executionMode", "baremetal"],
        ),
        (
            list("", r#"{"type": "azure-cns"}"#),
            5,
            "error",
            vec!["ipam.type", "azure-cns"],
        ),
        (list("", "{}"), 5, "error", vec!["ipam.type", "missing"]),
        (
            list(
                "",
                r#"{"type": "azure-vnet-ipam", "subnet": "10.0.0.0/99"}"#,
            ),
            5,
            "error",
            vec!["ipam.subnet", "/99"],
        ),
        (
            list("\"mdoe\": \"bridge\",", GOOD_IPAM),
            4,
            "warning",
            vec!["mdoe", "did you mean `mode`?"],
        ),
        (
            list("", r#"{"type": "azure-vnet-ipam", "subnets": ""}"#),
            5,
            "warning",
            vec!["plugins.0.ipam.subnets", "`subnet`?"],
        ),
        (
            list("\"zzzzzzzzzzzz\": 1,", GOOD_IPAM),
            4,
            "warning",
            vec!["unknown key `zzzzzzzzzzzz`, which is ignored"],
        ),
        (
            list("\"serviceCidrs\": \"10.0.0.0/16\",", GOOD_IPAM),
            4,
            "warning",
            vec!["loader.yaml"],
        ),
        (
            list("", GOOD_IPAM)
                .replace("\"name\"", "\"cniVersions\": [\"0.3.0\", \"7\"], \"name\""),
            2,
            "error",
            vec!["cniVersions", "`7`"],
        ),
    ]);
}

#[test]
fn a_plugin_whose_limits_would_not_be_met_is_told() {
    let after = |main: &str| {
        format!(
            "{{\"name\": \"a\", \"plugins\": [{{\"type\": \"{main}\", \"ipam\": {GOOD_IPAM}}},\n{{\"type\": \"bandwidth\"}}]}}"
        )
    };
    told(vec![(
        after("azure-vnet"),
        2,
        "warning",
        vec!["bandwidth cannot limit", "remove it"],
    )]);
    assert_eq!(found(&after("bridge")), [], "its host veth is its own");
}

#[test]
fn a_capability_that_brings_limits_to_our_plugin_is_told() {
    let with = |capabilities: &str| list(&format!("\"capabilities\": {capabilities},"), GOOD_IPAM);
    told(vec![(
        with(r#"{"ips": true, "Bandwidth": true}"#),
        4,
        "warning",
        vec![
            "plugins.0.capabilities.bandwidth",
            "ADD refuses them",
            "remove the capability",
        ],
    )]);
    for harmless in [r#"{"ips": true, "bandwidth": false}"#, "{}", "null"] {
        assert_eq!(found(&with(harmless)), [], "{harmless}");
    }
}

#[test]
fn several_faults_are_all_told() {
    let bad = list(
        "\"multiTenancy\": true, \"mode\": 5,",
        r#"{"type": "azure-cns"}"#,
    );
    let findings = found(&bad.replace("0.3.0", "9"));
    assert_eq!(findings.len(), 4, "{findings:?}");
    for key in ["cniVersion", "multiTenancy", "mode", "ipam.type"] {
        assert!(
            findings.iter().any(|(_, _, what)| what.contains(key)),
            "{key}: {findings:?}"
        );
    }
}

proptest::proptest! {
    #[test]
    fn no_text_panics(text in "[\\[\\]{}\",:a-z0-9 ]{0,60}") {
        check(&text);
    }
}
