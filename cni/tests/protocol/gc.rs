//! GC: what the runtime does not know goes, and nothing else.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use nix::errno::Errno;
use serde_json::{Value, json};

use crate::exec::{Exec, netconf_with};
use crate::faults::Fault;
use crate::full::{host_veth, node};
use crate::loader::{Loader, Manner};
use crate::sandbox::Sandbox;

pub(crate) const VALID: &str = "cni.dev/valid-attachments";

/// As the specification and libcni call it: no container, no interface, no namespace.
pub(crate) fn bare(exec: Exec) -> Exec {
    let variables = ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS"];
    variables.into_iter().fold(exec, Exec::unset)
}

pub(crate) fn gc(sandbox: &Sandbox, changes: &Value) -> Exec {
    let mut conf = netconf_with(json!({"cniVersion": "1.1.0"}));
    conf.as_object_mut()
        .unwrap()
        .extend(changes.as_object().unwrap().clone());
    bare(sandbox.azure_vnet("GC")).conf(&conf)
}

pub(crate) fn ipam_gc(sandbox: &Sandbox, valid: &Value) -> Exec {
    let conf = netconf_with(json!({"cniVersion": "1.1.0", VALID: valid}));
    bare(sandbox.ipam("GC")).conf(&conf)
}

pub(crate) fn listed(containers: &[&str]) -> Value {
    containers
        .iter()
        .map(|id| json!({"containerID": id, "ifname": "eth0"}))
        .collect()
}

pub(crate) fn add(sandbox: &Sandbox, id: &str, network: &str) -> Value {
    let netns: PathBuf = sandbox.add_netns(&format!("{network}-{id}"));
    let conf = netconf_with(json!({"cniVersion": "1.1.0", "name": network}));
    sandbox
        .azure_vnet("ADD")
        .env("CNI_CONTAINERID", id)
        .env("CNI_NETNS", netns)
        .conf(&conf)
        .run()
        .document()
}

pub(crate) fn leases() -> usize {
    fs::read_dir("/run/azure-vnet/ipam/leases").unwrap().count()
}

pub(crate) fn exists(result: &Value) -> bool {
    fs::read_to_string("/proc/thread-self/net/dev")
        .unwrap()
        .contains(host_veth(result))
}

/// Rows 83 and 87: twice is as good as once, and what stays is untouched.
#[test]
fn what_is_not_listed_goes_and_what_is_stays() {
    let (sandbox, loader) = node(Manner::Helpful);
    let pods = ["a", "b", "c", "d", "e"].map(|id| add(&sandbox, id, "azure"));
    let other = add(&sandbox, "a", "other");
    for _ in 0..2 {
        gc(&sandbox, &json!({VALID: listed(&["b", "d", "unheard-of"])}))
            .run()
            .silence();
        assert_eq!(
            pods.each_ref().map(exists),
            [false, true, false, true, false]
        );
        assert!(exists(&other), "another network's");
        assert_eq!(leases(), 3);
        assert_eq!(
            fs::read_dir("/run/azure-vnet/endpoints").unwrap().count(),
            3
        );
        assert_eq!(fs::read_dir("/run/azure-vnet/locks").unwrap().count(), 0);
    }
    let unregistered = loader.requests();
    let unregistered = unregistered.iter().filter(|name| *name == "unregister");
    assert_eq!(unregistered.count(), 3);
    // The pods that stay are whole.
    let conf = netconf_with(json!({"cniVersion": "1.1.0", "prevResult": pods[1]}));
    sandbox
        .azure_vnet("CHECK")
        .env("CNI_CONTAINERID", "b")
        .env("CNI_NETNS", "/run/netns/azure-b")
        .conf(&conf)
        .run()
        .silence();
}

/// Rows 84 and 85.
#[test]
fn an_empty_list_is_told_from_none() {
    let (sandbox, _loader) = node(Manner::Helpful);
    let other = add(&sandbox, "a", "other");
    let before = sandbox.snapshot();
    for list in [
        json!({VALID: []}),
        json!({VALID: null}),
        json!({"cni.dev/attachments": []}),
        json!({"CNI.DEV/Valid-Attachments": null}),
    ] {
        let pod = add(&sandbox, "a", "azure");
        gc(&sandbox, &json!({}))
            .run()
            .error_saying(7, &[VALID, "nothing was removed"]);
        gc(&sandbox, &json!({VALID: 5}))
            .run()
            .error_saying(7, &[VALID, "list"]);
        gc(&sandbox, &json!({"cni.dev/attachments": listed(&["a"])}))
            .run()
            .silence();
        assert!(exists(&pod));
        gc(&sandbox, &list).run().silence();
        assert!(exists(&other));
        assert_eq!(sandbox.snapshot(), before);
        sandbox.ip_netns_del("azure-a");
    }
}

/// Row 86: an entry that does not tell the interface may mean any of its container.
#[test]
fn a_malformed_entry_is_told_and_saves_what_it_may_mean() {
    let (sandbox, _loader) = node(Manner::Helpful);
    let pods = ["a", "b", "c"].map(|id| add(&sandbox, id, "azure"));
    let mut list = listed(&["a"]);
    list.as_array_mut().unwrap().extend([
        json!({"containerID": "b"}),
        json!(5),
        json!({"ifname": "eth0"}),
    ]);
    let told = gc(&sandbox, &json!({VALID: list})).run().error(7);
    let entries = "{\"containerid\":\"b\"}, 5";
    assert_eq!(told.matches(entries).count(), 1, "once: {told}");
    assert_eq!(pods.each_ref().map(exists), [true, true, false]);
    assert_eq!(leases(), 2);
}

/// Row 82.
#[test]
fn gc_and_status_do_not_exist_before_1_1_0() {
    let sandbox = Sandbox::with_pod();
    for version in ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0"] {
        let conf = netconf_with(json!({"cniVersion": version, VALID: []}));
        for verb in ["GC", "STATUS"] {
            for exec in [sandbox.azure_vnet(verb), sandbox.ipam(verb)] {
                exec.conf(&conf)
                    .run()
                    .error_saying(1, &[version, verb, "1.1.0"]);
            }
        }
    }
}

/// A node whose processes have used up inotify, or a directory that fails: blind, GC takes nothing away, no address either, and
/// says what to do.
#[test]
fn a_gc_that_cannot_watch_takes_nothing_away() {
    let (sandbox, _loader) = node(Manner::Helpful);
    let pod = add(&sandbox, "a", "azure");
    let other = sandbox.ipam("ADD").env("CNI_CONTAINERID", "b");
    other.run().document();
    let mut fault = Fault {
        below: "/run/azure-vnet/locks",
        first: usize::MAX,
        lasts: false,
        errno: Errno::ENOSPC,
    };
    let both = listed(&["a", "b"]);
    let (_, operations) = gc(&sandbox, &json!({VALID: both})).run_with(fault);
    let watch = |operation: &String| operation.starts_with("watch ");
    fault.first = operations.iter().position(watch).expect("a watch");
    for (errno, code, remedy) in [
        (Errno::ENOSPC, 11, "fs.inotify.max_user_watches"),
        (Errno::EIO, 5, "check its file system"),
    ] {
        fault.errno = errno;
        let (answer, _) = gc(&sandbox, &json!({VALID: []})).run_with(fault);
        answer.error_saying(code, &[remedy]);
        assert!(exists(&pod));
        assert_eq!(leases(), 2);
    }
}

/// Row 88: whatever the IPAM plug-in does, the rest is done, and it gets what we got.
#[test]
fn the_ipam_plugins_failure_is_told_after_all_else_was_done() {
    let (sandbox, _loader) = node(Manner::Helpful);
    let pod = add(&sandbox, "a", "azure");
    let script = r#"[ $CNI_COMMAND = GC ] || exit 0
cat > /run/stdin; echo '{"code":99,"msg":"no broom","details":"today"}'; exit 1"#;
    let plugins = sandbox.add_plugin("azure-vnet-ipam", script);
    let answer = gc(&sandbox, &json!({VALID: [], "x": 1}))
        .env("CNI_PATH", plugins)
        .env("PATH", "/usr/bin:/bin")
        .run();
    answer.error_saying(99, &["no broom", "today"]);
    assert!(!exists(&pod));
    let stdin: Value = serde_json::from_slice(&fs::read("/run/stdin").unwrap()).unwrap();
    assert_eq!((&stdin["x"], &stdin[VALID]), (&json!(1), &json!([])));
    gc(&sandbox, &json!({VALID: []}))
        .env("CNI_PATH", "/nowhere")
        .run()
        .error_saying(104, &["/nowhere"]);
    add(&sandbox, "b", "azure");
    let nowhere = gc(&sandbox, &json!({VALID: []})).env("CNI_PATH", "/nowhere");
    let words = nowhere.run().error(11);
    assert_eq!(words.matches("find the IPAM plug-in").count(), 1, "{words}");
}

/// What an interrupted ADD left, and addresses that nobody else knows of, under any main plug-in.
#[test]
fn drafts_and_forgotten_addresses_are_collected() {
    let (sandbox, _loader) = node(Manner::Helpful);
    let before = sandbox.snapshot();
    let pod = add(&sandbox, "a", "azure");
    let record = "/run/azure-vnet/endpoints/azure:a:eth0.json";
    let text = fs::read_to_string(record).unwrap();
    let (_, draft) = text.split_once('\n').unwrap();
    fs::write("/run/azure-vnet/locks/azure:a:eth0", format!("{draft}\n")).unwrap();
    fs::remove_file(record).unwrap();
    sandbox
        .ipam("ADD")
        .env("CNI_CONTAINERID", "b")
        .run()
        .document();
    ipam_gc(&sandbox, &listed(&["a"])).run().silence();
    assert_eq!(leases(), 1, "the draft's is not the IPAM plug-in's to take");
    gc(&sandbox, &json!({VALID: null})).run().silence();
    assert!(!exists(&pod));
    assert_eq!(sandbox.snapshot(), before);
}

/// `mode` is a key of theirs: ipvlan's `l2` is none of ours.
#[test]
fn below_another_main_plugin_its_mode_is_no_obstacle() {
    let sandbox = Sandbox::with_pod();
    sandbox.cache_pools(&[5]);
    let changes = json!({"cniVersion": "1.1.0", "type": "ipvlan", "mode": "l2", VALID: []});
    let conf = netconf_with(changes);
    bare(sandbox.ipam("STATUS")).conf(&conf).run().silence();
    sandbox.ipam("ADD").conf(&conf).run().document();
    bare(sandbox.ipam("GC")).conf(&conf).run().silence();
    assert_eq!(leases(), 0);
    let del = sandbox.ipam("DEL").conf(&conf).run();
    del.silence();
    assert_eq!(del.stderr, "", "nor has DEL anything to pass over");
}

/// CRI-O gives GC 30 s: however many attachments there are, and however late loader and IPAM plug-in are with each, it ends by
/// itself and says why.
#[test]
fn a_gc_where_everything_is_late_ends_in_time() {
    let (sandbox, _loader) = node(Manner::Helpful);
    for id in ["a", "b", "c"] {
        add(&sandbox, id, "azure");
    }
    let _hanging = Loader::start(Manner::Hanging);
    let plugins = sandbox.add_plugin("azure-vnet-ipam", "exec sleep 1000");
    let late = gc(&sandbox, &json!({VALID: []})).env("CNI_PATH", plugins);
    let answer = late.env("PATH", "/usr/bin:/bin").run();
    answer.error_saying(11, &["no end within", "left of this call's time"]);
    assert!(answer.took < Duration::from_secs(28), "{:?}", answer.took);
    let _helpful = Loader::start(Manner::Helpful);
    gc(&sandbox, &json!({VALID: []})).run().silence();
    assert_eq!(leases(), 0);
}

/// Without a loader the maps are cleaned up later.
#[test]
fn without_a_loader_gc_leaves_tombstones() {
    let (sandbox, _loader) = node(Manner::Helpful);
    let pod = add(&sandbox, "a", "azure");
    fs::remove_file("/run/azure-vnet/loader.sock").unwrap();
    gc(&sandbox, &json!({VALID: []})).run().silence();
    assert!(!exists(&pod));
    assert!(fs::exists("/run/azure-vnet/endpoints/azure:a:eth0.deleted").unwrap());
    let _loader = Loader::start(Manner::Helpful);
    gc(&sandbox, &json!({VALID: []})).run().silence();
}
