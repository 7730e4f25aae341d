//! Azure's own verbs, as its container networking service (CNS) uses them.

use serde_json::{Value, json};

use crate::exec::{AZURE_VNET, Exec, netconf_with, run_with_open_stdin};
use crate::full::{host_veth, node};
use crate::loader::Manner;
use crate::sandbox::Sandbox;

/// As CNS does it: the verb alone, nothing on standard input, and both outputs taken for the answer.
fn state() -> Value {
    let answer = Exec::bare(AZURE_VNET)
        .env("CNI_COMMAND", "GET_ENDPOINT_STATE")
        .run();
    assert_eq!(answer.stderr, "");
    answer.document()
}

/// Row 8.
#[test]
fn the_endpoint_state_is_what_cns_reads() {
    let (sandbox, _loader) = node(Manner::Helpful);
    assert_eq!(state(), json!({"ContainerInterfaces": {}}));
    let id = "3f813b029429b4e41a09ab33b6f6d365d2ed704017524c78d1d0dece33cdaf46";
    let args = "K8S_POD_NAMESPACE=kube-system;K8S_POD_NAME=metrics-server-77c8679d7d-6ksdh";
    let add = |id: &str, network: &str, netns: &str| {
        let netns = sandbox.add_netns(netns);
        sandbox
            .azure_vnet("ADD")
            .env("CNI_CONTAINERID", id)
            .env("CNI_ARGS", args)
            .env("CNI_NETNS", netns)
            .conf(&netconf_with(json!({"name": network})))
            .run()
            .document();
    };
    add(id, "azure", "one");
    add(id, "other", "two");
    let endpoint = |id: &str, name: &str, ip: &str| {
        json!({
            "PodName": "metrics-server-77c8679d7d-6ksdh", "PodNamespace": "kube-system", "PodEndpointId": name,
            "ContainerID": id, "IPAddresses": [{"IP": ip, "Mask": "//8AAA=="}],
        })
    };
    let first = endpoint(id, "3f813b02-eth0", "10.240.0.5");
    assert_eq!(
        state(),
        json!({"ContainerInterfaces": {"3f813b02-eth0": first}})
    );
    // Two that begin alike are both told; Azure's plug-in loses one.
    add("3f813b02-twin", "azure", "three");
    let told = state();
    assert_eq!(told["ContainerInterfaces"].as_object().unwrap().len(), 2);
}

#[test]
fn the_endpoint_state_does_not_wait_for_standard_input() {
    let _sandbox = Sandbox::new();
    let exec = Exec::bare(AZURE_VNET).env("CNI_COMMAND", "GET_ENDPOINT_STATE");
    let answer = run_with_open_stdin(exec, std::time::Duration::from_secs(5)).unwrap();
    assert_eq!(answer, "{\"ContainerInterfaces\":{}}\n");
}

/// Row 8: without CNS no route ever changes, so that the answer is the attachment as it is.
#[test]
fn an_update_changes_nothing_and_tells_the_attachment() {
    let (sandbox, _loader) = node(Manner::Helpful);
    let update = || sandbox.azure_vnet("UPDATE").unset("CNI_CONTAINERID");
    update()
        .run()
        .error_saying(100, &["Network not found", "azure"]);
    let added = sandbox.azure_vnet("ADD").run().document();
    assert_eq!(host_veth(&added).get(..3), Some("azv"));
    // Whose name two pods have is told by its namespace; this container's record is the first that is read.
    let other = |exec: Exec| exec.env("CNI_ARGS", "K8S_POD_NAMESPACE=other;K8S_POD_NAME=web");
    let namesake = other(sandbox.azure_vnet("ADD"))
        .env("CNI_CONTAINERID", "a1")
        .env("CNI_NETNS", sandbox.add_netns("namesake"))
        .run()
        .document();
    let before = sandbox.snapshot();
    assert_eq!(other(update()).run().document(), namesake);
    assert_eq!(update().run().document(), added);
    // One that is made anew has two sandboxes until the DEL of the old one, which may be the first that is read.
    let anew = |exec: Exec| exec.env("CNI_CONTAINERID", "anew");
    let renewed = anew(sandbox.azure_vnet("ADD"))
        .env("CNI_NETNS", sandbox.add_netns("anew"))
        .run()
        .document();
    for (id, told) in [("anew", &renewed), ("c1", &added), ("a1", &renewed)] {
        let told_of = update().env("CNI_CONTAINERID", id).run().document();
        assert_eq!(told_of, *told, "{id}");
    }
    let of_anew = anew(sandbox.azure_vnet("DEL"));
    of_anew.run().silence();
    update()
        .env("CNI_ARGS", "K8S_POD_NAMESPACE=ns;K8S_POD_NAME=another")
        .run()
        .error_saying(100, &["Endpoint not found", "ns/another"]);
    update()
        .env("CNI_ARGS", "K8S_POD_NAMESPACE=ns")
        .run()
        .error_saying(100, &["Pod Name not specified in CNI Args"]);
    assert_eq!(sandbox.snapshot(), before);
}
