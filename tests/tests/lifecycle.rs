//! Pods come and go; the loader dies, comes back, and leaves.
#![cfg(test)]

use std::thread;
use std::time::{Duration, Instant};

use lab::{CONFLIST, Lab, Node, eventually};
use nix::sys::signal::Signal;
use serde_json::Value;

/// It is due within five seconds, and the machine may be busy; whoever waits for the look at everything waits longer.
const A_REPAIR: Duration = Duration::from_secs(10);

fn lab() -> Lab {
    let lab = Lab::new().nodes(1).build().unwrap();
    lab.node(1).start_loader().unwrap();
    lab
}

fn status(node: &Node) -> Value {
    serde_json::from_str(&node.exec(&["vnetctl", "status", "-o", "json"]).unwrap()).unwrap()
}

fn addresses(node: &Node) -> Vec<String> {
    let pods = status(node)["pods"].as_array().unwrap().clone();
    pods.iter()
        .map(|pod| pod["address"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn del_leaves_nothing_and_may_be_called_again() {
    let lab = lab();
    let node = lab.node(1);
    let before = node.snapshot().unwrap();
    let pod = node.add_pod("web").unwrap();
    assert!(
        !before.diff(&node.snapshot().unwrap()).is_empty(),
        "the instrument sees a pod"
    );
    pod.del().unwrap();
    pod.del().unwrap();
    pod.delete().unwrap();
    assert_eq!(before.left(&node.snapshot().unwrap()), Vec::<String>::new());
}

/// Nobody knows its entries' keys but whoever looks which interfaces are gone: the loader, as soon as the kernel announces it.
#[test]
fn a_del_whose_record_is_lost_leaves_no_map_entry_for_longer_than_a_repair_takes() {
    let lab = lab();
    let node = lab.node(1);
    let kept = node.add_pod("kept").unwrap();
    for at in 0..5 {
        let pod = node.add_pod("web").unwrap();
        let record = format!(
            "/run/azure-vnet/endpoints/azure:{}:eth0.json",
            pod.attachment().container_id
        );
        node.exec(&["rm", &record]).unwrap();
        let began = Instant::now();
        pod.delete().unwrap();
        let gone = || (addresses(node) == [kept.addr().to_string()]).then_some(());
        eventually(A_REPAIR, gone).unwrap();
        println!("{at}: gone after {:?}", began.elapsed());
    }
}

#[test]
fn a_restart_loses_nothing() {
    let lab = lab();
    let node = lab.node(1);
    let pod = node.add_pod("web").unwrap();
    let stream = pod.stream(lab.inet().addr(), 8080).unwrap();
    for _ in 0..3 {
        node.loader().kill9().unwrap();
        assert_eq!(
            pod.tcp(lab.inet().addr(), 8080).unwrap().peer_ip(),
            node.addr(),
            "the programs need no loader"
        );
        node.start_loader().unwrap();
        assert_eq!(status(node)["adopted"], true);
    }
    node.loader().terminate().unwrap();
    assert_eq!(
        pod.tcp(lab.inet().addr(), 8080).unwrap().peer_ip(),
        node.addr(),
        "SIGTERM leaves the programs"
    );
    node.start_loader().unwrap();
    let report = stream.finish().unwrap();
    assert_eq!((report.resets, report.error), (0, None));
    assert_eq!(addresses(node), [pod.addr().to_string()]);
}

#[test]
fn without_a_loader_add_says_so_and_del_works() {
    let lab = lab();
    let node = lab.node(1);
    let pod = node.add_pod("web").unwrap();
    let addr = pod.addr().to_string();
    node.loader().terminate().unwrap();

    let error = format!("{:#}", node.add_pod("late").unwrap_err());
    assert!(error.contains("code 11"), "{error}");
    assert!(
        error.contains("/run/azure-vnet/loader.sock")
            && error.contains("azure-vnet-loader running?"),
        "{error}"
    );

    pod.delete().unwrap();
    node.start_loader().unwrap();
    assert_eq!(
        addresses(node),
        Vec::<String>::new(),
        "the tombstone of {addr} was replayed"
    );
    let tombstones = node.exec(&["ls", "/run/azure-vnet/endpoints"]).unwrap();
    assert_eq!(tombstones, "");
}

#[test]
fn a_loader_that_finds_its_maps_gone_restores_the_pods_from_their_records() {
    let lab = lab();
    let node = lab.node(1);
    let pod = node.add_pod("web").unwrap();
    node.loader().kill9().unwrap();
    node.exec(&["rm", "-r", "/sys/fs/bpf/azure-vnet"]).unwrap();
    node.start_loader().unwrap();
    assert_eq!(status(node)["adopted"], false);
    assert_eq!(addresses(node), [pod.addr().to_string()]);
    assert_eq!(
        pod.tcp(lab.inet().addr(), 8080).unwrap().peer_ip(),
        node.addr()
    );
}

#[test]
fn programs_of_lost_maps_are_replaced_and_missing_ones_attached_again() {
    let lab = lab();
    let node = lab.node(1);
    let pods = [
        node.add_pod("stale").unwrap(),
        node.add_pod("bare").unwrap(),
    ];
    let bare = pods[1].result()["interfaces"][1]["name"]
        .as_str()
        .unwrap()
        .to_owned();
    node.loader().kill9().unwrap();
    node.exec(&["rm", "-r", "/sys/fs/bpf/azure-vnet"]).unwrap();
    node.exec(&["tc", "qdisc", "del", "dev", &bare, "clsact"])
        .unwrap();
    node.start_loader().unwrap();
    for pod in &pods {
        let pins = [
            "bpftool",
            "-j",
            "prog",
            "show",
            "pinned",
            "/sys/fs/bpf/azure-vnet/v1/programs/from_pod",
        ];
        let program: Value = serde_json::from_str(&node.exec(&pins).unwrap()).unwrap();
        let veth = pod.result()["interfaces"][1]["name"].as_str().unwrap();
        let filters = node
            .exec(&["tc", "filter", "show", "dev", veth, "ingress"])
            .unwrap();
        assert!(
            filters.contains(&format!("id {}", program["id"])),
            "{veth}: {filters}"
        );
        assert_eq!(
            pod.tcp(lab.inet().addr(), 8080).unwrap().peer_ip(),
            node.addr()
        );
    }
}

#[test]
fn a_second_loader_is_refused() {
    let lab = lab();
    let second = lab.node(1).feed(&["azure-vnet-loader"], b"").unwrap();
    assert!(!second.status.success());
    assert!(
        second
            .stderr
            .contains("another azure-vnet-loader runs on this node"),
        "{}",
        second.stderr
    );
    assert_eq!(
        addresses(lab.node(1)),
        Vec::<String>::new(),
        "the first one still answers"
    );
}

/// As a child of it does that has not yet become `nft`.
#[test]
fn what_an_ended_loader_leaves_locked_for_a_moment_is_waited_for() {
    let lab = lab();
    let node = lab.node(1);
    node.loader().terminate().unwrap();
    let is_waited_for =
        "grep -q -- '-> FLOCK.*':$(stat -c %i /run/azure-vnet/loader.lock)' ' /proc/locks";
    let held = format!("touch /run/held; until {is_waited_for}; do :; done; touch /run/waited");
    let line = [
        "flock",
        "/run/azure-vnet/loader.lock",
        "timeout",
        "5",
        "sh",
        "-c",
        &held,
    ];
    thread::scope(|scope| {
        let holder = scope.spawn(|| node.exec(&line).unwrap());
        eventually(Duration::from_secs(5), || {
            node.exec(&["test", "-e", "/run/held"]).ok()
        })
        .unwrap();
        node.start_loader().unwrap();
        holder.join().unwrap();
    });
    node.exec(&["test", "-e", "/run/waited"]).unwrap();
}

#[test]
fn a_loader_whose_lock_another_holds_by_now_leaves_the_node_to_it() {
    let lab = lab();
    let node = lab.node(1);
    let pod = node.add_pod("web").unwrap();
    let first = node.loader();
    // So that it cannot lock again.
    first.signal(Signal::SIGSTOP).unwrap();
    node.exec(&["rm", "/run/azure-vnet/loader.lock"]).unwrap();
    let line = ["timeout", "--kill-after=1", "10", "azure-vnet-loader"];
    let second = thread::scope(|scope| {
        let second = scope.spawn(|| node.feed(&line, b"").unwrap());
        let free = ["flock", "--nonblock", "/run/azure-vnet/loader.lock", "true"];
        let is_held = "test -e /run/azure-vnet/loader.lock";
        eventually(Duration::from_secs(5), || {
            let there = node.exec(&["sh", "-c", is_held]).is_ok();
            (there && node.exec(&free).is_err()).then_some(())
        })
        .unwrap();
        first.signal(Signal::SIGCONT).unwrap();
        eventually(Duration::from_secs(5), || {
            (!first.is_running().unwrap()).then_some(())
        })
        .unwrap_or_else(|| panic!("it fights: {}", first.log()));
        second.join().unwrap()
    });
    let log = first.log();
    assert!(log.contains("another azure-vnet-loader runs"), "{log}");
    let log = second.stderr;
    assert!(log.contains("ready") && log.contains("SIGTERM"), "{log}");
    assert!(!log.contains("another"), "{log}");
    assert_eq!(
        pod.tcp(lab.inet().addr(), 8080).unwrap().peer_ip(),
        node.addr()
    );
}

#[test]
fn add_for_the_same_attachment_gives_the_same_answer() {
    let lab = lab();
    let mut pod = lab.node(1).add_pod("web").unwrap();
    let first = pod.result().clone();
    let network = lab.node(1).network().unwrap();
    assert_eq!(*pod.add(&network).unwrap(), first);
    assert_eq!(
        pod.tcp(lab.inet().addr(), 8080).unwrap().peer_ip(),
        lab.node(1).addr(),
        "and breaks nothing"
    );
}

#[test]
fn addresses_of_the_pool_are_given_out_once_each_and_never_the_nodes_own() {
    let lab = Lab::new().nodes(1).secondaries(3).build().unwrap();
    let node = lab.node(1);
    node.start_loader().unwrap();
    let pods: Vec<_> = ["a", "b", "c"]
        .map(|name| node.add_pod(name).unwrap())
        .into();
    let given: Vec<_> = pods.iter().map(lab::Pod::addr).collect();
    assert_eq!(given, node.secondaries().unwrap());
    assert!(!given.contains(&node.addr()));

    let error = format!("{:#}", node.add_pod("d").unwrap_err());
    assert!(error.contains("No available addresses"), "{error}");
    for pod in &pods {
        assert_eq!(
            pod.tcp(lab.inet().addr(), 8080).unwrap().peer_ip(),
            node.addr(),
            "the others are untouched"
        );
    }
    node.add_secondary("10.240.1.99".parse().unwrap()).unwrap();
    // The platform is asked again as soon as the conflist's `queryInterval` allows it.
    let conflist = node.read(CONFLIST).unwrap();
    let hasty = conflist.replace(
        r#""type":"azure-vnet-ipam""#,
        r#""type":"azure-vnet-ipam","queryInterval":"1""#,
    );
    assert_ne!(hasty, conflist);
    node.write(CONFLIST, &hasty).unwrap();
    let added = eventually(Duration::from_secs(20), || node.add_pod("e").ok());
    let added = added.expect("a new address of the NIC is found when it is needed");
    assert_eq!(added.addr().to_string(), "10.240.1.99");
}

#[test]
fn thirty_pods_come_and_go_at_once() {
    let lab = lab();
    let node = lab.node(1);
    let network = node.network().unwrap();
    let before = node.snapshot().unwrap();
    let names: Vec<String> = (0..30).map(|number| format!("pod{number}")).collect();
    let mut pods = thread::scope(|scope| {
        let adding = names.chunks(4).map(|names| {
            let add = |name: &String| {
                let mut pod = node.new_netns(name).unwrap();
                pod.add(&network).unwrap();
                pod
            };
            scope.spawn(move || names.iter().map(add).collect::<Vec<_>>())
        });
        let adding: Vec<_> = adding.collect();
        adding
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect::<Vec<_>>()
    });
    let given: std::collections::BTreeSet<_> = pods.iter().map(lab::Pod::addr).collect();
    assert_eq!(given.len(), 30, "an address each");
    assert_eq!(addresses(node).len(), 30);
    for pod in &pods {
        assert_eq!(
            pod.tcp(lab.inet().addr(), 8080).unwrap().peer_ip(),
            node.addr()
        );
    }
    thread::scope(|scope| {
        while !pods.is_empty() {
            let some: Vec<_> = pods.drain(..pods.len().min(4)).collect();
            scope.spawn(move || some.into_iter().for_each(|pod| pod.delete().unwrap()));
        }
    });
    assert_eq!(before.left(&node.snapshot().unwrap()), Vec::<String>::new());
}

#[test]
fn an_address_that_the_node_gave_itself_is_not_given_to_a_pod() {
    let lab = Lab::new().nodes(1).secondaries(2).build().unwrap();
    let node = lab.node(1);
    let own = node.secondaries().unwrap()[0];
    node.ip(&format!("address add {own}/16 dev eth0\n"))
        .unwrap();
    node.start_loader().unwrap();
    assert_ne!(node.add_pod("web").unwrap().addr(), own);
    let warnings = status(node)["warnings"].to_string();
    assert!(
        warnings.contains(&own.to_string()) && warnings.contains("cloud-init"),
        "{warnings}"
    );
}

#[test]
fn a_default_route_of_another_table_does_not_name_the_nic() {
    let lab = Lab::new().nodes(1).build().unwrap();
    let node = lab.node(1);
    node.ip("link add tun7 type veth peer name tun8\nlink set tun7 up\nlink set tun8 up\n")
        .unwrap();
    node.ip("route add default dev tun7 table 101\nroute add 198.18.7.0/24 dev tun7\n")
        .unwrap();
    node.start_loader().unwrap();
    let status = status(node);
    assert_eq!(status["node"]["nic"], "eth0");
    let elsewhere = status["classes"]
        .as_array()
        .unwrap()
        .iter()
        .find(|class| class["prefix"] == "198.18.7.0/24");
    assert_eq!(
        elsewhere.expect("the route of another interface")["class"],
        "stack"
    );
}
