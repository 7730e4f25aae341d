//! Rules of others that filter what the node forwards: who says so, and `datapath: stack`, which obeys them.

#![expect(clippy::float_cmp, reason = "counts are whole numbers")]

use std::time::Duration;

use lab::frame::udp;
use lab::{EchoServer, Lab, METRICS_ON, Node, Pod, Proxy, Service, eventually};

const CONFIG: &str = "/etc/azure-vnet/loader.yaml";
const SOON: Duration = Duration::from_secs(10);
/// The loader looks every 30 s.
const LOOKED: Duration = Duration::from_secs(45);
const NEVER: Duration = Duration::from_millis(500);

/// What Calico's Felix makes, as far as it matters: no packet to port 81.
const CALICO: &str = "*filter\n:cali-FORWARD - [0:0]\n:cali-from-wl-dispatch - [0:0]\n\
    -A FORWARD -m comment --comment \"cali:wUHhoiAYhphO9Mso\" -j cali-FORWARD\n\
    -A cali-FORWARD -i azv+ -j cali-from-wl-dispatch\n\
    -A cali-from-wl-dispatch -p tcp --dport 81 -j DROP\n\
    -A cali-from-wl-dispatch -p tcp --dport 8081 -j DROP\nCOMMIT\n";

fn start(node: &Node, yaml: &str) {
    node.write(CONFIG, &format!("{METRICS_ON}{yaml}")).unwrap();
    node.start_loader().unwrap();
}

fn lab() -> Lab {
    Lab::new().nodes(1).build().unwrap()
}

/// By owner, as the metric tells.
fn told(node: &Node) -> [f64; 3] {
    let page = eventually(SOON, || node.scrape().ok()).unwrap();
    ["calico", "npm", "other"]
        .map(|owner| page.value("azure_vnet_foreign_filters", &[("owner", owner)]))
}

fn warnings(node: &Node) -> String {
    node.status().unwrap()["warnings"].to_string()
}

fn server(node: &Node, name: &str) -> (Pod, [EchoServer; 2]) {
    let pod = node.add_pod(name).unwrap();
    let echoes = [80, 81].map(|port| pod.serve_echo(port).unwrap());
    (pod, echoes)
}

fn restore(node: &Node, program: &str, rules: &str) {
    let done = node.feed(&[program, "--noflush"], rules.as_bytes());
    done.unwrap().success().unwrap();
}

#[test]
fn with_datapath_stack_rules_of_others_apply_to_pods_and_all_else_works() {
    let lab = lab();
    let node = lab.node(1);
    restore(node, "iptables-nft-restore", CALICO);
    start(node, "");
    let (web, _web) = server(node, "web");
    let (db, _db) = server(node, "db");
    // Fast flows pass the rules by, and the loader says so.
    web.tcp(db.addr(), 81).unwrap();
    assert_eq!(told(node), [1.0, 0.0, 0.0]);
    let warned = warnings(node);
    assert!(
        warned.contains("Calico filters what the node forwards"),
        "{warned}"
    );
    assert!(warned.contains("datapath: stack"), "{warned}");
    assert!(
        node.loader()
            .log()
            .contains("somebody filters what the node forwards by=\"Calico\"")
    );
    // One judge: what the loader warns of is what `doctor` finds.
    let doctor = || {
        let told = node.feed(&["vnetctl", "doctor"], b"").unwrap().stdout;
        String::from_utf8(told).unwrap()
    };
    assert!(
        doctor().contains("forward-rules: Calico filters what the node forwards"),
        "{}",
        doctor()
    );
    let held = web.converse(0, lab.inet().addr(), 8080).unwrap();

    node.write(CONFIG, &format!("{METRICS_ON}datapath: stack\n"))
        .unwrap();
    let refused = || web.within(NEVER).tcp(db.addr(), 81).is_err().then_some(());
    eventually(SOON, refused).expect("the rule applies");
    let paths = |name: &str| {
        let status = node.status().unwrap();
        let pods = status["pods"].as_array().unwrap().clone();
        let counts = pods
            .iter()
            .filter_map(|pod| pod["paths"][name]["packets"].as_u64());
        counts.sum::<u64>()
    };
    let before = ["to_pod", "to_vnet", "from_vnet", "to_internet"].map(paths);
    assert_eq!(web.tcp(db.addr(), 80).unwrap().peer_ip(), web.addr());
    assert_eq!(web.udp(db.addr(), 80).unwrap().peer_ip(), web.addr());
    web.ping(db.addr()).unwrap();
    // The kernel masquerades, with ports of its own.
    let seen = web.tcp(lab.inet().addr(), 8080).unwrap().peer_addr();
    assert_eq!(*seen.ip(), node.addr());
    assert!(seen.port() >= 61_000, "{seen}");
    web.ping(lab.inet().addr()).unwrap();
    assert_eq!(web.dns("www.example.com").unwrap(), web.addr());
    assert_eq!(
        web.tcp(lab.peer().addr(), 8080).unwrap().peer_ip(),
        web.addr()
    );
    let peer = lab.peer().tcp(web.addr(), 80).unwrap();
    assert_eq!(peer.peer_ip(), lab.peer().addr());
    assert_eq!(
        ["to_pod", "to_vnet", "from_vnet", "to_internet"].map(paths),
        before
    );
    // What was open before stays, and what is checked still is.
    let mut held = held;
    held.say("still there").unwrap();
    assert!(web.within(NEVER).tcp(lab::WIRESERVER, 80).is_err());
    let (host, mac) = web.macs().unwrap();
    let frame = udp(
        (host, db.addr(), 80),
        (mac, lab.inet().addr(), 4000),
        b"forged",
    );
    let spoofed = node.drops("source_address").unwrap();
    web.sender("eth0").unwrap().send(&frame).unwrap();
    eventually(SOON, || {
        (node.drops("source_address").unwrap() > spoofed).then_some(())
    })
    .expect("a forged source is dropped");
    assert_eq!(warnings(node), "[]");
    assert!(!doctor().contains("forward-rules"), "{}", doctor());
    assert_eq!(told(node), [1.0, 0.0, 0.0]);

    node.write(CONFIG, METRICS_ON).unwrap();
    eventually(SOON, || web.within(NEVER).tcp(db.addr(), 81).ok()).expect("fast again");
}

#[test]
fn whoever_filters_is_found_wherever_the_rules_are() {
    let lab = lab();
    let node = lab.node(1);
    start(node, "");
    assert_eq!(told(node), [0.0; 3]);
    let reload = |expected: [f64; 3]| {
        node.loader().terminate().unwrap();
        node.start_loader().unwrap();
        assert_eq!(
            told(node),
            expected,
            "{}",
            node.exec(&["nft", "list", "ruleset"]).unwrap()
        );
    };
    node.nft("table inet firewall {\n chain forward {\n type filter hook forward priority 0; policy drop;\n ct state established accept\n }\n}\n").unwrap();
    reload([0.0, 0.0, 1.0]);
    let npm = "*filter\n:AZURE-NPM - [0:0]\n-A FORWARD -j AZURE-NPM\n-A AZURE-NPM -p tcp --dport 81 -j DROP\nCOMMIT\n";
    restore(node, "iptables-nft-restore", npm);
    reload([0.0, 1.0, 1.0]);
    // Of the same kernel, beside nftables.
    if node
        .feed(&["iptables-legacy-restore", "--noflush"], CALICO.as_bytes())
        .unwrap()
        .success()
        .is_ok()
    {
        reload([1.0, 1.0, 1.0]);
    } else {
        println!("this kernel has no iptables-legacy");
    }
}

#[test]
fn what_comes_while_the_loader_runs_is_told_within_a_minute_and_what_goes_too() {
    let lab = lab();
    let node = lab.node(1);
    start(node, "");
    assert_eq!(told(node), [0.0; 3]);
    restore(node, "iptables-nft-restore", CALICO);
    eventually(LOOKED, || (told(node) == [1.0, 0.0, 0.0]).then_some(())).expect("found");
    node.exec(&["iptables-nft", "-F", "FORWARD"]).unwrap();
    eventually(LOOKED, || (told(node) == [0.0; 3]).then_some(())).expect("gone");
    assert!(
        node.loader()
            .log()
            .contains("filters no more by=\"Calico\"")
    );
}

#[test]
fn what_kube_proxy_does_is_no_filter() {
    let lab = Lab::new().nodes(2).build().unwrap();
    for (node, proxy) in lab.nodes().iter().zip([Proxy::Iptables, Proxy::Nftables]) {
        let backend = std::net::Ipv4Addr::new(10, 240, 1, 10);
        let service = Service::new("web", super::CLUSTER_IP, super::PORT);
        node.proxy(proxy, &[service.backend(backend, super::TARGET)])
            .unwrap();
        start(node, "");
        assert_eq!(told(node), [0.0; 3], "{proxy:?}");
        assert_eq!(warnings(node), "[]", "{proxy:?}");
    }
}
