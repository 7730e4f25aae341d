//! Row 87: GC beside calls that run meanwhile, or were killed.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::{Child, Stdio};

use serde_json::{Value, json};

use crate::delegate::eventually;
use crate::exec::{bin, netconf_with};
use crate::full::node;
use crate::gc::{VALID, add, bare, exists, gc, ipam_gc, leases, listed};
use crate::loader::Manner;
use crate::sandbox::Sandbox;

/// Gives an address and takes its time when it is told to.
const SLOW: &str = r#"
case $CNI_COMMAND in ADD) ;; GC) cat > /run/told; exit ;; *) exit ;; esac
eval "$SLOW"
echo "{\"ips\":[{\"address\":\"$ADDRESS/16\"}]}""#;

/// Row 87: an ADD that runs meanwhile is younger than the list, whatever it has made by now.
#[test]
fn an_add_that_runs_meanwhile_is_not_collected() {
    let (sandbox, _loader) = node(Manner::Helpful);
    let (adding, plugins) = begin_slow_add(&sandbox, "c1", "10.240.0.5");
    // What the IPAM plug-in has given to it already, too.
    sandbox.ipam("ADD").run().document();
    gc(&sandbox, &json!({VALID: [], "ipam": {"type": "slow"}}))
        .env("CNI_PATH", &plugins)
        .env("PATH", "/usr/bin:/bin")
        .run()
        .silence();
    let told: Value = serde_json::from_slice(&fs::read("/run/told").unwrap()).unwrap();
    assert_eq!(told[VALID], listed(&["c1"]), "nor by another IPAM plug-in");
    ipam_gc(&sandbox, &json!([])).run().silence();
    assert_eq!(leases(), 1);
    fs::write("/run/go", "").unwrap();
    let added = adding.wait_with_output().unwrap();
    let result: Value = serde_json::from_slice(&added.stdout).unwrap();
    assert!(added.status.success() && exists(&result));
    // The next list is younger.
    let both = format!("{}:{}", plugins.display(), bin());
    gc(&sandbox, &json!({VALID: []}))
        .env("CNI_PATH", both)
        .run()
        .silence();
    assert!(!exists(&result));
    assert_eq!(leases(), 0);
}

/// Row 87: nor is what was made, made anew or asked for again between GC's begin and its turn.
#[test]
fn what_is_made_while_gc_works_is_not_collected() {
    let (sandbox, _loader) = node(Manner::Helpful);
    add(&sandbox, "c", "azure");
    let pod = add(&sandbox, "d", "azure");
    let (adding, plugins) = begin_slow_add(&sandbox, "c1", "10.240.0.99");
    // Somebody who only looks, for long, at what comes first.
    let looked_at: Vec<fs::File> = (10..40)
        .map(|number| {
            let file = fs::File::create(format!("/run/azure-vnet/locks/azure:a{number}:eth0"));
            file.unwrap()
        })
        .collect();
    for file in &looked_at {
        file.lock_shared().unwrap();
    }
    let conf = netconf_with(json!({"cniVersion": "1.1.0", VALID: [], "ipam": {"type": "slow"}}));
    fs::write("/run/conf", conf.to_string()).unwrap();
    let collecting = bare(sandbox.azure_vnet("GC"))
        .env("CNI_PATH", plugins)
        .env("PATH", "/usr/bin:/bin")
        .command
        .stdin(fs::File::open("/run/conf").unwrap())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let inode = format!(":{} ", looked_at[0].metadata().unwrap().ino());
    eventually(|| {
        let locks = fs::read_to_string("/proc/locks").unwrap();
        let is_waited_for = |line: &str| line.contains("->") && line.contains(&inode);
        locks.lines().any(is_waited_for).then_some(())
    });
    fs::write("/run/go", "").unwrap();
    let added: Value = serde_json::from_slice(&adding.wait_with_output().unwrap().stdout).unwrap();
    sandbox.ip_netns_del("azure-c");
    let anew = add(&sandbox, "c", "azure");
    let again = sandbox
        .azure_vnet("ADD")
        .env("CNI_CONTAINERID", "d")
        .env("CNI_NETNS", "/run/netns/azure-d")
        .conf(&netconf_with(json!({"cniVersion": "1.1.0"})));
    assert_eq!(again.run().document(), pod);
    drop(looked_at);
    let answer = collecting.wait_with_output().unwrap();
    assert!(answer.status.success(), "{answer:?}");
    assert!(exists(&added), "an ADD that was under way");
    assert!(exists(&anew), "an ADD of what was stale");
    assert!(exists(&pod), "an ADD that only had to answer");
}

/// Nor is one whose name is too long for the name of a file: its draft tells it. Killed, it goes.
#[test]
fn an_add_of_a_long_name_is_in_another_plugins_list_and_goes_when_it_was_killed() {
    let (sandbox, _loader) = node(Manner::Helpful);
    let id = "c".repeat(200);
    let (mut adding, plugins) = begin_slow_add(&sandbox, &id, "10.240.0.5");
    sandbox
        .ipam("ADD")
        .env("CNI_CONTAINERID", &id)
        .run()
        .document();
    let collecting = |path: &str| {
        gc(&sandbox, &json!({VALID: [], "ipam": {"type": "slow"}}))
            .env("CNI_PATH", path)
            .env("PATH", "/usr/bin:/bin")
    };
    let plugins = plugins.to_str().unwrap();
    collecting(plugins).run().silence();
    let told: Value = serde_json::from_slice(&fs::read("/run/told").unwrap()).unwrap();
    assert_eq!(told[VALID], listed(&[&id]));
    ipam_gc(&sandbox, &json!([])).run().silence();
    assert_eq!(leases(), 1, "nor by ours");
    adding.kill().unwrap();
    adding.wait().unwrap();
    fs::write("/run/go", "").unwrap();
    collecting(plugins).run().silence();
    let told: Value = serde_json::from_slice(&fs::read("/run/told").unwrap()).unwrap();
    assert_eq!(told[VALID], listed(&[]));
    assert_eq!(fs::read_dir("/run/azure-vnet/locks").unwrap().count(), 0);
}

/// What works without having written anything yet may be any pod's; what nobody works under is litter.
#[test]
fn another_ipam_plugin_is_not_run_while_a_call_works_that_says_no_name() {
    let (sandbox, _loader) = node(Manner::Helpful);
    let plugins = sandbox.add_plugin("other", "touch /run/asked");
    let begun = format!("/run/azure-vnet/locks/sha1:{}", "0".repeat(40));
    fs::create_dir_all("/run/azure-vnet/locks").unwrap();
    let works = fs::File::create(&begun).unwrap();
    works.lock().unwrap();
    let collecting = || {
        gc(&sandbox, &json!({VALID: [], "ipam": {"type": "other"}}))
            .env("CNI_PATH", &plugins)
            .env("PATH", "/usr/bin:/bin")
    };
    let words = [begun.as_str(), "the IPAM plug-in was not run"];
    collecting().run().error_saying(11, &words);
    assert!(!fs::exists("/run/asked").unwrap());
    drop(works);
    let words = [&words[..], &["damaged", "its DEL takes the file away"]].concat();
    let anothers = json!({"network": "azure", "container_id": "x", "ifname": "eth0"});
    for draft in ["spoilt\n", &format!("{anothers}\n")] {
        fs::write(&begun, draft).unwrap();
        collecting().run().error_saying(5, &words);
        assert!(!fs::exists("/run/asked").unwrap(), "{draft}");
    }
    fs::write(&begun, "").unwrap();
    collecting().run().silence();
    assert!(fs::exists("/run/asked").unwrap());
}

/// An ADD that waits until there is `/run/go`, and where its IPAM plug-in is.
fn begin_slow_add(sandbox: &Sandbox, id: &str, address: &str) -> (Child, PathBuf) {
    let plugins = sandbox.add_plugin("slow", SLOW);
    let conf = netconf_with(json!({"ipam": {"type": "slow"}, "cniVersion": "1.1.0"}));
    fs::write("/run/conf", conf.to_string()).unwrap();
    let adding = sandbox
        .azure_vnet("ADD")
        .env("CNI_PATH", &plugins)
        .env("PATH", "/usr/bin:/bin")
        .env("CNI_CONTAINERID", id)
        .env("ADDRESS", address)
        .env(
            "SLOW",
            "touch /run/begun; while [ ! -e /run/go ]; do :; done",
        )
        .command
        .stdin(fs::File::open("/run/conf").unwrap())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    eventually(|| fs::exists("/run/begun").unwrap().then_some(()));
    (adding, plugins)
}
