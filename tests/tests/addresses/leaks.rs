//! Addresses that nobody gives back: found, freed by hand, and never those of pods that live.

use lab::libcni::Attachment;
use lab::{Lab, Node, Pod};
use serde_json::{Value, json};

use crate::{ipam, lab, soon, told, write_originals};

/// An address without record, for a main plug-in, in a namespace.
pub(crate) fn give(node: &Node, plugin: &str, id: &str, netns: &str) {
    give_from(node, &[], plugin, id, netns);
}

fn give_from(node: &Node, from: &[&str], plugin: &str, id: &str, netns: &str) {
    let variables = [
        "CNI_COMMAND=ADD",
        &format!("CNI_CONTAINERID={id}"),
        "CNI_IFNAME=eth0",
        &format!("CNI_NETNS={netns}"),
        "CNI_PATH=/opt/cni/bin",
    ];
    let line = [
        from,
        &["env"],
        variables.as_slice(),
        &["/opt/cni/bin/azure-vnet-ipam"],
    ]
    .concat();
    let conf = json!({"cniVersion": "1.0.0", "name": "azure", "type": plugin, "ipam": {"type": "azure-vnet-ipam"}});
    let done = node.feed(&line, conf.to_string().as_bytes()).unwrap();
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stdout)
    );
}

/// A path of which nobody can tell what is there.
pub(crate) fn hidden(node: &Node) -> String {
    let path = "/run/netns/hidden";
    node.exec(&["ln", "-sfn", "hidden", path]).unwrap();
    path.to_owned()
}

/// `vnetctl ipam free`: whether it succeeds, and what it says.
fn free(node: &Node, address: &str) -> (bool, String) {
    let line = ["vnetctl", "ipam", "free", address];
    let done = node.feed(&line, b"").unwrap();
    let stdout = String::from_utf8(done.stdout).unwrap();
    (done.status.success(), stdout + &done.stderr)
}

#[track_caller]
fn refused(node: &Node, address: &str, words: &[&str]) {
    let (fine, text) = free(node, address);
    let says_all = words.iter().all(|word| text.contains(word));
    assert!(!fine && says_all, "{text}");
}

#[test]
fn addresses_that_nobody_gives_back_are_found_and_freed_and_those_of_pods_that_live_are_not() {
    let lab = lab();
    let node = lab.node(1);
    let [alive, gone] = ["alive", "gone"].map(|name| node.add_pod(name).unwrap());
    let netns = alive.netns().to_str().unwrap().to_owned();
    give(node, "bridge", "bridged", &netns);
    give(node, "azure-vnet", "lost", &hidden(node));
    give(node, "ptp", "dead", "/run/netns/dead");
    let (fine, rows) = ipam(node, &["check"]);
    assert!(!fine);
    assert_eq!(told(&rows, "container_id"), ["lost", "dead"]);
    // Its owner's own file says the same.
    let lease = format!(
        "/run/azure-vnet/ipam/leases/{}",
        rows[1]["address"].as_str().unwrap()
    );
    node.write(&lease, "damaged").unwrap();
    assert_eq!(
        told(&ipam(node, &["check"]).1, "container_id"),
        ["lost", "dead"]
    );
    let address = gone.addr().to_string();
    let veth = gone.result()["interfaces"][1]["name"]
        .as_str()
        .unwrap()
        .to_owned();
    gone.remove_netns().unwrap();
    // The kernel takes the veth away in its own time, and as long as it is there the pod counts as alive.
    soon("no veth", || {
        !node.exec(&["ip", "-br", "link"]).unwrap().contains(&veth)
    });

    let (fine, rows) = ipam(node, &["gc", "--dry-run"]);
    assert!(fine);
    assert_eq!(rows.len(), 3);
    assert_eq!(rows[0]["address"], address);
    for (row, why) in rows
        .iter()
        .zip(["is gone", "no endpoint record", "/run/netns/dead is gone"])
    {
        let text = row["why"].as_str().unwrap();
        assert!(text.contains(why) && row["freed"] == false, "{row}");
    }
    assert_eq!(ipam(node, &["show"]).1.len(), 5);

    let (fine, rows) = ipam(node, &["gc", "--bin-dir", "/nowhere"]);
    assert!(
        !fine
            && rows.iter().all(|row| row["error"]
                .as_str()
                .is_some_and(|why| why.contains("/nowhere"))),
        "{rows:?}"
    );
    let (fine, rows) = ipam(node, &["gc"]);
    assert!(
        fine && rows.iter().all(|row| row["freed"] == true),
        "{rows:?}"
    );
    assert_eq!(ipam(node, &["check"]), (true, Vec::new()));
    let (_, left) = ipam(node, &["show"]);
    assert_eq!(
        told(&left, "container_id"),
        [alive.container_id(), "bridged"]
    );
    assert_eq!(told(&left, "state"), ["used", "used"]);
    assert!(!node.exec(&["ip", "-br", "link"]).unwrap().contains(&veth));
    let table = node.exec(&["vnetctl", "ipam", "show"]).unwrap();
    assert!(
        table.starts_with("ADDRESS ") && table.contains(" default/alive "),
        "{table}"
    );
    assert_eq!(
        alive.tcp(lab.inet().addr(), 8080).unwrap().peer_ip(),
        node.addr()
    );
}

/// Without a record, a route or a word of its namespace: `azure-vnet` would have made all of them. But not in one that lives.
#[test]
fn a_namespace_that_lives_is_reason_enough_to_leave_its_address_alone() {
    let lab = lab();
    let node = lab.node(1);
    let alive = node.new_netns("alive").unwrap();
    give(node, "azure-vnet", "made", alive.netns().to_str().unwrap());
    assert_eq!(told(&ipam(node, &["show"]).1, "state"), ["used"]);
    assert_eq!(ipam(node, &["gc"]), (true, Vec::new()));
    alive.remove_netns().unwrap();
    assert_eq!(ipam(node, &["gc"]).1.len(), 1);
}

/// Who sees neither namespaces nor veths, as in a container, knows nothing; who sees what is mounted on the node does.
#[test]
fn from_a_container_that_does_not_see_the_pods_nothing_is_found_leaked() {
    let lab = lab();
    let node = lab.node(1);
    node.exec(&["mount", "--make-shared", "/"]).unwrap();
    let pods = ["one", "two"].map(|name| node.add_pod(name).unwrap());
    let from = |unshare: &[&str], arguments: &[&str]| {
        let line = [
            &["unshare"],
            unshare,
            &["vnetctl", "-o", "json", "ipam"],
            arguments,
        ]
        .concat();
        node.feed(&line, b"").unwrap()
    };
    for (unshare, why) in [
        (["--net"].as_slice(), "hostNetwork: true"),
        (&["--mount"], "HostToContainer"),
        (&["--net", "--mount"], "hostNetwork: true"),
    ] {
        let address = pods[0].addr().to_string();
        for arguments in [["check"].as_slice(), &["gc"], &["free", &address]] {
            let done = from(unshare, arguments);
            assert!(
                !done.status.success() && done.stderr.contains(why),
                "{}",
                done.stderr
            );
        }
    }
    assert_eq!(told(&ipam(node, &["show"]).1, "state"), ["used", "used"]);
    let [one, _two] = pods;
    one.remove_netns().unwrap();
    let follower = ["--mount", "--propagation", "slave"];
    soon("the pod that is gone", || {
        let found: Value = serde_json::from_slice(&from(&follower, &["gc"]).stdout).unwrap();
        found.as_array().unwrap().len() == 1
    });
}

/// For an owner that nobody can ask any more. A pod that lives keeps what it has.
#[test]
fn one_address_is_freed_by_hand_unless_a_live_pod_has_it() {
    let lab = lab();
    let node = lab.node(1);
    let alive = node.add_pod("alive").unwrap();
    give(node, "bridge", "unknown", &hidden(node));
    let (_, rows) = ipam(node, &["show"]);
    assert_eq!(told(&rows, "state"), ["used", "unknown"]);
    let address = alive.addr().to_string();
    let netns = alive.netns().to_str().unwrap();
    let words = [
        "in use",
        "default/alive",
        alive.container_id(),
        netns,
        "delete the pod",
    ];
    refused(node, &address, &words);
    // However damaged its record is.
    let record = node
        .exec(&["sh", "-c", "ls /run/azure-vnet/endpoints/*.json"])
        .unwrap();
    node.write(record.trim(), "damaged").unwrap();
    refused(node, &address, &["in use", alive.container_id()]);
    let nobodys = node.secondaries().unwrap()[9].to_string();
    refused(node, &nobodys, &["given to nobody"]);
    let unknown = rows[1]["address"].as_str().unwrap();
    let (fine, text) = free(node, unknown);
    assert!(fine && text.contains("freed"), "{text}");
    refused(node, unknown, &["given to nobody"]);
    assert_eq!(ipam(node, &["show"]).1.len(), 1);
    assert_eq!(
        alive.tcp(lab.inet().addr(), 8080).unwrap().peer_ip(),
        node.addr()
    );
}

/// `ctr run` with the same ID, or a podman container that is started again: between the look and the DEL an ADD may come.
#[test]
fn what_an_add_makes_anew_before_the_del_of_a_leak_stays() {
    let lab = lab();
    let node = lab.node(1);
    let gone = node.add_pod("gone").unwrap();
    give(node, "ptp", "dead", "/run/netns/dead");
    gone.remove_netns().unwrap();
    soon("two leaks", || ipam(node, &["check"]).1.len() == 2);
    let again = node.new_netns("again").unwrap();
    let netns = again.netns().to_str().unwrap();
    node.exec(&["mkdir", "/run/late"]).unwrap();
    for plugin in ["azure-vnet", "azure-vnet-ipam"] {
        let conf = json!({"cniVersion": "1.0.0", "name": "azure", "type": "azure-vnet", "mode": "transparent", "allowNonKubernetes": true,
            "ipam": {"type": "azure-vnet-ipam"}});
        let script = format!(
            "#!/bin/sh\nexport CNI_PATH=/opt/cni/bin\ndel=$(/bin/cat)\n\
             echo '{conf}' | CNI_COMMAND=ADD CNI_NETNS={netns} /opt/cni/bin/{plugin} >&2 || exit 1\n\
             echo \"$del\" | /opt/cni/bin/{plugin}\n"
        );
        let path = format!("/run/late/{plugin}");
        node.write(&path, &script).unwrap();
        node.exec(&["chmod", "+x", &path]).unwrap();
    }
    assert!(ipam(node, &["gc", "--bin-dir", "/run/late"]).0);
    let (_, rows) = ipam(node, &["show"]);
    assert_eq!(told(&rows, "state"), ["used", "used"]);
    let of_pod = told(&rows, "container_id")
        .iter()
        .position(|id| id != "dead");
    let address = &told(&rows, "address")[of_pod.unwrap()];
    let route = node.exec(&["ip", "route", "show", address]).unwrap();
    assert!(route.contains("dev azv"), "{route}");
    again.remove_netns().unwrap();
    soon("both are freed", || {
        ipam(node, &["gc"]);
        ipam(node, &["show"]).1.is_empty()
    });
}

/// As when a process gets the number of a dead one: `/proc/4711/ns/net`.
#[test]
fn another_namespace_at_the_same_path_keeps_no_address() {
    let lab = lab();
    let node = lab.node(1);
    let [alive, later] = ["alive", "later"].map(|name| node.new_netns(name).unwrap());
    let path = "/run/netns/number";
    let leads_to = |pod: &Pod| {
        let netns = pod.netns().to_str().unwrap();
        node.exec(&["ln", "-sfn", netns, path]).unwrap()
    };
    leads_to(&alive);
    give(node, "ptp", "one", path);
    assert_eq!(told(&ipam(node, &["show"]).1, "state"), ["used"]);
    leads_to(&later);
    assert_eq!(ipam(node, &["gc"]).1.len(), 1);

    // One with a record dies with its namespace.
    leads_to(&alive);
    let conflist = node.network().unwrap();
    let attachment = Attachment::of_pod("numbered", "two", Some(path.into()));
    conflist.add(node, &attachment).unwrap();
    alive.remove_netns().unwrap();
    leads_to(&later);
    soon("its veth is gone", || ipam(node, &["check"]).1.len() == 1);
    let (fine, freed) = ipam(node, &["gc"]);
    assert!(fine && told(&freed, "container_id") == ["two"], "{freed:?}");
    assert!(ipam(node, &["show"]).1.is_empty());
}

/// One that was given in a container of its own, say.
#[test]
fn a_lease_that_was_written_from_elsewhere_blinds_nobody_for_the_others() {
    let lab = lab();
    let node = lab.node(1);
    give_from(node, &["unshare", "--net"], "ptp", "odd", "/run/netns/odd");
    give(node, "ptp", "dead", "/run/netns/dead");
    let (_, rows) = ipam(node, &["show"]);
    assert_eq!(told(&rows, "state"), ["unknown", "leaked"]);
    let why = rows[0]["why"].as_str().unwrap();
    assert!(why.contains("another network namespace"), "{why}");
    // Nor is it freed by hand from where nobody can see whether its pod lives.
    let ip = rows[0]["address"].as_str().unwrap();
    let words = ["given from elsewhere", "another network namespace"];
    refused(node, ip, &words);
    assert_eq!(ipam(node, &["show"]).1, rows);

    // What made it is gone, so that nobody sees what it saw: the message has the line that frees it.
    let told_how = node.feed(&["vnetctl", "ipam", "free", ip], b"").unwrap();
    let line = told_how.stderr.split_once("run as root: ");
    let (_, line) = line.unwrap_or_else(|| panic!("{}", told_how.stderr));
    node.exec(&["sh", "-c", line]).unwrap();
    let freed = ipam(node, &["gc"]).1;
    assert_eq!(told(&freed, "container_id"), ["dead"]);
    assert!(ipam(node, &["show"]).1.is_empty());
}

/// Veth and route go with a namespace, wherever it is bound: also one of a pod that Azure's plug-in or `ptp` made.
#[test]
fn an_address_that_a_route_leads_to_is_no_leak_whatever_became_of_its_namespaces_path() {
    let lab = Lab::new().nodes(1).build().unwrap();
    let node = lab.node(1);
    let old = node.new_netns("old").unwrap();
    let ip = node.secondaries().unwrap()[0].to_string();
    write_originals(node, &ip, old.netns().to_str().unwrap());
    node.start_loader().unwrap();
    give(node, "ptp", "dead", "/run/netns/dead");
    old.remove_netns().unwrap();
    let both = told(&ipam(node, &["show"]).1, "address");
    for address in &both {
        let route = ["ip", "route", "add", address, "dev", "eth0"];
        node.exec(&route).unwrap();
    }
    let (_, rows) = ipam(node, &["show"]);
    assert_eq!(told(&rows, "state"), ["used", "used"]);
    assert!(rows[0]["why"].as_str().unwrap().contains("route"));
    assert_eq!(ipam(node, &["gc"]), (true, Vec::new()));
    node.exec(&["ip", "route", "del", &ip]).unwrap();
    assert_eq!(told(&ipam(node, &["gc"]).1, "address"), [ip]);
}
