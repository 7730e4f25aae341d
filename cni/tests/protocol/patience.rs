//! Everybody is late: whoever waits says what for, before anybody kills it.

use std::fs::{self, File};
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use crate::delegate::eventually;
use crate::exec::{netconf_with, pass};
use crate::loader::{Loader, Manner};
use crate::sandbox::Sandbox;

/// Holds a lock of the plug-ins until it is dropped.
fn hold(path: &str) -> File {
    fs::create_dir_all(Path::new(path).parent().unwrap()).unwrap();
    let file = File::create(path).unwrap();
    file.lock().unwrap();
    file
}

/// The IPAM plug-in gives up before the main one kills it, so that the reason comes out.
#[test]
fn an_ipam_plugin_that_waits_for_its_lock_says_so() {
    let sandbox = Sandbox::with_pod();
    sandbox.cache_pools(&[5]);
    let _loader = Loader::start(Manner::Helpful);
    let _held = hold("/run/azure-vnet/ipam/lock");
    let answer = sandbox.azure_vnet("ADD").run();
    answer.error_saying(
        11,
        &[
            "wait for the lock /run/azure-vnet/ipam/lock",
            "for 4 s",
            "failed at step `ipam`",
        ],
    );
    assert!(answer.took < Duration::from_secs(12), "{:?}", answer.took);
}

#[test]
fn an_add_whose_attachment_is_busy_says_so() {
    let sandbox = Sandbox::with_pod();
    let _held = hold("/run/azure-vnet/locks/azure:c1:eth0");
    let answer = sandbox.azure_vnet("ADD").run();
    answer.error_saying(
        11,
        &[
            "wait for the lock /run/azure-vnet/locks/azure:c1:eth0",
            &format!("process {} held it for 4 s", std::process::id()),
            "failed at step `lock`",
        ],
    );
    assert!(answer.took < Duration::from_secs(6), "{:?}", answer.took);
}

/// Contract 1.6: 20 s in all, even when the loader takes nearly as long as it may and the IPAM plug-in hangs at ADD and at DEL.
#[test]
fn an_add_where_everything_is_late_ends_in_time() {
    let sandbox = Sandbox::with_pod();
    let _loader = Loader::start(Manner::Slow);
    let before = sandbox.snapshot();
    let plugins = sandbox.add_plugin("hanging", "exec sleep 1000");
    let answer = sandbox
        .azure_vnet("ADD")
        .env("CNI_PATH", plugins)
        .env("PATH", "/usr/bin:/bin")
        .conf(&netconf_with(json!({"ipam": {"type": "hanging"}})))
        .run();
    answer.error_saying(104, &["no end within", "failed at step `ipam`"]);
    assert!(answer.took < Duration::from_secs(20), "{:?}", answer.took);
    // It may hold an address, and nobody could ask: DEL will.
    let plugins = sandbox.add_plugin("hanging", "true");
    let del = sandbox.azure_vnet("DEL").env("CNI_PATH", plugins);
    del.run().silence();
    assert_eq!(sandbox.snapshot(), before);
}

/// The runtime may ask for DEL while an ADD that it gave up still ends.
#[test]
fn a_del_waits_longer_for_an_add_than_another_add_would() {
    let sandbox = Sandbox::with_pod();
    let held = hold("/run/azure-vnet/locks/azure:c1:eth0");
    std::thread::scope(|scope| {
        scope.spawn(move || {
            pass(Duration::from_secs(7));
            drop(held);
        });
        let answer = sandbox.azure_vnet("DEL").run();
        answer.silence();
        assert!(answer.took > Duration::from_secs(6), "{:?}", answer.took);
    });
}

/// A main plug-in waits 10 s for the IPAM plug-in's GC: however many addresses there are to free, it ends before and says why.
#[test]
fn a_gc_of_addresses_whose_lock_is_held_ends_in_time() {
    let sandbox = Sandbox::with_pod();
    sandbox.cache_pools(&(5..=204).collect::<Vec<u8>>());
    for number in 0..200 {
        let id = format!("c{number}");
        sandbox.ipam("ADD").env("CNI_CONTAINERID", id).run();
    }
    let leases = || {
        let leases = fs::read_dir("/run/azure-vnet/ipam/leases").unwrap();
        leases.count()
    };
    let gc = || {
        let conf = json!({"cniVersion": "1.1.0", "cni.dev/valid-attachments": []});
        sandbox.ipam("GC").conf(&netconf_with(conf))
    };
    assert_eq!(leases(), 200);
    std::thread::scope(|scope| {
        let collecting = scope.spawn(|| gc().run());
        eventually(|| (leases() < 200).then_some(()));
        let held = hold("/run/azure-vnet/ipam/lock");
        let answer = collecting.join().unwrap();
        let left = leases();
        drop(held);
        assert!(left > 3, "{left}: there was hardly anything to wait for");
        answer.error_saying(
            11,
            &[
                "ipam/lock",
                "for 4 s",
                "all that was left of this call's time",
            ],
        );
        let seconds = answer.took.as_secs_f32();
        assert!((8.5..10.0).contains(&seconds), "{seconds} s");
    });
    gc().run().silence();
    assert_eq!(leases(), 0);
}
