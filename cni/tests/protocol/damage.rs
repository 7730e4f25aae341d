//! Row 72 in bulk: state files that a bad disk has spoilt. Nobody gets an address that somebody has, and DEL works.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use serde_json::{Value, json};

use crate::disk::{address, other};
use crate::exec::{Exec, netconf_with};
use crate::faults::Fault;
use crate::full::node;
use crate::gc::{VALID, add, exists, gc, leases};
use crate::loader::Manner;
use crate::sandbox::Sandbox;

/// What a bad disk makes of a file.
type Damage = fn(&mut Vec<u8>);

const DAMAGES: [(&str, Damage); 5] = [
    ("cut in half", |bytes| bytes.truncate(bytes.len() / 2)),
    ("emptied", Vec::clear),
    ("a bit flipped", |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x04;
    }),
    // No text any more.
    ("the highest bit flipped", |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x80;
    }),
    ("zeros", |bytes| bytes.fill(0)),
];

fn state_files() -> BTreeSet<PathBuf> {
    let directories = ["endpoints", "ipam", "ipam/leases", "ipam/owners"];
    directories
        .iter()
        .flat_map(|directory| fs::read_dir(Path::new("/run/azure-vnet").join(directory)).unwrap())
        .map(|file| file.unwrap().path())
        .filter(|path| fs::metadata(path).unwrap().len() > 0 && path.is_file())
        .collect()
}

#[test]
fn a_spoilt_state_file_gives_no_address_twice_and_holds_no_del_up() {
    let (sandbox, _loader) = node(Manner::Helpful);
    sandbox.add_netns("next");
    sandbox.azure_vnet("ADD").run().document();
    sandbox.azure_vnet("DEL").run().silence();
    let before = sandbox.snapshot();
    let idle = state_files();
    let names: BTreeSet<_> = idle.iter().map(|path| path.file_name().unwrap()).collect();
    assert_eq!(names, ["boot", "pools.json"].map(AsRef::as_ref).into());
    for (damage, spoil) in DAMAGES {
        for number in 0..5 {
            let own = address(&sandbox.azure_vnet("ADD").run());
            let files = state_files();
            assert_eq!(files.len(), 5, "{files:?}");
            let path = files.into_iter().nth(number).unwrap();
            let case = format!("{}: {damage}", path.display());
            let mut bytes = fs::read(&path).unwrap();
            spoil(&mut bytes);
            fs::write(&path, bytes).unwrap();

            let next = address(&other(&sandbox, "next", "ADD").run());
            assert_ne!(next, own, "{case}");
            sandbox.azure_vnet("DEL").run().silence();
            other(&sandbox, "next", "DEL").run().silence();
            assert_eq!(sandbox.snapshot(), before, "{case}");
            sandbox.cache_pools(&(5..=250).collect::<Vec<u8>>());
        }
    }
}

/// What tells the boot, lost together with what tells an address: of that the other file still tells.
#[test]
fn a_spoilt_lease_without_its_boot_gives_no_address_twice() {
    let (sandbox, _loader) = node(Manner::Helpful);
    sandbox.add_netns("next");
    let before = sandbox.snapshot();
    for directory in ["leases", "owners"] {
        for (damage, spoil) in DAMAGES {
            for is_boot_deleted in [false, true] {
                let case = format!("{directory}: {damage}, boot deleted: {is_boot_deleted}");
                let own = address(&sandbox.azure_vnet("ADD").run());
                let boot = PathBuf::from("/run/azure-vnet/ipam/boot");
                let files = fs::read_dir(boot.with_file_name(directory)).unwrap();
                let files = files.map(|file| file.unwrap().path());
                for path in files.chain([boot.clone()]) {
                    let mut bytes = fs::read(&path).unwrap();
                    spoil(&mut bytes);
                    fs::write(&path, bytes).unwrap();
                }
                if is_boot_deleted {
                    fs::remove_file(boot).unwrap();
                }
                let next = address(&other(&sandbox, "next", "ADD").run());
                assert_ne!(next, own, "{case}");
                sandbox.azure_vnet("DEL").run().silence();
                other(&sandbox, "next", "DEL").run().silence();
                assert_eq!(sandbox.snapshot(), before, "{case}");
            }
        }
    }
}

/// Who looks at the record is told which file is spoilt, and what helps.
#[test]
fn a_spoilt_record_is_named_by_add_and_check() {
    let (sandbox, _loader) = node(Manner::Helpful);
    let conf = |result: &Value| netconf_with(json!({"cniVersion": "1.0.0", "prevResult": result}));
    let plain = netconf_with(json!({"cniVersion": "1.0.0"}));
    let result = sandbox.azure_vnet("ADD").conf(&plain).run().document();
    let record = "/run/azure-vnet/endpoints/azure:c1:eth0.json";
    fs::write(record, "spoilt").unwrap();
    for answer in [
        sandbox.azure_vnet("ADD").conf(&plain).run(),
        sandbox.azure_vnet("CHECK").conf(&conf(&result)).run(),
    ] {
        answer.error_saying(5, &[record, "damaged", "delete it and the pod"]);
    }
    sandbox.azure_vnet("DEL").run().silence();
    sandbox.azure_vnet("ADD").run().document();
    sandbox.azure_vnet("DEL").run().silence();
}

/// What the disk does not let us read may tell of addresses in use: then nobody gets any, and nothing is taken for free.
#[test]
fn a_state_file_that_cannot_be_read_is_told_and_frees_no_address() {
    const BOOT: &str = "/run/azure-vnet/ipam/boot";
    const LEASE: &str = "/run/azure-vnet/ipam/leases/10.240.0.5";
    for (below, errno) in [
        (BOOT, Errno::EIO),
        (BOOT, Errno::EACCES),
        (LEASE, Errno::EIO),
    ] {
        let sandbox = Sandbox::with_pod();
        sandbox.cache_pools(&[5, 6]);
        sandbox.ipam("ADD").run().document();
        if below == LEASE {
            rpc::write_json(Path::new(BOOT), &"another").unwrap();
        }
        let fault = Fault {
            below,
            first: 0,
            lasts: true,
            errno,
        };
        for verb in ["ADD", "DEL"] {
            let other = sandbox.ipam(verb).env("CNI_CONTAINERID", "other");
            let (answer, _) = other.run_with(fault);
            let number = format!("os error {}", errno as i32);
            answer.error_saying(5, &[below, &number, "check its file system"]);
            assert!(fs::exists(LEASE).unwrap(), "{verb}, {below}");
        }
        sandbox.ipam("DEL").run().silence();
        assert!(!fs::exists(LEASE).unwrap());
    }
}

/// The file of a long name is named by a digest, and only what is in it says whose it is: it holds nobody else up.
#[test]
fn a_record_of_an_unknown_pod_that_cannot_be_read_is_told_and_all_else_is_taken_away() {
    let (sandbox, _loader) = node(Manner::Helpful);
    sandbox.add_netns("long");
    let id = "c".repeat(200);
    let long = |verb| other(&sandbox, "long", verb).env("CNI_CONTAINERID", &id);
    let stays = long("ADD").run().document();
    let key = rpc::Key {
        network: "azure".into(),
        container_id: id.clone(),
        ifname: "eth0".into(),
    };
    let record = format!("/run/azure-vnet/endpoints/{}.json", key.file_name());
    let fault = Fault {
        below: record.leak(),
        first: 0,
        lasts: true,
        errno: Errno::EIO,
    };
    let collecting = || gc(&sandbox, &json!({VALID: []}));
    let leaving = || sandbox.azure_vnet("DEL").stdin(b"{");
    for (verb, code) in [(&leaving as &dyn Fn() -> Exec, 6), (&collecting, 5)] {
        let goes = sandbox.azure_vnet("ADD").run().document();
        let (answer, _) = verb().run_with(fault);
        answer.error_saying(code, &[fault.below, "os error 5", "check its file system"]);
        assert_eq!([&stays, &goes].map(exists), [true, false]);
        assert_eq!(leases(), 1, "its address, too, as it has a record");
    }
    // Our own IPAM plug-in is run all the same.
    let no_record = sandbox.ipam("ADD").env("CNI_CONTAINERID", "c2");
    no_record.run().document();
    collecting().run_with(fault).0.error(5);
    assert_eq!(leases(), 1);
    // Another one, which knows no records, is not: neither then nor when nobody could ever read it.
    let plugins = sandbox.add_plugin("other", "touch /run/asked");
    let other_ipam = |listed: Value| {
        gc(&sandbox, &json!({VALID: listed, "ipam": {"type": "other"}}))
            .env("CNI_PATH", &plugins)
            .env("PATH", "/usr/bin:/bin")
    };
    let nobody = || other_ipam(json!([]));
    let words = [fault.below, "the IPAM plug-in was not run"];
    nobody().run_with(fault).0.error_saying(5, &words);
    let whole = fs::read(fault.below).unwrap();
    fs::write(fault.below, "spoilt").unwrap();
    nobody().run().error_saying(5, &words);
    assert!(exists(&stays) && !fs::exists("/run/asked").unwrap());
    // Unless the list says whose the record is.
    let its_own = json!([{"containerID": id, "ifname": "eth0"}]);
    other_ipam(its_own).run().error_saying(5, &words[..1]);
    fs::remove_file("/run/asked").unwrap();
    fs::write(fault.below, whole).unwrap();
    collecting().run().silence();
    assert!(!exists(&stays));
    assert_eq!(leases(), 0);
}

#[test]
fn a_lock_file_that_fails_is_told_and_gc_takes_all_else_away() {
    let (sandbox, _loader) = node(Manner::Helpful);
    let pods = ["a", "b", "c"].map(|id| add(&sandbox, id, "azure"));
    let fault = Fault {
        below: "/run/azure-vnet/locks/azure:b:eth0",
        first: 0,
        lasts: true,
        errno: Errno::EIO,
    };
    let (answer, _) = gc(&sandbox, &json!({VALID: []})).run_with(fault);
    answer.error_saying(5, &[fault.below, "os error 5", "check its file system"]);
    assert_eq!(pods.each_ref().map(exists), [false, true, false]);
    assert_eq!(leases(), 1);
}

/// GC is not told the pod's name, by which a veth is called in mode `transparent`.
#[test]
fn gc_finds_the_veth_of_a_spoilt_record() {
    let (sandbox, _loader) = node(Manner::Helpful);
    let conf = netconf_with(json!({"cniVersion": "1.1.0", "mode": "transparent"}));
    let pod = sandbox.azure_vnet("ADD").conf(&conf).run().document();
    fs::write("/run/azure-vnet/endpoints/azure:c1:eth0.json", "spoilt").unwrap();
    gc(&sandbox, &json!({VALID: []})).run().silence();
    assert!(!exists(&pod));
    assert_eq!(leases(), 0);
}

/// A runtime that has lost all but the container's ID: ADD called the veth after the pod.
#[test]
fn a_del_that_knows_no_pod_finds_the_veth_by_its_address_and_no_other() {
    let (sandbox, _loader) = node(Manner::Helpful);
    sandbox.add_netns("next");
    let conf = netconf_with(json!({"cniVersion": "1.1.0", "mode": "transparent"}));
    let stays = other(&sandbox, "next", "ADD").conf(&conf).run().document();
    for arguments in ["", "K8S_POD_NAME"] {
        let goes = sandbox.azure_vnet("ADD").conf(&conf).run().document();
        fs::remove_file("/run/azure-vnet/endpoints/azure:c1:eth0.json").unwrap();
        let del = sandbox.azure_vnet("DEL").conf(&conf);
        del.env("CNI_ARGS", arguments).run().silence();
        assert_eq!([&stays, &goes].map(exists), [true, false], "{arguments}");
    }
}

/// Changes what a state file says, as an older or newer version of us would have written it: its checksum is right.
fn rewrite(path: &str, change: impl Fn(&mut serde_json::Map<String, Value>)) {
    let mut value: Value = rpc::read_json(Path::new(path)).unwrap();
    change(value.as_object_mut().unwrap());
    rpc::write_json(Path::new(path), &value).unwrap();
}

/// Row 72, of another schema: what is not known is passed over, and what lacks something is as good as damaged.
#[test]
fn a_state_file_of_another_version_gives_no_address_twice_and_holds_no_del_up() {
    const RECORD: &str = "/run/azure-vnet/endpoints/azure:c1:eth0.json";
    const LEASE: &str = "/run/azure-vnet/ipam/leases/10.240.0.5";
    let conf = |result: &Value| netconf_with(json!({"cniVersion": "1.0.0", "prevResult": result}));
    let plain = netconf_with(json!({"cniVersion": "1.0.0"}));
    for path in [RECORD, LEASE] {
        let (sandbox, _loader) = node(Manner::Helpful);
        sandbox.add_netns("next");
        let before = sandbox.snapshot();
        let add = || sandbox.azure_vnet("ADD").conf(&plain).run();
        let result = add().document();
        let check = || sandbox.azure_vnet("CHECK").conf(&conf(&result)).run();
        rewrite(path, |fields| {
            drop(fields.insert("later".into(), json!({"x": [1]})));
        });
        check().silence();
        assert_eq!(add().document(), result);

        rewrite(path, |fields| {
            let lost = if path == RECORD { "mtu" } else { "gateway" };
            fields.remove(lost).unwrap();
        });
        if path == RECORD {
            check().error_saying(5, &[path, "damaged", "mtu"]);
            add().error_saying(5, &[path, "damaged", "mtu"]);
        } else {
            // The owner's own file says the same.
            check().silence();
        }
        let next = address(&other(&sandbox, "next", "ADD").run());
        assert_ne!(next, result["ips"][0]["address"], "{path}");
        sandbox.azure_vnet("DEL").run().silence();
        other(&sandbox, "next", "DEL").run().silence();
        assert_eq!(sandbox.snapshot(), before, "{path}");
    }
}
