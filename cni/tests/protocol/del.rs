//! DEL, of what is there, is not, or is broken.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::exec::{Exec, netconf_with};
use crate::loader::{Loader, Manner};
use crate::sandbox::{Sandbox, install};

const RECORD: &str = "/run/azure-vnet/endpoints/azure:c1:eth0.json";
const TOMBSTONE: &str = "/run/azure-vnet/endpoints/azure:c1:eth0.deleted";
const LEASE: &str = "/run/azure-vnet/ipam/leases/10.240.0.5";

/// A lease and a record as ADD leaves them, without the veth, which died with the pod's namespace.
fn attached() -> Sandbox {
    let sandbox = Sandbox::with_pod();
    sandbox.cache_pools(&[5, 6, 7, 8, 9]);
    sandbox.ipam("ADD").run().document();
    fs::create_dir_all("/run/azure-vnet/endpoints").unwrap();
    write_record(&json!({}));
    sandbox
}

fn write_record(changes: &Value) {
    let mut record = json!({
        "network": "azure", "container_id": "c1", "ifname": "eth0",
        "boot_id": rpc::boot_id().unwrap(),
        "netns": "/run/netns/pod", "pod_namespace": "ns", "pod_name": "web", "mode": "bridge",
        "host_ifname": "azv00000000000", "host_ifindex": 77,
        "host_mac": "02:00:00:00:00:01", "mac": "02:00:00:00:00:02",
        "address": "10.240.0.5/16", "gateway": "10.240.0.1", "mtu": 1500, "dns": {},
        "netconf": crate::exec::netconf().to_string(),
    });
    for (key, value) in changes.as_object().unwrap() {
        record[key] = value.clone();
    }
    rpc::write_json(Path::new(RECORD), &record).unwrap();
}

fn leases() -> usize {
    fs::read_dir("/run/azure-vnet/ipam/leases").unwrap().count()
}

fn exists(path: &str) -> bool {
    fs::exists(path).unwrap()
}

/// Rows 64 to 66.
#[test]
fn del_succeeds_as_often_as_it_is_asked_with_or_without_a_namespace() {
    for netns in ["/run/netns/pod", "", "/nowhere", "/run/plain", "unset"] {
        let sandbox = attached();
        fs::write("/run/plain", "").unwrap();
        sandbox.ip("link add azv00000000000 index 77 type veth peer name pod");
        let loader = Loader::start(Manner::Helpful);
        let del = || {
            let del = sandbox.azure_vnet("DEL").env("CNI_NETNS", netns);
            if netns == "unset" {
                del.unset("CNI_NETNS").unset("CNI_ARGS")
            } else {
                del
            }
        };
        del().run().silence();
        let left = [RECORD, TOMBSTONE, LEASE];
        let veths = fs::read_to_string("/proc/thread-self/net/dev").unwrap();
        assert!(!left.iter().any(|path| exists(path)), "{netns}");
        assert!(!veths.contains("azv"), "{netns}");
        for _ in 0..2 {
            del().run().silence();
            sandbox
                .azure_vnet("DEL")
                .env("CNI_NETNS", "")
                .run()
                .silence();
        }
        assert_eq!(loader.requests(), ["remove_link", "unregister"]);
    }
}

/// Row 65: what was never added is still the IPAM plug-in's to know.
#[test]
fn del_of_what_was_never_added_still_asks_the_ipam_plugin() {
    let sandbox = Sandbox::with_pod();
    sandbox.cache_pools(&[5]);
    sandbox.ipam("ADD").run().document();
    sandbox.azure_vnet("DEL").run().silence();
    assert!(!exists(LEASE));
}

/// Row 73.
#[test]
fn without_a_loader_del_leaves_a_tombstone() {
    for manner in [None, Some(Manner::Hanging)] {
        let sandbox = attached();
        let _loader = manner.map(Loader::start);
        sandbox.azure_vnet("DEL").run().silence();
        assert!(!exists(RECORD) && exists(TOMBSTONE) && !exists(LEASE));
        let endpoint: rpc::Endpoint = rpc::read_json(Path::new(TOMBSTONE)).unwrap();
        assert_eq!(endpoint.address.to_string(), "10.240.0.5/16");
    }
}

/// Row 71, also with a network name that no longer parses. Of an ADD that was killed a draft is all that there is.
#[test]
fn with_a_broken_configuration_everything_is_released_before_it_is_told() {
    const LOCK: &str = "/run/azure-vnet/locks/azure:c1:eth0";
    let draft = json!({"netconf": crate::exec::netconf().to_string()});
    let killed = || {
        fs::remove_file(RECORD).unwrap();
        fs::create_dir_all("/run/azure-vnet/locks").unwrap();
        fs::write(LOCK, format!("{draft}\n")).unwrap();
    };
    for (stdin, code) in [
        ("{", 6),
        ("", 6),
        (r#"{"cniVersion":"9.9.9","name":"azure"}"#, 1),
        (r#"{"cniVersion":"0.3.0","name":"../azure"}"#, 7),
    ] {
        for was_killed in [false, true] {
            let sandbox = attached();
            if was_killed {
                killed();
            }
            let _loader = Loader::start(Manner::Helpful);
            let other = sandbox
                .ipam("ADD")
                .env("CNI_CONTAINERID", "c2")
                .run()
                .document();
            sandbox
                .azure_vnet("DEL")
                .stdin(stdin.as_bytes())
                .run()
                .error_saying(code, &["failed at step `validate`"]);
            let left = [RECORD, LEASE, LOCK].map(exists);
            assert_eq!(left, [false; 3], "{stdin}");
            assert_eq!(
                sandbox
                    .ipam("ADD")
                    .env("CNI_CONTAINERID", "c2")
                    .run()
                    .document(),
                other
            );
        }
    }

    // Nothing tells whom a damaged record's address is to be given back to: that waits for a good one.
    let sandbox = attached();
    let _loader = Loader::start(Manner::Helpful);
    fs::write(RECORD, "damaged").unwrap();
    let answer = sandbox.azure_vnet("DEL").stdin(b"{").run();
    answer.error_saying(6, &[RECORD, "damaged"]);
    assert!(exists(RECORD) && exists(LEASE));
    sandbox.azure_vnet("DEL").run().silence();
    assert!(!exists(RECORD) && !exists(LEASE));
}

/// Row 70: what ADD would refuse by now does not matter to DEL, which says so in the log.
#[test]
fn a_configuration_that_add_refuses_does_not_hold_del_up() {
    for (changes, key) in [
        (json!({"mode": "nonsense"}), "mode"),
        (json!({"ipam": {"type": "azure-cns"}}), "ipam.type"),
        (json!({"ipam": {"type": "../x"}}), "ipam.type"),
        (json!({"ipam": 5}), "ipam"),
        (json!({"disableAsyncDelete": "true"}), "disableAsyncDelete"),
        (json!({"multiTenancy": true}), "multiTenancy"),
    ] {
        let refused = netconf_with(changes);
        let sandbox = attached();
        let _loader = Loader::start(Manner::Helpful);
        sandbox.azure_vnet("DEL").conf(&refused).run().silence();
        assert!(!exists(RECORD) && !exists(TOMBSTONE) && !exists(LEASE));
        let log = fs::read_to_string("/var/log/azure-vnet.log").unwrap();
        let line: Value = serde_json::from_str(log.trim()).unwrap();
        assert_eq!(
            (&line["level"], &line["error"]),
            (&json!("warn"), &json!(null))
        );
        assert!(
            line["warnings"][0].as_str().unwrap().contains(key),
            "{line}"
        );

        // The same of what was never there, as after an ADD that was refused, and of the address alone.
        sandbox.azure_vnet("DEL").conf(&refused).run().silence();
        sandbox.ipam("ADD").run().document();
        sandbox.ipam("DEL").conf(&refused).run().silence();
        assert_eq!(leases(), 0);
    }
}

/// With no record, a refused configuration's IPAM plug-in is asked, but nobody waits for its consent.
#[test]
fn an_ipam_plugin_of_a_refused_configuration_is_asked_but_may_fail() {
    let sandbox = Sandbox::with_pod();
    let plugins = sandbox.add_plugin("fake", "echo $CNI_COMMAND >> /run/verbs; exit 1");
    let refused = netconf_with(json!({"mode": "nonsense", "ipam": {"type": "fake"}}));
    let del = || sandbox.azure_vnet("DEL").env("CNI_PATH", &plugins);
    del().conf(&refused).run().silence();
    assert_eq!(fs::read_to_string("/run/verbs").unwrap(), "DEL\n");
    let sound = netconf_with(json!({"ipam": {"type": "fake"}}));
    del().conf(&sound).run().error(11);
}

/// An operator frees the address of a pod that is gone: by hand, with the file that is there or with as little as possible.
#[test]
fn a_whole_conflist_or_a_name_alone_is_enough_to_clean_up_by_hand() {
    let conflist = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/10-azure.conflist");
    let conflist = fs::read(conflist).unwrap();
    let del = |sandbox: &Sandbox, stdin: &[u8]| {
        let unset = ["CNI_NETNS", "CNI_ARGS"];
        let exec = sandbox.azure_vnet("DEL").stdin(stdin);
        unset.into_iter().fold(exec, Exec::unset).run().silence();
    };
    for stdin in [conflist.as_slice(), br#"{"name":"azure"}"#] {
        let sandbox = attached();
        let _loader = Loader::start(Manner::Helpful);
        del(&sandbox, stdin);
        assert!(!exists(RECORD) && !exists(LEASE));
    }

    // With no record, only the list tells whose the address is.
    let sandbox = attached();
    fs::remove_file(RECORD).unwrap();
    del(&sandbox, &conflist);
    assert!(!exists(LEASE));
}

/// As whoever frees leaks asks: what was seen may not be so any more.
#[test]
fn a_del_for_a_pod_that_is_gone_does_nothing_while_it_lives_or_nobody_can_tell() {
    let path = "/run/netns/link";
    let leads_to = |target: &str| {
        drop(fs::remove_file(path));
        std::os::unix::fs::symlink(target, path).unwrap();
    };
    let sandbox = attached();
    sandbox.add_netns("other");
    let _loader = Loader::start(Manner::Helpful);
    for exec in [Sandbox::azure_vnet, Sandbox::ipam] {
        leads_to("pod");
        let ipam = sandbox.ipam("ADD").env("CNI_NETNS", path);
        ipam.run().document();
        write_record(&json!({"netns": path}));
        let gone = || exec(&sandbox, "DEL").env("AZURE_VNET_ONLY_IF", "gone");
        gone().run().silence();
        assert_eq!((exists(RECORD), leases()), (true, 1), "it lives");
        // Which nobody can follow.
        leads_to("link");
        let words = ["nothing tells", "nothing was taken away", "azure/c1/eth0"];
        gone().run().error_saying(11, &words);
        assert_eq!((exists(RECORD), leases()), (true, 1), "nobody can tell");
        let operator = || exec(&sandbox, "DEL").env("AZURE_VNET_ONLY_IF", "not-alive");
        leads_to("pod");
        operator().run().silence();
        assert_eq!(leases(), 1, "it lives");
        leads_to("link");
        operator().run().silence();
        assert_eq!(leases(), 0);
        // Nothing is there to be free.
        gone().run().silence();
        // Another namespace at the path is not the pod's.
        leads_to("pod");
        let ipam = sandbox.ipam("ADD").env("CNI_NETNS", path);
        ipam.run().document();
        write_record(&json!({"netns": path}));
        leads_to("other");
        gone().run().silence();
        assert_eq!(leases(), 0, "it is gone");
        let typo = exec(&sandbox, "DEL").env("AZURE_VNET_ONLY_IF", "dead");
        typo.run()
            .error_saying(4, &["AZURE_VNET_ONLY_IF", "`dead`"]);
    }
}

/// The record's path is gone, the lease's leads nobody can tell where: the plug-in that knows both decides.
#[test]
fn what_the_main_plugin_found_gone_the_ipam_plugin_does_not_judge_again() {
    let sandbox = attached();
    let _loader = Loader::start(Manner::Helpful);
    let path = "/run/netns/link";
    std::os::unix::fs::symlink("link", path).unwrap();
    let ipam = sandbox.ipam("ADD").env("CNI_NETNS", path);
    ipam.run().document();
    write_record(&json!({"netns": "/run/netns/dead"}));
    let del = sandbox.azure_vnet("DEL").env("AZURE_VNET_ONLY_IF", "gone");
    del.run().silence();
    assert!(!exists(RECORD) && leases() == 0);
}

/// Who made a DEL of every pod one that does nothing would have no address soon.
#[test]
fn no_key_of_the_configuration_keeps_del_from_its_work() {
    let sandbox = attached();
    let _loader = Loader::start(Manner::Helpful);
    let conf = netconf_with(json!({"onlyIfGone": true, "orUnknown": true}));
    sandbox.azure_vnet("DEL").conf(&conf).run().silence();
    assert!(!exists(RECORD) && !exists(LEASE));
}

/// Row 70: the IPAM plug-in that gave the address is asked, with the configuration of that time.
#[test]
fn del_after_a_change_of_ipam_asks_the_one_of_then() {
    let sandbox = attached();
    let _loader = Loader::start(Manner::Helpful);
    let changed = netconf_with(
        json!({"ipam": {"type": "host-local"}, "cniVersion": "1.0.0", "mode": "transparent"}),
    );
    sandbox.azure_vnet("DEL").conf(&changed).run().silence();
    assert!(!exists(LEASE));
}

/// Rows 72 and 80: a record that is damaged or of another boot says nothing.
#[test]
fn a_useless_record_does_not_hold_del_up() {
    let sandbox = attached();
    for spoil in [
        || fs::write(RECORD, "").unwrap(),
        || fs::write(RECORD, "   ").unwrap(),
        || fs::write(RECORD, "00000000\n{}").unwrap(),
        || write_record(&json!({"boot_id": "another"})),
    ] {
        sandbox.ipam("ADD").run().document();
        spoil();
        sandbox.azure_vnet("DEL").run().silence();
        assert!(!exists(RECORD));
        assert_eq!(leases(), 0);
    }
}

/// Row 76: go-cni takes errors with certain words for success, be they the IPAM plug-in's, the system's or ours.
#[test]
fn a_del_error_that_should_be_retried_does_not_sound_like_success() {
    let sandbox = Sandbox::with_pod();
    let fails = |plugins: &Path, code| {
        let answer = sandbox.azure_vnet("DEL").env("CNI_PATH", plugins).run();
        let told = answer.error(code);
        let text = answer.stdout + &answer.stderr;
        for swallowed in ["not found", "no such file or directory"] {
            assert!(!text.contains(swallowed), "{text}");
        }
        told
    };
    let script = r#"echo '{"cniVersion":"0.3.0","code":100,"msg":"pool not found","details":"x: no such file or directory"}'; exit 1"#;
    let plugins = sandbox.add_plugin("azure-vnet-ipam", script);
    fails(&plugins, 11);
    // No IPAM plug-in, and one whose interpreter is missing: the system's ENOENT.
    fails(Path::new("/nowhere"), 11);
    install(b"#!/nowhere/sh\n", &plugins.join("azure-vnet-ipam"));
    let told = fails(&plugins, 11);
    assert!(told.contains("azure-vnet-ipam"), "{told}");
    // And our own directory cannot be made.
    fs::remove_dir_all("/run/azure-vnet").unwrap();
    std::os::unix::fs::symlink("/nowhere/else", "/run/azure-vnet").unwrap();
    let told = fails(&plugins, 5);
    assert!(told.contains("/run/azure-vnet"), "{told}");
}

/// An address is not given back while DEL cannot be completed, and the record stays for the next try.
#[test]
fn a_failed_del_can_be_tried_again() {
    let sandbox = attached();
    let _loader = Loader::start(Manner::Helpful);
    let plugins = sandbox.add_plugin("azure-vnet-ipam", "exit 1");
    sandbox
        .azure_vnet("DEL")
        .env("CNI_PATH", plugins)
        .run()
        .error_saying(11, &["failed to release address", "failed at step `ipam`"]);
    assert!(exists(RECORD) && exists(LEASE));
    sandbox.azure_vnet("DEL").run().silence();
    assert!(!exists(RECORD) && !exists(LEASE));
}
