//! Row 97: many calls at once, as when a node restarts all its pods.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Mutex;

use crate::full::node;
use crate::loader::Manner;
use crate::sandbox::{Sandbox, Snapshot};

const THREADS: usize = 8;
const ATTACHMENTS: usize = 30;
/// How many pods of a thread live before it deletes the first.
const ALIVE: usize = 3;

/// Each thread has a few pods alive at a time, so that ADDs and DELs meet all the time.
#[test]
fn pods_that_come_and_go_at_once_get_each_their_own_address_and_leave_nothing() {
    let (sandbox, _loader) = node(Manner::Helpful);
    let before = sandbox.snapshot();
    let given = Mutex::new(BTreeSet::new());
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (sandbox, given) = (&sandbox, &given);
            scope.spawn(move || {
                let pods: Vec<(String, PathBuf)> = (0..ATTACHMENTS)
                    .map(|number| {
                        let id = format!("c{thread}-{number}");
                        let netns = sandbox.add_netns(&id);
                        (id, netns)
                    })
                    .collect();
                let run = |verb: &str, (id, netns): &(String, PathBuf)| {
                    sandbox
                        .azure_vnet(verb)
                        .env("CNI_CONTAINERID", id)
                        .env("CNI_NETNS", netns)
                        .run()
                };
                for (number, pod) in pods.iter().enumerate() {
                    let result = run("ADD", pod).document();
                    // Addresses rest after a DEL, so that none comes twice.
                    let address = result["ips"][0]["address"].to_string();
                    assert!(given.lock().unwrap().insert(address), "{result}");
                    if let Some(old) = number.checked_sub(ALIVE) {
                        run("DEL", &pods[old]).silence();
                    }
                }
                for pod in &pods[ATTACHMENTS - ALIVE..] {
                    run("DEL", pod).silence();
                }
            });
        }
    });
    assert_eq!(given.lock().unwrap().len(), THREADS * ATTACHMENTS);
    assert_eq!(sandbox.snapshot(), before);
}

/// Row 75: calls on one attachment have an order, whatever it is; each of them succeeds.
#[test]
fn adds_and_dels_of_one_attachment_at_once_all_succeed() {
    let (sandbox, _loader) = node(Manner::Helpful);
    let before: Snapshot = sandbox.snapshot();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let sandbox: &Sandbox = &sandbox;
            scope.spawn(move || {
                for round in 0..10 {
                    if (thread + round) % 2 == 0 {
                        sandbox.azure_vnet("ADD").run().document();
                    } else {
                        sandbox.azure_vnet("DEL").run().silence();
                    }
                }
            });
        }
    });
    sandbox.azure_vnet("DEL").run().silence();
    assert_eq!(sandbox.snapshot(), before);
}
