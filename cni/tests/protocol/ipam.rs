//! `azure-vnet-ipam`, under no main plug-in.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::exec::netconf_with;
use crate::loader::{Loader, Manner};
use crate::sandbox::Sandbox;

fn address(answer: &Value) -> &str {
    answer["ips"][0]["address"].as_str().unwrap()
}

/// Rows 41 to 43, 45 and 58.
#[test]
fn add_prints_the_abbreviated_result_of_exactly_that_version() {
    let sandbox = Sandbox::with_pod();
    sandbox.cache_pools(&[5, 6]);
    let routes = json!([{"dst": "0.0.0.0/0", "gw": "10.240.0.1"}]);
    let dns = json!({"nameservers": ["168.63.129.16"]});
    let legacy = json!({"ip4": {"ip": "10.240.0.5/16", "gateway": "10.240.0.1", "routes": routes}, "dns": dns});
    let plain = json!({"ips": [{"address": "10.240.0.5/16", "gateway": "10.240.0.1"}], "routes": routes, "dns": dns});
    let mut versioned = plain.clone();
    versioned["ips"][0]["version"] = "4".into();
    for (version, wanted) in [
        ("0.1.0", &legacy),
        ("0.2.0", &legacy),
        ("0.3.0", &versioned),
        ("0.3.1", &versioned),
        ("0.4.0", &versioned),
        ("1.0.0", &plain),
        ("1.1.0", &plain),
    ] {
        let mut wanted = wanted.clone();
        wanted["cniVersion"] = version.into();
        let conf = netconf_with(json!({"cniVersion": version}));
        assert_eq!(sandbox.ipam("ADD").conf(&conf).run().document(), wanted);
    }
}

#[test]
fn an_owner_is_the_network_the_container_and_the_interface() {
    let sandbox = Sandbox::with_pod();
    sandbox.cache_pools(&[5, 6, 7, 8]);
    let other_network = netconf_with(json!({"name": "other"}));
    let first = sandbox.ipam("ADD").run().document();
    let others = [
        sandbox
            .ipam("ADD")
            .env("CNI_IFNAME", "net1")
            .run()
            .document(),
        sandbox
            .ipam("ADD")
            .env("CNI_CONTAINERID", "c2")
            .run()
            .document(),
        sandbox.ipam("ADD").conf(&other_network).run().document(),
    ];
    assert_eq!(address(&first), "10.240.0.5/16");
    assert_eq!(
        others.each_ref().map(address),
        ["10.240.0.6/16", "10.240.0.7/16", "10.240.0.8/16"]
    );
    assert_eq!(sandbox.ipam("ADD").run().document(), first);

    sandbox
        .ipam("DEL")
        .env("CNI_IFNAME", "net1")
        .run()
        .silence();
    assert_eq!(sandbox.ipam("ADD").run().document(), first);
}

/// A container of podman that was started again, and whose DEL had failed.
#[test]
fn an_owner_that_comes_back_in_another_namespace_keeps_its_address_and_is_known_to_live_there() {
    let sandbox = Sandbox::with_pod();
    sandbox.cache_pools(&[5, 6]);
    sandbox.add_netns("again");
    let first = sandbox.ipam("ADD").run().document();
    let again = || sandbox.ipam("ADD").env("CNI_NETNS", "/run/netns/again");
    assert_eq!(again().run().document(), first);
    let lease = fs::read_to_string("/run/azure-vnet/ipam/leases/10.240.0.5").unwrap();
    assert!(lease.contains("/run/netns/again"), "{lease}");
}

#[test]
fn a_released_address_rests_while_others_are_free() {
    let sandbox = Sandbox::with_pod();
    sandbox.cache_pools(&[5, 6]);
    sandbox.ipam("ADD").run().document();
    for _ in 0..3 {
        sandbox.ipam("DEL").run().silence();
    }
    assert_eq!(
        address(&sandbox.ipam("ADD").run().document()),
        "10.240.0.6/16"
    );
    assert_eq!(
        fs::read_dir("/run/azure-vnet/ipam/released")
            .unwrap()
            .count(),
        1
    );
}

/// Features F70 and F71: a pool of three, and a loader that is away or knows of no others. The rest is a preference.
#[test]
fn an_address_that_should_rest_is_given_when_nothing_else_is_left_the_longest_rested_first() {
    let sandbox = Sandbox::with_pod();
    sandbox.cache_pools(&[5, 6, 7]);
    let call = |verb: &str, id: &str| sandbox.ipam(verb).env("CNI_CONTAINERID", id).run();
    for id in ["a", "b", "c"] {
        call("ADD", id).document();
    }
    call("ADD", "d").error_saying(100, &["No available addresses", "3 of 3 used"]);
    for id in ["b", "a"] {
        call("DEL", id).silence();
    }
    assert_eq!(address(&call("ADD", "d").document()), "10.240.0.6/16");

    let _loader = Loader::start(Manner::Helpful);
    assert_eq!(
        address(&call("ADD", "e").document()),
        "10.240.0.50/16",
        "newer pools come first"
    );
    call("ADD", "f").document();
    for id in ["f", "e"] {
        call("DEL", id).silence();
    }
    assert_eq!(address(&call("ADD", "g").document()), "10.240.0.51/16");
}

/// Row 62: the loader is asked for newer pools before the pool is said to be empty.
#[test]
fn an_exhausted_pool_is_refreshed_and_then_told_with_numbers() {
    let sandbox = Sandbox::with_pod();
    sandbox.cache_pools(&[5]);
    let add = |id: &str| sandbox.ipam("ADD").env("CNI_CONTAINERID", id).run();
    add("a").document();
    add("b").error_saying(
        100,
        &[
            "No available addresses",
            "10.240.0.0/16: 1 of 1 used",
            "loader.sock",
        ],
    );

    let loader = Loader::start(Manner::Helpful);
    assert_eq!(address(&add("b").document()), "10.240.0.50/16");
    assert_eq!(address(&add("c").document()), "10.240.0.51/16");
    add("d").error_saying(
        100,
        &[
            "No available addresses",
            "2 of 2 used",
            "add secondary addresses",
        ],
    );
    assert_eq!(loader.requests().len(), 3);
}

#[test]
fn without_a_cache_of_this_boot_the_loader_is_needed() {
    let sandbox = Sandbox::with_pod();
    sandbox
        .ipam("ADD")
        .run()
        .error_saying(11, &["loader.sock", "azure-vnet-loader"]);
    sandbox.cache_pools(&[5]);
    let pools = Path::new("/run/azure-vnet/ipam/pools.json");
    let mut other_boot: Value = rpc::read_json(pools).unwrap();
    other_boot["boot_id"] = "another".into();
    rpc::write_json(pools, &other_boot).unwrap();
    sandbox.ipam("ADD").run().error(11);
    fs::write(pools, "damaged").unwrap();
    sandbox.ipam("ADD").run().error(11);

    let _loader = Loader::start(Manner::Helpful);
    assert_eq!(
        address(&sandbox.ipam("ADD").run().document()),
        "10.240.0.50/16"
    );
}

/// Row 59.
#[test]
fn an_address_that_is_asked_for_is_given_or_refused_with_azures_words() {
    let sandbox = Sandbox::with_pod();
    sandbox.cache_pools(&[1, 4, 5, 6, 7, 8]);
    sandbox
        .ipam("ADD")
        .env("CNI_CONTAINERID", "other")
        .run()
        .document();
    let by_config =
        |ip: &str| netconf_with(json!({"ipam": {"type": "azure-vnet-ipam", "ipAddress": ip}}));
    let by_runtime = |ip: &str| netconf_with(json!({"runtimeConfig": {"ips": [ip]}}));
    for (ip, word) in [
        ("10.240.0.5", "Address already in use"),
        ("10.240.0.99", "Address not found"),
        ("10.240.0.4", "Address not found"),
        ("10.240.0.1", "Address not found"),
        ("10.240.0.0", "Address not found"),
        ("10.240.255.255", "Address not found"),
    ] {
        for conf in [by_config(ip), by_runtime(ip)] {
            sandbox
                .ipam("ADD")
                .conf(&conf)
                .run()
                .error_saying(100, &[word, ip]);
        }
        let args = format!("IP={ip}");
        sandbox
            .ipam("ADD")
            .env("CNI_ARGS", args)
            .run()
            .error_saying(100, &[word, ip]);
    }
    for (id, exec) in [
        ("6", sandbox.ipam("ADD").conf(&by_config("10.240.0.6"))),
        ("7", sandbox.ipam("ADD").conf(&by_runtime("10.240.0.7/16"))),
        ("8", sandbox.ipam("ADD").env("CNI_ARGS", "IP=10.240.0.8")),
    ] {
        let answer = exec.env("CNI_CONTAINERID", id).run().document();
        assert_eq!(address(&answer), format!("10.240.0.{id}/16"));
    }
    let another = sandbox
        .ipam("ADD")
        .env("CNI_CONTAINERID", "6")
        .conf(&by_config("10.240.0.9"));
    another
        .run()
        .error_saying(100, &["10.240.0.6", "10.240.0.9"]);
}

#[test]
fn an_unknown_subnet_or_master_is_refused() {
    let sandbox = Sandbox::with_pod();
    sandbox.cache_pools(&[5]);
    let subnet =
        netconf_with(json!({"ipam": {"type": "azure-vnet-ipam", "subnet": "10.9.0.0/16"}}));
    sandbox.ipam("ADD").conf(&subnet).run().error_saying(
        100,
        &["Pool id 10.9.0.0/16 not found :Invalid address pool"],
    );
    let master = netconf_with(json!({"master": "eth9"}));
    sandbox
        .ipam("ADD")
        .conf(&master)
        .run()
        .error_saying(100, &["no available address pools", "eth9"]);
    let known = netconf_with(json!({"master": "eth0", "ipam": {"subnet": "10.240.0.0/16"}}));
    assert_eq!(
        address(&sandbox.ipam("ADD").conf(&known).run().document()),
        "10.240.0.5/16"
    );
}

#[test]
fn after_a_reboot_every_address_is_free() {
    let sandbox = Sandbox::with_pod();
    sandbox.cache_pools(&[5]);
    sandbox.ipam("ADD").run().document();
    for path in ["boot", "leases/10.240.0.5"] {
        let path = Path::new("/run/azure-vnet/ipam").join(path);
        let mut value: Value = rpc::read_json(&path).unwrap();
        if let Value::String(boot) = &mut value {
            "another".clone_into(boot);
        } else {
            value["boot_id"] = "another".into();
        }
        rpc::write_json(&path, &value).unwrap();
    }
    let answer = sandbox
        .ipam("ADD")
        .env("CNI_CONTAINERID", "new")
        .run()
        .document();
    assert_eq!(address(&answer), "10.240.0.5/16");
    sandbox.ipam("DEL").run().silence();
    sandbox
        .ipam("ADD")
        .env("CNI_CONTAINERID", "third")
        .run()
        .error(100);
}

#[test]
fn check_looks_for_the_lease() {
    let sandbox = Sandbox::with_pod();
    sandbox.cache_pools(&[5]);
    let conf = |address: &str| {
        netconf_with(
            json!({"cniVersion": "1.0.0", "prevResult": {"cniVersion": "1.0.0", "ips": [{"address": address}]}}),
        )
    };
    sandbox
        .ipam("CHECK")
        .conf(&conf("10.240.0.5/16"))
        .run()
        .error_saying(105, &["azure/c1/eth0"]);
    sandbox.ipam("ADD").run().document();
    sandbox
        .ipam("CHECK")
        .conf(&conf("10.240.0.5/16"))
        .run()
        .silence();
    sandbox
        .ipam("CHECK")
        .conf(&conf("10.240.0.6/16"))
        .run()
        .error_saying(105, &["10.240.0.5"]);
}

/// Row 97, for addresses: many at once, each gets its own; then all are free again.
#[test]
fn many_at_once_never_share_an_address() {
    let sandbox = Sandbox::with_pod();
    let last: Vec<u8> = (5..=254).collect();
    sandbox.cache_pools(&last);
    let run_all = |verb: &str| -> Vec<String> {
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..10)
                .map(|worker| {
                    let sandbox = &sandbox;
                    scope.spawn(move || {
                        (0..25)
                            .map(|n| {
                                sandbox
                                    .ipam(verb)
                                    .env("CNI_CONTAINERID", format!("c{worker}-{n}"))
                                    .run()
                            })
                            .inspect(|answer| assert!(answer.status.success(), "{answer}"))
                            .map(|answer| answer.stdout)
                            .collect::<Vec<String>>()
                    })
                })
                .collect();
            workers
                .into_iter()
                .flat_map(|worker| worker.join().unwrap())
                .collect()
        })
    };
    let mut given = run_all("ADD");
    given.sort();
    given.dedup();
    assert_eq!(given.len(), 250);
    sandbox.ipam("ADD").run().error(100);
    run_all("DEL");
    for directory in ["leases", "owners"] {
        let path = Path::new("/run/azure-vnet/ipam").join(directory);
        assert_eq!(fs::read_dir(path).unwrap().count(), 0, "{directory}");
    }
}
