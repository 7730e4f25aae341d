//! What the loader frees by itself.

use std::time::Duration;

use lab::{Lab, eventually};
use serde_json::{Value, json};

use crate::leaks::{give, hidden};
use crate::{ADDRESSES, ipam, told, write_originals};

/// Found at the start and half a minute later: not a DEL that is on its way. A pod's with a record is freed; what only looks
/// leaked, because a path is gone or a record missing, is an operator's to judge, be it Azure's, `ptp`'s or our own.
#[test]
fn the_loader_frees_what_a_record_proves_leaked_twice_in_a_row_and_warns_of_what_looks_so() {
    let lab = Lab::new().nodes(1).build().unwrap();
    let node = lab.node(1);
    let old = node.new_netns("old").unwrap();
    let secondaries = node.secondaries().unwrap();
    let ip = |at: usize| secondaries[at].to_string();
    let (_, given) = write_originals(node, &ip(0), old.netns().to_str().unwrap());
    let mut given: Value = serde_json::from_str(&given).unwrap();
    let pool = &mut given["IPAM"]["AddressSpaces"]["local"]["Pools"]["10.240.0.0/16"];
    for (at, id) in [(1, "3f813b02cdd4"), (2, "")] {
        pool["Addresses"][ip(at)] = json!({"ID": id, "Addr": ip(at), "InUse": true});
    }
    node.write(ADDRESSES, &given.to_string()).unwrap();
    node.start_loader().unwrap();
    let [alive, gone] = ["alive", "gone"].map(|name| node.add_pod(name).unwrap());
    give(node, "azure-vnet", "lost", &hidden(node));
    give(node, "bridge", "unknown", &hidden(node));
    give(node, "ptp", "dead", "/run/netns/dead");
    old.remove_netns().unwrap();
    gone.remove_netns().unwrap();
    node.loader().kill9().unwrap();
    node.start_loader().unwrap();
    let freed = || node.status().unwrap()["leaks_freed"].as_u64().unwrap();
    assert_eq!(ipam(node, &["show"]).1.len(), 8);
    assert_eq!(freed(), 0);

    let done = eventually(Duration::from_mins(1), || (freed() == 1).then_some(()));
    let (_, left) = ipam(node, &["show"]);
    assert!(done.is_some(), "{left:#?}\n{}", node.loader().log());
    assert_eq!(
        told(&left, "state"),
        [
            "leaked", "unknown", "unknown", "used", "leaked", "unknown", "leaked"
        ]
    );
    let log = node.loader().log();
    assert!(
        log.contains("freed an address that nobody would have given back")
            && log.contains("an address looks leaked, which nothing proves"),
        "{log}"
    );
    let status = node.exec(&["vnetctl", "status"]).unwrap();
    for words in [
        "Leaks       1 addresses",
        "3 addresses look leaked",
        "vnetctl ipam gc",
    ] {
        assert!(status.contains(words), "{status}");
    }
    assert!(!status.contains("cannot be freed"), "{status}");
    assert_eq!(
        alive.tcp(lab.inet().addr(), 8080).unwrap().peer_ip(),
        node.addr()
    );
}
