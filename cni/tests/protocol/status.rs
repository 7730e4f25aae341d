//! STATUS: says whether ADD could be served, and what to do when not.

use std::fs;
use std::time::Duration;

use hooks::{Hook, Pins};
use serde_json::json;

use crate::exec::{Exec, netconf_with};
use crate::full::node;
use crate::loader::{Loader, Manner};
use crate::sandbox::Sandbox;

/// Only `CNI_COMMAND` and `CNI_PATH`.
fn status(exec: Exec) -> Exec {
    let variables = ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS"];
    let exec = variables.into_iter().fold(exec, Exec::unset);
    exec.conf(&netconf_with(json!({"cniVersion": "1.1.0"})))
}

/// A node whose NIC has its programs, too.
fn ready() -> (Sandbox, Loader) {
    let (sandbox, loader) = node(Manner::Helpful);
    sandbox.ip("link add eth0 type veth peer name wire");
    let pins = Pins::default();
    for hook in Hook::NIC {
        let mut program = hooks::open(&pins, hook).unwrap();
        hooks::attach(&pins, hook, &mut program, "eth0").unwrap();
    }
    (sandbox, loader)
}

/// Rows 89 and 91: quick, silent, and it may be asked as often as one likes.
#[test]
fn a_healthy_node_says_nothing_and_writes_nothing() {
    let (sandbox, _loader) = ready();
    status(sandbox.azure_vnet("STATUS")).run().silence();
    let before = sandbox.snapshot();
    let mut took = Vec::new();
    for _ in 0..50 {
        for exec in [sandbox.azure_vnet("STATUS"), sandbox.ipam("STATUS")] {
            let answer = status(exec).run();
            answer.silence();
            took.push(answer.took);
        }
    }
    took.sort();
    let median = took[took.len() / 2];
    println!("STATUS: median {median:?}");
    assert!(median < Duration::from_millis(100), "{median:?}");
    assert_eq!(sandbox.snapshot(), before);
    assert!(!fs::exists("/var/log/azure-vnet.log").unwrap());
    assert!(!fs::exists("/var/log/azure-vnet-ipam.log").unwrap());
}

/// Row 90.
#[test]
fn whatever_keeps_add_from_working_is_told_with_its_remedy() {
    let (sandbox, _loader) = ready();
    let fails = |code, words: &[&str]| {
        status(sandbox.azure_vnet("STATUS"))
            .run()
            .error_saying(code, words);
    };
    sandbox.cache_pools(&[5]);
    let pod = sandbox.ipam("ADD").run();
    pod.document();
    fails(
        50,
        &[
            "No available addresses",
            "1 of 1 used",
            "add secondary addresses",
        ],
    );
    // An address that rests will be there in a moment: no reason to take the node out of service.
    sandbox.ipam("DEL").run().silence();
    status(sandbox.azure_vnet("STATUS")).run().silence();

    let conf = netconf_with(json!({"cniVersion": "1.1.0", "master": "eth7"}));
    status(sandbox.ipam("STATUS"))
        .conf(&conf)
        .run()
        .error_saying(50, &["eth7"]);

    // At once: the kernel undoes a link whose pin was removed a moment later.
    hooks::remove(&Pins::default(), "eth0").unwrap();
    fails(51, &["to_wire", "eth0", "journalctl"]);
    fs::remove_file("/sys/fs/bpf/azure-vnet/v1/programs/to_pod").unwrap();
    fails(50, &["to_pod"]);
    fs::remove_file("/run/azure-vnet/loader.sock").unwrap();
    fails(50, &["loader.sock", "systemctl status azure-vnet-loader"]);
    status(sandbox.azure_vnet("STATUS"))
        .env("CNI_PATH", "/nowhere")
        .run()
        .error_saying(50, &["azure-vnet-ipam", "/nowhere"]);
}

/// Its own error is the answer; what is no answer keeps ADD from working.
#[test]
fn a_broken_ipam_plugin_is_told_from_one_that_says_no() {
    let (sandbox, _loader) = ready();
    for (script, code, words) in [
        ("echo nonsense; exit 1", 50, ["no CNI answer", "nonsense"]),
        (
            r#"echo '{"code": 51, "msg": "mine", "details": "own"}'; exit 1"#,
            51,
            ["mine", "own"],
        ),
    ] {
        let plugins = sandbox.add_plugin("azure-vnet-ipam", script);
        status(sandbox.azure_vnet("STATUS"))
            .env("CNI_PATH", plugins)
            .run()
            .error_saying(code, &words);
    }
}

/// Pools that were never read: the loader is asked, and when it has none either, that is the reason.
#[test]
fn without_pools_the_loader_is_asked_for_them() {
    let (sandbox, loader) = ready();
    fs::remove_file("/run/azure-vnet/ipam/pools.json").unwrap();
    status(sandbox.azure_vnet("STATUS")).run().silence();
    assert_eq!(loader.requests(), ["node", "health", "refresh_pools"]);
    fs::remove_file("/run/azure-vnet/loader.sock").unwrap();
    status(sandbox.ipam("STATUS"))
        .run()
        .error_saying(50, &["addresses are not known yet", "loader.sock"]);
}

/// containerd waits for STATUS without a limit of its own.
#[test]
fn a_loader_that_hangs_does_not_hang_status() {
    let sandbox = Sandbox::with_pod();
    let _loader = Loader::start(Manner::Hanging);
    let answer = status(sandbox.azure_vnet("STATUS")).run();
    answer.error_saying(50, &["no answer within"]);
    assert!(answer.took < Duration::from_secs(10), "{:?}", answer.took);
}
