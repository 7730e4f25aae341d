//! ADD of what is there already, whole or in parts.

use std::fs;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::delegate::eventually;
use crate::exec::{Exec, netconf, netconf_with};
use crate::full::{host_veth, node};
use crate::loader::{Loader, Manner};
use crate::sandbox::Sandbox;

/// Runs it with an answer that nobody can read.
fn run_unheard(mut exec: Exec) {
    fs::write("/run/conf", netconf().to_string()).unwrap();
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let status = exec
        .command
        .stdin(fs::File::open("/run/conf").unwrap())
        .stdout(full)
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(1));
}

/// Row 92, of a pod that lives: only what the failed call itself took is given back.
#[test]
fn a_repeated_add_that_nobody_hears_leaves_the_pod_its_address() {
    let sandbox = Sandbox::with_pod();
    sandbox.cache_pools(&[5, 6]);
    let first = sandbox.ipam("ADD").run().document();
    run_unheard(sandbox.ipam("ADD"));
    assert!(fs::exists("/run/azure-vnet/ipam/leases/10.240.0.5").unwrap());
    assert_eq!(sandbox.ipam("ADD").run().document(), first);

    let (sandbox, _loader) = node(Manner::Helpful);
    let first = sandbox.azure_vnet("ADD").run().document();
    let before = sandbox.snapshot();
    run_unheard(sandbox.azure_vnet("ADD"));
    assert_eq!(sandbox.snapshot(), before);
    assert_eq!(sandbox.azure_vnet("ADD").run().document(), first);
}

/// Row 51: success is only said of a pod whose packets are forwarded.
#[test]
fn a_repeated_add_makes_anew_what_does_not_work_any_more() {
    let (sandbox, _loader) = node(Manner::Helpful);
    let conf = netconf_with(json!({"cniVersion": "1.0.0"}));
    let add = || sandbox.azure_vnet("ADD").conf(&conf).run().document();
    let check = |result: &Value| {
        let conf = netconf_with(json!({"cniVersion": "1.0.0", "prevResult": result}));
        sandbox.azure_vnet("CHECK").conf(&conf).run().silence();
    };
    let mut last = add();
    for hook in ["ingress", "egress"] {
        sandbox.tc(&format!("filter del dev {} {hook}", host_veth(&last)));
        let next = add();
        assert_ne!(next["ips"], last["ips"], "{hook}");
        check(&next);
        last = next;
    }
    assert_eq!(add(), last);
    let _forgetful = Loader::start(Manner::Forgetful);
    assert_ne!(add()["ips"], last["ips"]);
}

/// Rows 46 and 50: an interface of the same name in another namespace is not the attachment.
#[test]
fn a_repeated_add_is_about_the_namespace_that_it_names() {
    let (sandbox, _loader) = node(Manner::Helpful);
    let conf = netconf_with(json!({"cniVersion": "1.0.0"}));
    let add = |netns: &str| {
        sandbox
            .azure_vnet("ADD")
            .env("CNI_NETNS", netns)
            .conf(&conf)
    };
    let first = add("/run/netns/pod").run().document();
    std::os::unix::fs::symlink("/run/netns/pod", "/run/same").unwrap();
    let again = add("/run/same").run().document();
    assert_eq!(again["interfaces"][0]["sandbox"], "/run/same");
    assert_eq!(again["ips"], first["ips"]);

    sandbox.add_netns("other");
    sandbox.ip("link add eth0 netns other type veth peer name peer");
    let before = sandbox.snapshot();
    let taken = ["eth0", "an interface of that name is there already"];
    add("/run/netns/other").run().error_saying(100, &taken);
    assert_eq!(sandbox.snapshot(), before);
    assert_eq!(add("/run/netns/pod").run().document(), first);
}

#[test]
fn a_repeated_add_without_a_loader_is_to_be_tried_again_and_changes_nothing() {
    let (sandbox, _loader) = node(Manner::Helpful);
    let first = sandbox.azure_vnet("ADD").run().document();
    // A pod without programs, too: without a loader it could not be made anew.
    sandbox.tc(&format!("filter del dev {} ingress", host_veth(&first)));
    fs::remove_file("/run/azure-vnet/loader.sock").unwrap();
    let before = sandbox.snapshot();
    sandbox.azure_vnet("ADD").run().error_saying(
        11,
        &[
            "systemctl status azure-vnet-loader",
            "failed at step `existing`",
        ],
    );
    assert_eq!(sandbox.snapshot(), before);
}

/// Gives 10.240.0.5 once, as host-local does; `$SLOW` is run after that.
const STRICT: &str = r#"
echo $CNI_COMMAND >> /run/verbs
[ $CNI_COMMAND = DEL ] && { rm -f /run/given; exit 0; }
[ -e /run/given ] && { echo '{"code":100,"msg":"duplicate allocation is not allowed"}'; exit 1; }
touch /run/given
eval "$SLOW"
echo '{"ips":[{"address":"10.240.0.5/16"}]}'"#;

fn add_strictly(sandbox: &Sandbox) -> Exec {
    let plugins = sandbox.add_plugin("strict", STRICT);
    let conf = netconf_with(json!({"ipam": {"type": "strict"}}));
    fs::write("/run/conf", conf.to_string()).unwrap();
    sandbox
        .azure_vnet("ADD")
        .env("CNI_PATH", plugins)
        .env("PATH", "/usr/bin:/bin")
        .conf(&conf)
}

#[test]
fn the_address_of_a_leftover_is_given_back_before_another_is_asked_for() {
    let (sandbox, _loader) = node(Manner::Helpful);
    let result = add_strictly(&sandbox).run().document();
    sandbox.ip(&format!("link del {}", host_veth(&result)));
    add_strictly(&sandbox).run().document();
    assert_eq!(fs::read_to_string("/run/verbs").unwrap(), "ADD\nDEL\nADD\n");
}

/// Killed between the address and the first thing that is made with it.
#[test]
fn so_is_the_address_of_an_add_that_was_killed_before_it_made_anything() {
    let (sandbox, _loader) = node(Manner::Helpful);
    let mut killed = add_strictly(&sandbox).env("SLOW", "exec sleep 1000");
    let mut child = killed
        .command
        .stdin(fs::File::open("/run/conf").unwrap())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    eventually(|| fs::exists("/run/given").unwrap().then_some(()));
    child.kill().unwrap();
    child.wait().unwrap();
    add_strictly(&sandbox).run().document();
    assert_eq!(fs::read_to_string("/run/verbs").unwrap(), "ADD\nDEL\nADD\n");
}
