//! Who waits for an nft that takes its time, or hangs? Nobody for long: no start, no ADD, no end, no operator.
#![cfg(test)]

use std::net::Ipv4Addr;
use std::thread;
use std::time::{Duration, Instant};

use lab::{Lab, METRICS_ON, METRICS_PORT, Node, eventually};

fn only_pod(node: &Node) -> String {
    let status = node.status().unwrap();
    let pods = status["pods"].as_array().unwrap();
    assert_eq!(pods.len(), 1, "{pods:?}");
    pods[0]["address"].as_str().unwrap().to_owned()
}

/// An nft that does nothing for this many seconds before it does its work.
fn slow_nft(node: &Node, seconds: u32) {
    nft_after(node, &format!("sleep {seconds}"));
}

/// An nft that does this first.
fn nft_after(node: &Node, first: &str) {
    let slow = format!(
        "nft=$(command -v nft); cp $nft /tmp/nft; printf '#!/bin/sh\n{first}\nexec /tmp/nft \"$@\"\n' > /tmp/slow; \
         chmod +x /tmp/slow; mount --bind /tmp/slow $nft"
    );
    node.exec(&["sh", "-ec", &slow]).unwrap();
}

#[test]
#[ignore = "slow: the loader waits two minutes; cargo xtask test load"]
fn healthz_names_the_task_that_an_nft_keeps_for_minutes() {
    let lab = Lab::new().nodes(1).build().unwrap();
    let node = lab.node(1);
    node.write("/etc/azure-vnet/loader.yaml", METRICS_ON)
        .unwrap();
    node.start_loader().unwrap();
    let healthz = || node.http(Ipv4Addr::LOCALHOST, METRICS_PORT, "/healthz", &[]);
    let answers = |status: u16, within: Duration| {
        eventually(within, || healthz().ok().filter(|is| is.status == status))
            .unwrap_or_else(|| panic!("{:?}", healthz()))
    };
    answers(200, Duration::from_secs(10));
    // It waits until somebody lets it go.
    node.exec(&["mkfifo", "/tmp/hang"]).unwrap();
    nft_after(node, "[ -e /tmp/hang ] && read -r _ < /tmp/hang");
    // What the loader wants to repair.
    let flush = ["/tmp/nft", "flush", "table", "ip", "azure-vnet"];
    node.exec(&flush).unwrap();
    let began = Instant::now();
    let stuck = answers(503, Duration::from_mins(3));
    println!("after {:?}: {}", began.elapsed(), stuck.body.trim());
    assert!(
        stuck
            .body
            .contains("looking after the nft table has been stuck")
    );
    assert!(began.elapsed() >= Duration::from_mins(2), "patience");
    let let_go = "exec 3<>/tmp/hang; rm /tmp/hang; echo >&3";
    node.exec(&["sh", "-ec", let_go]).unwrap();
    answers(200, Duration::from_secs(20));
    let whole = [
        "/tmp/nft",
        "list",
        "chain",
        "ip",
        "azure-vnet",
        "postrouting",
    ];
    let is_whole = || {
        node.exec(&whole)
            .ok()
            .filter(|text| text.contains("masquerade"))
    };
    eventually(Duration::from_secs(20), is_whole).expect("it goes on");
}

#[test]
fn an_nft_that_hangs_keeps_neither_a_start_nor_an_end_from_coming() {
    let lab = Lab::new().nodes(1).build().unwrap();
    let node = lab.node(1);
    slow_nft(node, 3600);
    let (began, served) = thread::scope(|scope| {
        let began = Instant::now();
        let serving = scope.spawn(move || {
            let asked = ["vnetctl", "status", "-o", "json"];
            eventually(Duration::from_secs(30), || node.exec(&asked).ok()).map(|_| began.elapsed())
        });
        node.start_loader().unwrap();
        (began, serving.join().unwrap())
    });
    let (served, ready) = (served.expect("it serves"), began.elapsed());
    println!("serves after {served:?}, is ready after {ready:?}");
    assert!(served < Duration::from_secs(4) && ready < Duration::from_secs(10));
    let pod = node.add_pod("web").unwrap();
    assert_eq!(only_pod(node), pod.addr().to_string());
    let began = Instant::now();
    let tunnel = node.network().unwrap().with("mode", "tunnel".into());
    let mut tunnelled = node.new_netns("tunnelled").unwrap();
    tunnelled.add(&tunnel).unwrap();
    assert!(
        began.elapsed() < Duration::from_secs(4),
        "it has what there is"
    );
    tunnelled.delete().unwrap();
    let network = node.network().unwrap().in_version("1.1.0");
    let limited = || network.status(node, 1).err();
    let why = eventually(Duration::from_secs(20), limited).expect("nobody knows of a table");
    assert!(
        format!("{why:#}").contains("nft has been running"),
        "{why:#}"
    );
    let began = Instant::now();
    node.loader().terminate().unwrap();
    let ended = began.elapsed();
    println!("ended after {ended:?}");
    assert!(ended < Duration::from_secs(2));

    let trace = ["vnetctl", "trace", "web", "10.0.0.10:80"];
    assert!(node.exec(&trace).unwrap().contains("nft does not tell"));
    pod.delete().unwrap();
    let uninstall = node.feed(&["vnetctl", "uninstall"], b"").unwrap();
    let why = uninstall.success().unwrap_err().to_string();
    assert!(
        why.contains("azure-vnet`, or remove it: nft: it hangs"),
        "{why}"
    );
}

#[test]
fn nobody_waits_for_an_nft_that_takes_its_time() {
    let lab = Lab::new().nodes(1).build().unwrap();
    let node = lab.node(1);
    node.start_loader().unwrap();
    let tunnel = node.network().unwrap().with("mode", "tunnel".into());
    let tunnelled = |name: &str| {
        let mut netns = node.new_netns(name).unwrap();
        netns.add(&tunnel).unwrap();
        netns
    };
    tunnelled("first").delete().unwrap();
    let chain = ["nft", "list", "chain", "ip", "azure-vnet", "tunnels"];
    node.exec(&chain)
        .expect("what such a pod needs is there when its ADD is done");
    slow_nft(node, 12);
    let before = node.loader().log().len();
    node.write("/etc/azure-vnet/loader.yaml", "imds: deny\n")
        .unwrap();
    eventually(Duration::from_secs(5), || {
        let log = node.loader().log();
        log[before..]
            .contains("destination classes changed")
            .then_some(())
    })
    .unwrap_or_else(|| panic!("{}", node.loader().log()));
    let began = Instant::now();
    let pod = node.add_pod("web").unwrap();
    assert_eq!(only_pod(node), pod.addr().to_string());
    assert!(
        began.elapsed() < Duration::from_secs(8),
        "{:?}",
        began.elapsed()
    );
    let began = Instant::now();
    let _second = tunnelled("second");
    let took = began.elapsed();
    assert!(
        took < Duration::from_secs(1),
        "its rules are there: {took:?}"
    );
    let told = |is: bool| {
        let warnings = node.status().unwrap()["warnings"].to_string();
        (warnings.contains("nft has been running") == is).then_some(())
    };
    eventually(Duration::from_secs(20), || told(true)).expect("it is told");
    eventually(Duration::from_mins(1), || told(false)).expect("it ends");
}
