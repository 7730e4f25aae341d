//! Rows 72, 53 and 94 in bulk: every operation of ADD and DEL on files, sockets and BPF fails once, or from then on.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use nix::errno::Errno;
use serde_json::Value;

use crate::ends::mount_small;
use crate::exec::{Answer, Exec};
use crate::faults::{BPF, Fault, SOCKETS};
use crate::full::node;
use crate::loader::{Loader, Manner};
use crate::programs;
use crate::sandbox::{Sandbox, Snapshot};

/// Where we keep things.
const DISK: [&str; 4] = [
    "/run/azure-vnet/endpoints",
    "/run/azure-vnet/ipam",
    LOCKS,
    LOG,
];
const LOCKS: &str = "/run/azure-vnet/locks";
const LOG: &str = "/var/log";
/// What a disk says: broken, full, quota used up, read-only. The plug-ins do not tell them apart, so each fault has one of them.
const REASONS: [Errno; 4] = [Errno::EIO, Errno::ENOSPC, Errno::EDQUOT, Errno::EROFS];
/// Far more than any call does.
const MOST_OPERATIONS: usize = 500;

pub(crate) fn address(answer: &Answer) -> Value {
    answer.document()["ips"][0]["address"].clone()
}

/// A node with a pod that stays, and another container whose calls are harmed.
struct Disk {
    sandbox: Sandbox,
    before: Snapshot,
    bystander: Value,
    seen: BTreeMap<String, u32>,
    /// What was made to fail: `sync`, for example.
    kinds: BTreeSet<String>,
}

impl Disk {
    fn new() -> (Self, Loader) {
        let (sandbox, loader) = node(Manner::Helpful);
        sandbox.add_netns("bystander");
        sandbox.add_netns("next");
        let bystander = address(&other(&sandbox, "bystander", "ADD").run());
        sandbox.azure_vnet("ADD").run().document();
        sandbox.azure_vnet("DEL").run().silence();
        let before = sandbox.snapshot();
        let disk = Self {
            sandbox,
            before,
            bystander,
            seen: BTreeMap::new(),
            kinds: BTreeSet::new(),
        };
        (disk, loader)
    }

    /// `verb` on a disk that fails so; `None` when it did less than would have failed.
    fn harmed(&mut self, verb: &str, fault: Fault) -> Option<Answer> {
        let (answer, operations) = self.sandbox.azure_vnet(verb).run_with(fault);
        let failed = operations.get(fault.first)?;
        let kind = failed.split(' ').next().unwrap_or_default();
        self.kinds.insert(kind.to_owned());
        let case = format!("{verb}, {fault:?}: {failed}: {answer}");
        assert!(matches!(answer.status.code(), Some(0 | 1)), "{case}");
        let outcome = if answer.status.success() {
            "success"
        } else {
            let error: Value = serde_json::from_str(&answer.stdout).expect(&case);
            let told = format!("{}; {}", error["msg"], error["details"]);
            if DISK.contains(&fault.below) {
                // 11: DEL is to be tried again, because the IPAM plug-in could not do its part.
                let is_code = error["code"] == 5 || (verb == "DEL" && error["code"] == 11);
                assert!(is_code && told.contains(fault.below), "{case}");
                assert!(told.contains("file system"), "a remedy: {case}");
                assert_ne!(fault.below, LOG, "{case}");
            }
            assert!(told.contains("failed at step"), "{case}");
            if verb == "ADD" && !fault.lasts && !told.contains("could not undo") {
                let [mut left, mut before] = [self.sandbox.snapshot(), self.before.clone()];
                if fault.below == LOCKS {
                    // A lock that cannot be looked at stays: it may hold the draft of a call that was killed.
                    left.forget_below(LOCKS);
                    before.forget_below(LOCKS);
                }
                assert_eq!(left, before, "{case}");
            }
            "error"
        };
        let place = Path::new(fault.below)
            .file_name()
            .unwrap()
            .to_string_lossy();
        *self
            .seen
            .entry(format!("{verb}, {place}: {outcome}"))
            .or_default() += 1;
        Some(answer)
    }

    /// The disk is well again: DEL succeeds at once, and nothing is left. Whoever came meanwhile has an address of its own.
    fn heals(&self, given: Option<&Value>, case: &str) {
        let next = address(&other(&self.sandbox, "next", "ADD").run());
        assert_ne!(next, self.bystander, "{case}");
        assert_ne!(Some(&next), given, "{case}");
        other(&self.sandbox, "next", "DEL").run().silence();
        self.sandbox.azure_vnet("DEL").run().silence();
        let mut after = self.sandbox.snapshot();
        // A note for a loader that could not be asked.
        after.forget_loader();
        let mut before = self.before.clone();
        before.forget_loader();
        assert_eq!(after, before, "{case}");
        // A rest of 30 s would use the pool up.
        for mark in fs::read_dir("/run/azure-vnet/ipam/released").unwrap() {
            fs::remove_file(mark.unwrap().path()).unwrap();
        }
    }
}

/// A call about another container.
pub(crate) fn other(sandbox: &Sandbox, name: &str, verb: &str) -> Exec {
    sandbox
        .azure_vnet(verb)
        .env("CNI_CONTAINERID", name)
        .env("CNI_NETNS", format!("/run/netns/{name}"))
        .env(
            "CNI_ARGS",
            format!("K8S_POD_NAMESPACE=ns;K8S_POD_NAME={name}"),
        )
}

/// Every fault that `verb` can meet, one after the other. What kinds of operations there were.
fn every_fault(verb: &str, places: &[&'static str]) -> Vec<String> {
    let (mut disk, _loader) = Disk::new();
    for below in places {
        for lasts in [false, true] {
            for first in 0..MOST_OPERATIONS {
                let fault = Fault {
                    below,
                    first,
                    lasts,
                    errno: REASONS[first % REASONS.len()],
                };
                let mut given = None;
                if verb == "DEL" {
                    given = Some(address(&disk.sandbox.azure_vnet("ADD").run()));
                }
                let answer = disk.harmed(verb, fault);
                let is_over = answer.is_none();
                if let Some(answer) = answer {
                    if verb == "ADD" {
                        given = answer.status.success().then(|| address(&answer));
                    } else if answer.status.success() {
                        given = None;
                    }
                }
                disk.heals(given.as_ref(), &format!("{verb}, {fault:?}"));
                if is_over {
                    break;
                }
            }
        }
    }
    println!("{:#?}", disk.seen);
    disk.kinds.into_iter().collect()
}

#[test]
fn whatever_fails_on_the_disk_add_is_done_or_undone() {
    let kinds = [
        "list", "lock", "mkdir", "open", "read", "rename", "stat", "sync", "truncate", "unlink",
        "write",
    ];
    assert_eq!(every_fault("ADD", &DISK), kinds);
}

#[test]
fn whatever_fails_on_the_disk_del_can_be_tried_again() {
    every_fault("DEL", &DISK);
}

#[test]
fn whatever_fails_in_the_kernel_add_is_done_or_undone() {
    every_fault("ADD", &[SOCKETS, BPF]);
}

#[test]
fn whatever_fails_in_the_kernel_del_can_be_tried_again() {
    every_fault("DEL", &[SOCKETS, BPF]);
}

/// A node whose state lies on a small disk of its own.
fn small_disk(options: &str) -> (Sandbox, Loader) {
    let sandbox = Sandbox::with_pod();
    fs::create_dir("/run/azure-vnet").unwrap();
    mount_small("/run/azure-vnet", options);
    programs::pin();
    sandbox.cache_pools(&[5, 6]);
    sandbox.add_netns("next");
    (sandbox, Loader::start(Manner::Helpful))
}

/// DEL makes room, so it must not need any; also when it has to leave a note for a loader that is away.
#[test]
fn del_needs_no_room_on_a_disk_that_is_full() {
    for loader_is_there in [true, false] {
        let (sandbox, _loader) = small_disk("size=256k");
        let mut before = sandbox.snapshot();
        sandbox.azure_vnet("ADD").run().document();
        let filler = Path::new("/run/azure-vnet/filler");
        let full = fs::write(filler, vec![1; 1 << 20]).unwrap_err();
        assert_eq!(full.kind(), ErrorKind::StorageFull);
        let words = ["/run/azure-vnet/", "No space left", "file system"];
        other(&sandbox, "next", "ADD").run().error_saying(5, &words);

        if !loader_is_there {
            fs::remove_file("/run/azure-vnet/loader.sock").unwrap();
        }
        sandbox.azure_vnet("DEL").run().silence();
        let note = Path::new("/run/azure-vnet/endpoints/azure:c1:eth0.deleted");
        assert_ne!(note.exists(), loader_is_there);
        fs::remove_file(filler).unwrap();
        let mut after = sandbox.snapshot();
        if !loader_is_there {
            after.forget_loader();
            before.forget_loader();
        }
        assert_eq!(after, before);
    }
}

/// A lock is a file, too. Without room for one, nothing is touched.
#[test]
fn a_disk_that_takes_no_more_files_is_named_and_del_can_be_tried_again() {
    let (sandbox, _loader) = small_disk("nr_inodes=60");
    let before = sandbox.snapshot();
    sandbox.azure_vnet("ADD").run().document();
    let fillers = (0..100)
        .map(|number| format!("/run/azure-vnet/{number}"))
        .take_while(|path| fs::write(path, "").is_ok())
        .collect::<Vec<_>>();
    let words = ["/run/azure-vnet/locks/", "No space left", "df -i"];
    for verb in ["ADD", "DEL"] {
        other(&sandbox, "next", verb).run().error_saying(5, &words);
        sandbox.azure_vnet(verb).run().error_saying(5, &words);
    }
    for path in &fillers {
        fs::remove_file(path).unwrap();
    }
    sandbox.azure_vnet("DEL").run().silence();
    assert_eq!(sandbox.snapshot(), before);
}
