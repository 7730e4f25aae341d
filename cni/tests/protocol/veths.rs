//! Names of host veths: who gets a pod's, and whose is never taken away.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::exec::{Answer, netconf_with};
use crate::full::{host_veth, node};
use crate::loader::Manner;
use crate::sandbox::Sandbox;

/// printf default.web | sha1sum
const OF_THE_POD: &str = "azv68caf03a5f4";
/// printf azurec1eth0 | sha1sum
const OF_C1: &str = "azvf251a0acaf4";

fn transparent() -> Value {
    netconf_with(json!({"mode": "transparent", "allowNonKubernetes": true}))
}

/// ADD of the container `id`, which lives in the namespace `/run/netns/<id>`.
fn add(sandbox: &Sandbox, id: &str, arguments: &str, conf: &Value) -> Answer {
    let netns = Path::new("/run/netns").join(id);
    if !netns.exists() {
        sandbox.add_netns(id);
    }
    sandbox
        .azure_vnet("ADD")
        .env("CNI_CONTAINERID", id)
        .env("CNI_NETNS", netns)
        .env("CNI_ARGS", arguments)
        .conf(conf)
        .run()
}

const POD: &str = "K8S_POD_NAMESPACE=default;K8S_POD_NAME=web";

/// podman passes the container's name as the pod's, `ctr` and scripts nothing.
#[test]
fn a_container_that_is_called_like_a_pod_does_not_get_its_veths_name() {
    let (sandbox, _loader) = node(Manner::Helpful);
    let before = sandbox.snapshot();
    for (id, arguments) in [
        ("c1", "IgnoreUnknown=1;K8S_POD_NAME=web"),
        ("web", ""),
        ("c3", "K8S_POD_NAMESPACE=default"),
    ] {
        let container = add(&sandbox, id, arguments, &transparent()).document();
        assert_ne!(host_veth(&container), OF_THE_POD, "{arguments}");
        if id == "c1" {
            assert_eq!(host_veth(&container), OF_C1);
        }
    }
    let pod = add(&sandbox, "c2", POD, &transparent()).document();
    assert_eq!(host_veth(&pod), OF_THE_POD);
    for id in ["c1", "web", "c3", "c2"] {
        let del = sandbox.azure_vnet("DEL").env("CNI_CONTAINERID", id);
        del.conf(&transparent()).run().silence();
    }
    assert_eq!(sandbox.snapshot(), before);
}

#[test]
fn a_live_pods_veth_stays_when_its_record_is_lost() {
    let (sandbox, _loader) = node(Manner::Helpful);
    let first = add(&sandbox, "c1", POD, &transparent()).document();
    assert_eq!(host_veth(&first), OF_THE_POD);
    fs::write("/run/azure-vnet/endpoints/azure:c1:eth0.json", "spoilt").unwrap();
    let mac = sandbox.mac(OF_THE_POD);
    let second = add(&sandbox, "c2", POD, &transparent()).document();
    assert_ne!(host_veth(&second), OF_THE_POD);
    assert_eq!(sandbox.mac(OF_THE_POD), mac);
}

/// In a mode with one name only, so that the second owner has nowhere to go.
#[test]
fn who_holds_the_name_is_told_and_what_serves_nobody_gives_way() {
    let (sandbox, _loader) = node(Manner::Helpful);
    sandbox.ip(&format!("link add {OF_C1} type veth peer name other"));
    sandbox.ip(&format!("link set {OF_C1} up"));
    sandbox.ip(&format!("route add 10.240.9.9/32 dev {OF_C1}"));
    let conf = netconf_with(json!({}));
    let before = sandbox.snapshot();
    let owner = format!("{OF_C1} belongs to the pod with 10.240.9.9");
    add(&sandbox, "c1", POD, &conf).error_saying(
        100,
        &[&owner, "delete that pod first", "failed at step `links`"],
    );
    assert_eq!(sandbox.snapshot(), before, "the address is back, too");
    sandbox.ip(&format!("route del 10.240.9.9/32 dev {OF_C1}"));
    let result = add(&sandbox, "c1", POD, &conf).document();
    assert_eq!(host_veth(&result), OF_C1);
}
