//! CHECK: when it is refused, and what it looks for.

use serde_json::json;

use crate::exec::netconf_with;
use crate::full::node;
use crate::loader::{Loader, Manner};
use crate::sandbox::Sandbox;

/// Row 77.
#[test]
fn check_does_not_exist_before_0_4_0() {
    let sandbox = Sandbox::with_pod();
    for version in ["0.1.0", "0.2.0", "0.3.0", "0.3.1"] {
        let conf = netconf_with(json!({"cniVersion": version, "prevResult": {"ips": []}}));
        sandbox
            .azure_vnet("CHECK")
            .conf(&conf)
            .run()
            .error_saying(1, &[version]);
        sandbox
            .ipam("CHECK")
            .conf(&conf)
            .run()
            .error_saying(1, &[version]);
    }
}

/// Row 78.
#[test]
fn check_needs_the_result_of_add() {
    let sandbox = Sandbox::with_pod();
    for version in ["0.4.0", "1.0.0", "1.1.0"] {
        let conf = netconf_with(json!({"cniVersion": version}));
        sandbox
            .azure_vnet("CHECK")
            .conf(&conf)
            .run()
            .error_saying(7, &["prevResult", "failed at step `validate`"]);
        sandbox
            .ipam("CHECK")
            .conf(&conf)
            .run()
            .error_saying(7, &["prevResult"]);
    }
}

#[test]
fn check_of_what_was_never_added_names_the_record_and_the_reservation() {
    let sandbox = Sandbox::with_pod();
    let _loader = Loader::start(Manner::Helpful);
    let conf = netconf_with(
        json!({"cniVersion": "1.0.0", "prevResult": {"ips": [{"address": "10.240.0.5/16"}]}}),
    );
    sandbox.azure_vnet("CHECK").conf(&conf).run().error_saying(
        105,
        &[
            "endpoint record of azure/c1/eth0",
            "IPAM's reservation",
            "failed at step `verdict`",
        ],
    );
}

/// Row 79: CRI-O asks after every ADD.
#[test]
fn check_right_after_add_finds_nothing_missing() {
    let (sandbox, _loader) = node(Manner::Helpful);
    for round in 0..60 {
        let version = ["0.4.0", "1.0.0", "1.1.0"][round % 3];
        let conf = netconf_with(json!({"cniVersion": version}));
        let result = sandbox.azure_vnet("ADD").conf(&conf).run().document();
        let conf = netconf_with(json!({"cniVersion": version, "prevResult": result}));
        sandbox.azure_vnet("CHECK").conf(&conf).run().silence();
        sandbox.azure_vnet("DEL").conf(&conf).run().silence();
    }
}

/// Row 52: without its rule, what comes from the second interface's address would leave by the first, which takes no other source.
#[test]
fn a_second_interface_needs_its_rule_which_goes_with_it() {
    let (sandbox, loader) = node(Manner::Helpful);
    let version = json!({"cniVersion": "1.0.0"});
    let second = |verb, changes| {
        let call = sandbox.azure_vnet(verb).env("CNI_IFNAME", "net1");
        call.conf(&netconf_with(changes)).run()
    };
    sandbox.azure_vnet("ADD").run().document();
    let result = second("ADD", version.clone()).document();
    let check = || {
        second(
            "CHECK",
            json!({"cniVersion": "1.0.0", "prevResult": &result}),
        )
    };
    check().silence();
    let rules = || sandbox.ip_in_pod("rule show");
    let before = rules();
    assert!(before.contains("from 10.240.0.6 lookup"), "{before}");
    sandbox.ip_in_pod("rule del from 10.240.0.6");
    check().error_saying(105, &["rule from 10.240.0.6 lookup"]);
    second("DEL", version.clone()).silence();

    let clean = rules();
    assert!(!clean.contains("10.240.0."), "{clean}");
    second("ADD", version.clone()).document();
    assert_ne!(rules(), clean);
    second("DEL", version.clone()).silence();
    assert_eq!(rules(), clean);
    // Nor does an ADD that fails leave one.
    drop(loader);
    let _refusing = Loader::start(Manner::Refusing);
    second("ADD", version).error_saying(11, &["failed at step `register`"]);
    assert_eq!(rules(), clean);
}
