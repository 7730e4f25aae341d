//! CHECK, as far as it can be asked without an attachment.

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
