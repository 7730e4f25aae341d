//! What a configuration and a runtime may ask for, and what the result then says.

use std::fs;

use serde_json::{Value, json};

use crate::exec::{Exec, netconf_with};
use crate::full::{host_veth, node};
use crate::loader::Manner;
use crate::sandbox::Sandbox;

fn add(sandbox: &Sandbox, changes: Value) -> Exec {
    sandbox.azure_vnet("ADD").conf(&netconf_with(changes))
}

/// Row 47 and F97, in every version: the configuration's replaces the IPAM plug-in's, the runtime's goes over both.
#[test]
fn dns_of_the_configuration_and_of_the_runtime_are_in_the_result() {
    let (sandbox, _loader) = node(Manner::Helpful);
    let containerd = json!({"dns": {"Servers": ["10.0.0.10"], "Searches": ["svc.cluster.local"], "Options": ["ndots:5"]}});
    for version in [
        "0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0",
    ] {
        for (changes, dns) in [
            (
                json!({"dns": {}}),
                json!({"nameservers": ["168.63.129.16"]}),
            ),
            (
                json!({"dns": {"nameservers": ["1.1.1.1"], "search": ["a"]}}),
                json!({"nameservers": ["1.1.1.1"], "search": ["a"]}),
            ),
            (
                json!({"dns": {"nameservers": ["1.1.1.1"], "domain": "d"}, "runtimeConfig": containerd}),
                json!({"nameservers": ["10.0.0.10"], "domain": "d", "search": ["svc.cluster.local"], "options": ["ndots:5"]}),
            ),
        ] {
            let mut changes = changes;
            changes["cniVersion"] = version.into();
            let result = add(&sandbox, changes).run().document();
            assert_eq!(result["dns"], dns, "{version}");
            sandbox.azure_vnet("DEL").run().silence();
        }
    }
    add(&sandbox, json!({"dns": {"nameservers": ["ns.example"]}}))
        .run()
        .error_saying(7, &["dns.nameservers", "ns.example", "IP addresses"]);
}

/// Row 60 and podman's way: the runtime's word goes before `CNI_ARGS`.
#[test]
fn the_ethernet_address_that_is_asked_for_is_the_pods() {
    let (sandbox, _loader) = node(Manner::Helpful);
    let args = "K8S_POD_NAMESPACE=ns;K8S_POD_NAME=web;MAC=02:00:00:00:00:77";
    for (runtime, mac) in [
        (json!({}), "02:00:00:00:00:77"),
        (json!({"mac": "02:00:00:00:00:88"}), "02:00:00:00:00:88"),
        (json!({"MAC": "0200000000AA"}), "02:00:00:00:00:aa"),
    ] {
        let result = add(&sandbox, json!({"runtimeConfig": runtime}))
            .env("CNI_ARGS", args)
            .run()
            .document();
        assert_eq!(result["interfaces"][0]["mac"], mac);
        assert_eq!(sandbox.mac_in_pod("eth0"), mac);
        sandbox.azure_vnet("DEL").run().silence();
    }
}

/// Row 60: a limit that would not be met.
#[test]
fn limits_of_bandwidth_are_refused() {
    let sandbox = Sandbox::with_pod();
    let before = sandbox.snapshot();
    for (limits, code, words) in [
        (
            json!({"IngressRate": 1, "IngressBurst": 1}),
            2,
            ["ingressRate=`1`", "limits no bandwidth"],
        ),
        (
            json!({"ingressRate": 0, "egressRate": 8000}),
            2,
            ["egressRate=`8000`", "limits no bandwidth"],
        ),
        (json!({"ingressRate": "1M"}), 7, ["ingressRate", "number"]),
        (json!(8000), 7, ["bandwidth", "object"]),
    ] {
        add(&sandbox, json!({"runtimeConfig": {"Bandwidth": limits}}))
            .run()
            .error_saying(code, &words);
    }
    assert_eq!(sandbox.snapshot(), before);
}

/// Row 60: a runtime may hand over limits that are none.
#[test]
fn limits_of_bandwidth_that_limit_nothing_are_fine() {
    let (sandbox, _loader) = node(Manner::Helpful);
    for limits in [
        json!({}),
        json!(null),
        json!({"ingressRate": 0, "ingressBurst": 0, "egressRate": 0, "egressBurst": 0}),
        json!({"IngressRate": null, "egressRate": 0.0}),
        json!({"ingressBurst": 12800}),
    ] {
        let changes = json!({"cniVersion": "1.0.0", "runtimeConfig": {"bandwidth": limits}});
        let result = add(&sandbox, changes.clone()).run().document();
        let mut check = netconf_with(changes);
        check["prevResult"] = result;
        sandbox.azure_vnet("CHECK").conf(&check).run().silence();
        sandbox.azure_vnet("DEL").run().silence();
    }
}

/// Row 59 through both plug-ins: the address that the runtime asks for.
#[test]
fn the_address_that_is_asked_for_is_the_pods() {
    let (sandbox, _loader) = node(Manner::Helpful);
    for (exec, address) in [
        (
            add(
                &sandbox,
                json!({"runtimeConfig": {"ips": ["10.240.0.70/16"]}}),
            ),
            "10.240.0.70/16",
        ),
        (
            add(&sandbox, json!({"args": {"cni": {"ips": ["10.240.0.73"]}}})),
            "10.240.0.73/16",
        ),
        (
            add(&sandbox, json!({})).env(
                "CNI_ARGS",
                "K8S_POD_NAMESPACE=ns;K8S_POD_NAME=web;IP=10.240.0.71",
            ),
            "10.240.0.71/16",
        ),
        (
            add(
                &sandbox,
                json!({"ipam": {"type": "azure-vnet-ipam", "ipAddress": "10.240.0.72"}}),
            ),
            "10.240.0.72/16",
        ),
    ] {
        let result = exec.run().document();
        assert_eq!(result["ips"][0]["address"], address);
        sandbox.azure_vnet("DEL").run().silence();
    }
}

/// Row 40: a result of another version, and a huge one, of the addresses of others.
#[test]
fn a_previous_result_of_any_version_and_size_is_read() {
    let (sandbox, _loader) = node(Manner::Helpful);
    let many: Vec<Value> = (0..10_000)
        .map(|n| json!({"address": format!("10.9.{}.{}/16", n / 250, n % 250 + 1)}))
        .collect();
    for previous in [
        json!({"cniVersion": "0.2.0", "ip4": {"ip": "10.9.0.1/16"}}),
        json!({"cniVersion": "1.1.0", "ips": [{"address": "10.9.0.1/16", "interface": 7}]}),
        json!({"cniVersion": "1.0.0", "ips": many}),
    ] {
        add(&sandbox, json!({"prevResult": previous}))
            .run()
            .document();
        sandbox.azure_vnet("DEL").run().silence();
    }
}

/// Row 68: what DEL is told of a result does not count; what is recorded does.
#[test]
fn del_does_not_believe_prev_result() {
    let (sandbox, _loader) = node(Manner::Helpful);
    let other = add(&sandbox, json!({}))
        .env("CNI_CONTAINERID", "other")
        .env("CNI_NETNS", sandbox.add_netns("other"))
        .run()
        .document();
    let before = sandbox.snapshot();
    for previous in [
        other.clone(),
        json!({"cniVersion": "0.2.0", "ip4": {"ip": "10.240.0.5/16"}}),
        json!({"ips": "nonsense"}),
        json!(7),
    ] {
        add(&sandbox, json!({})).run().document();
        let conf = netconf_with(json!({"cniVersion": "1.0.0", "prevResult": previous}));
        sandbox.azure_vnet("DEL").conf(&conf).run().silence();
        assert_eq!(sandbox.snapshot(), before, "{previous}");
    }
    assert!(
        fs::read_to_string("/proc/thread-self/net/dev")
            .unwrap()
            .contains(host_veth(&other))
    );
}

/// Row 98.
#[test]
fn two_networks_with_the_same_container_and_interface_are_apart() {
    let (sandbox, _loader) = node(Manner::Helpful);
    let second = sandbox.add_netns("second");
    let before = sandbox.snapshot();
    let conf = |name: &str| netconf_with(json!({"name": name}));
    let one = sandbox
        .azure_vnet("ADD")
        .conf(&conf("one"))
        .run()
        .document();
    let two = sandbox
        .azure_vnet("ADD")
        .env("CNI_NETNS", &second)
        .conf(&conf("two"))
        .run()
        .document();
    assert_ne!(one["ips"], two["ips"]);
    assert_ne!(host_veth(&one), host_veth(&two));
    sandbox.azure_vnet("DEL").conf(&conf("two")).run().silence();
    assert_eq!(
        sandbox
            .azure_vnet("ADD")
            .conf(&conf("one"))
            .run()
            .document(),
        one
    );
    sandbox.azure_vnet("DEL").conf(&conf("one")).run().silence();
    assert_eq!(sandbox.snapshot(), before);
}

/// Row 15.
#[test]
fn an_interface_name_may_have_fifteen_letters() {
    let (sandbox, _loader) = node(Manner::Helpful);
    let name = "abcdefghijklmno";
    let result = add(&sandbox, json!({}))
        .env("CNI_IFNAME", name)
        .run()
        .document();
    assert_eq!(result["interfaces"][0]["name"], name);
    assert_eq!(
        sandbox.mac_in_pod(name),
        result["interfaces"][0]["mac"].as_str().unwrap()
    );
}
