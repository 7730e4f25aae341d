//! `xdp: guard`: what it drops from the wire, what it lets through, and what is said about it.
#![cfg(test)]

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use lab::frame::{ipv4_ends, udp};
use lab::{AZURE_CONFLIST, Deadline, EchoServer, Lab, Node, Pod, VIRTUAL_MAC, eventually};
use serde_json::{Value, json};

const CONFIG: &str = "/etc/azure-vnet/loader.yaml";
const GUARD: &str = "xdp: guard\n";
const NEVER: Duration = Duration::from_millis(300);
const SOON: Duration = Duration::from_secs(3);

/// One node whose loader has this configuration.
fn lab(loader_yaml: &str) -> Lab {
    let lab = Lab::new().nodes(1).build().unwrap();
    start(lab.node(1), loader_yaml);
    lab
}

fn start(node: &Node, loader_yaml: &str) {
    node.write(CONFIG, loader_yaml).unwrap();
    node.start_loader().unwrap();
}

fn restart(node: &Node, loader_yaml: &str) {
    node.loader().terminate().unwrap();
    start(node, loader_yaml);
}

/// A pod that answers on port 80.
fn server(node: &Node, name: &str) -> (Pod, EchoServer) {
    let pod = node.add_pod(name).unwrap();
    let echo = pod.serve_echo(80).unwrap();
    (pod, echo)
}

fn status(node: &Node) -> Value {
    let text = node.exec(&["vnetctl", "status", "-o", "json"]).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn mode(node: &Node) -> String {
    status(node)["guard"]["mode"].as_str().unwrap().to_owned()
}

/// The program that the kernel runs on the NIC.
fn guard_on(node: &Node) -> Option<String> {
    let link = node.exec(&["ip", "-d", "link", "show", "eth0"]).unwrap();
    let at = link.find("prog/xdp id ")?;
    link[at..].split_whitespace().nth(2).map(str::to_owned)
}

fn warnings(node: &Node) -> String {
    status(node)["warnings"].to_string()
}

/// Packets dropped for this reason.
fn drops(node: &Node, reason: &str) -> u64 {
    let status = status(node);
    let counted = status["drops"].get(reason);
    counted.map_or(0, |counted| counted["packets"].as_u64().unwrap())
}

fn drops_reach(node: &Node, reason: &str, least: u64) -> u64 {
    let deadline = Deadline::after(SOON);
    loop {
        let count = drops(node, reason);
        if count >= least || deadline.passed() {
            return count;
        }
    }
}

/// Puts a datagram from `from` to `to` onto the node's wire.
fn forge(lab: &Lab, from: Ipv4Addr, to: Ipv4Addr) {
    let node = lab.node(1);
    let frame = udp((node.mac(), to, 4000), (VIRTUAL_MAC, from, 4000), b"forged");
    lab.fabric()
        .sender(node.name())
        .unwrap()
        .send(&frame)
        .unwrap();
}

/// Everything that pods and nodes do every day.
fn everything_works(lab: &Lab, pod: &Pod, others: &[&Pod]) {
    for other in others {
        assert_eq!(pod.tcp(other.addr(), 80).unwrap().peer_ip(), pod.addr());
        assert_eq!(pod.udp(other.addr(), 80).unwrap().peer_ip(), pod.addr());
        pod.ping(other.addr()).unwrap();
        let target = other.addr().to_string();
        pod.exec(&["ping", "-c1", "-W3", "-s4000", &target])
            .unwrap();
        let stream = pod.stream(other.addr(), 80).unwrap();
        let report = stream.finish().unwrap();
        assert_eq!(report.resets, 0, "{report:?}");
    }
    let node = lab.node(1).addr();
    assert_eq!(pod.tcp(lab.inet().addr(), 8080).unwrap().peer_ip(), node);
    assert_eq!(pod.udp(lab.inet().addr(), 7).unwrap().peer_ip(), node);
    pod.ping(lab.inet().addr()).unwrap();
    let target = lab.inet().addr().to_string();
    pod.exec(&["ping", "-c1", "-W3", "-s4000", &target])
        .unwrap();
    assert_eq!(pod.dns("www.example.com").unwrap(), pod.addr());
    let peer = lab.peer();
    assert_eq!(pod.tcp(peer.addr(), 8080).unwrap().peer_ip(), pod.addr());
    assert_eq!(peer.tcp(pod.addr(), 80).unwrap().peer_ip(), peer.addr());
    let seen = lab.node(1).tcp(lab.inet().addr(), 8080).unwrap().peer_ip();
    assert_eq!(seen, node);
    for reason in ["malformed", "martian", "own_source", "deny_list"] {
        assert_eq!(drops(lab.node(1), reason), 0, "{reason}");
    }
}

#[test]
fn by_default_there_is_no_guard_and_a_forged_neighbour_is_believed() {
    let lab = lab("");
    let node = lab.node(1);
    let (a, _a) = server(node, "a");
    let (b, _b) = server(node, "b");
    assert_eq!(mode(node), "off");
    let link = node.exec(&["ip", "-d", "link", "show", "eth0"]).unwrap();
    assert!(!link.contains("xdp"), "{link}");
    let capture = a.capture("eth0").unwrap();
    forge(&lab, b.addr(), a.addr());
    let ends = Some((b.addr(), a.addr()));
    assert!(capture.wait_for(SOON, |f| ipv4_ends(f) == ends).is_some());
}

#[test]
fn forged_sources_from_the_wire_are_dropped_and_counted() {
    let lab = lab(GUARD);
    let node = lab.node(1);
    let (a, _a) = server(node, "a");
    let (b, _b) = server(node, "b");
    assert_eq!(mode(node), "native");
    let capture = a.capture("eth0").unwrap();
    let own = [b.addr(), node.addr()];
    let martians = [
        [127, 0, 0, 1],
        [0, 0, 0, 1],
        [224, 0, 0, 1],
        [240, 0, 0, 1],
        [255; 4],
    ];
    for source in own {
        forge(&lab, source, a.addr());
        forge(&lab, source, node.addr());
    }
    for source in martians.map(Ipv4Addr::from) {
        forge(&lab, source, a.addr());
    }
    assert_eq!(drops_reach(node, "own_source", 4), 4);
    assert_eq!(drops_reach(node, "martian", 5), 5);
    // Frames keep their order: what was sent before would have come by now.
    forge(&lab, lab.inet().addr(), a.addr());
    let honest = Some((lab.inet().addr(), a.addr()));
    assert!(capture.wait_for(SOON, |f| ipv4_ends(f) == honest).is_some());
    let came = capture
        .frames()
        .iter()
        .filter_map(|f| ipv4_ends(f))
        .collect::<Vec<_>>();
    let came: Vec<_> = came.iter().filter(|(_, to)| *to == a.addr()).collect();
    assert!(came.iter().all(|ends| Some(**ends) == honest), "{came:?}");

    let mut lying = udp(
        (node.mac(), a.addr(), 4000),
        (VIRTUAL_MAC, lab.inet().addr(), 4000),
        b"longer than it is",
    );
    lying.truncate(40);
    lab.fabric()
        .sender(node.name())
        .unwrap()
        .send(&lying)
        .unwrap();
    assert_eq!(drops_reach(node, "malformed", 1), 1);
    let table = node.exec(&["vnetctl", "status"]).unwrap();
    assert!(table.contains("XDP guard   native"), "{table}");
    assert!(table.contains("martian"), "{table}");
}

#[test]
fn the_deny_list_is_in_force_and_follows_the_configuration() {
    let lab = lab("xdp: guard\ndenyCidrs: [203.0.113.0/24]\n");
    let node = lab.node(1);
    let (pod, _echo) = server(node, "web");
    let reached = |target| pod.within(NEVER).udp(target, 7).is_ok();
    let (denied, other) = (lab.inet().addr(), lab.inet().addresses()[1]);
    assert_eq!((reached(denied), reached(other)), (false, true));
    assert!(drops(node, "deny_list") >= 1);
    // The loader follows the file.
    node.write(CONFIG, "xdp: guard\ndenyCidrs: [198.51.100.0/24]\n")
        .unwrap();
    let deadline = Deadline::after(Duration::from_secs(10));
    while reached(other) && !deadline.passed() {}
    assert_eq!((reached(denied), reached(other)), (true, false));
    assert_eq!(status(node)["guard"]["denied"], 1);
    restart(node, GUARD);
    assert_eq!((reached(denied), reached(other)), (true, true));
    // Without the guard it is no use, and that is said.
    restart(node, "denyCidrs: [203.0.113.0/24]\n");
    assert!(reached(denied));
    assert!(warnings(node).contains("no effect"), "{}", warnings(node));
}

#[test]
fn everyday_traffic_is_intact_whether_pods_tunnel_or_not() {
    for mode in ["bridge", "tunnel"] {
        let conflist = AZURE_CONFLIST.replace("\"bridge\",", &format!("\"{mode}\","));
        let lab = Lab::new().nodes(2).conflist(&conflist).build().unwrap();
        for node in lab.nodes() {
            start(node, "vnetCidrs: [10.50.0.0/16]\nxdp: guard\n");
            assert_eq!(status(node)["guard"]["mode"], "native");
        }
        let (pod, _pod) = server(lab.node(1), "pod");
        let (near, _near) = server(lab.node(1), "near");
        let (far, _far) = server(lab.node(2), "far");
        everything_works(&lab, &pod, &[&near, &far]);
    }
}

#[test]
fn the_guard_outlives_the_loader_and_goes_when_it_is_turned_off() {
    let lab = lab(GUARD);
    let node = lab.node(1);
    let (pod, _echo) = server(node, "web");
    let stream = pod.stream(lab.peer().addr(), 8080).unwrap();
    let id = || guard_on(node);
    let first = id();
    assert!(first.is_some());
    node.loader().kill9().unwrap();
    assert_eq!(id(), first, "it needs no loader");
    forge(&lab, node.addr(), pod.addr());
    node.start_loader().unwrap();
    assert_eq!(drops_reach(node, "own_source", 1), 1, "counted meanwhile");
    assert_eq!(mode(node), "native");
    assert!(
        id().is_some() && id() != first,
        "the new program is in place"
    );
    restart(node, "");
    assert_eq!((mode(node).as_str(), id()), ("off", None));
    let report = stream.finish().unwrap();
    assert_eq!(report.resets, 0, "{report:?}");
}

#[test]
fn a_nic_that_was_made_anew_under_its_old_name_is_guarded_again() {
    let lab = lab(GUARD);
    let node = lab.node(1);
    let (pod, _echo) = server(node, "web");
    node.renew_nic().unwrap();
    let guarded = eventually(Duration::from_secs(10), || guard_on(node));
    assert!(guarded.is_some(), "{}", node.loader().log());
    forge(&lab, node.addr(), pod.addr());
    assert_eq!(drops_reach(node, "own_source", 1), 1);
    assert_eq!(
        pod.tcp(lab.inet().addr(), 8080).unwrap().peer_ip(),
        node.addr()
    );
}

#[test]
fn a_driver_without_xdp_is_reported_and_everything_else_runs() {
    let lab = Lab::new().nodes(1).build().unwrap();
    let node = lab.node(1);
    node.ip("link add nic9 type bridge\nlink set nic9 up\naddr add 10.99.0.1/24 dev nic9\n")
        .unwrap();
    start(node, "nic: nic9\nxdp: guard\n");
    assert_eq!(mode(node), "refused");
    let said = warnings(node);
    assert!(said.contains("nic9"), "{said}");
    assert!(said.contains("driver takes no XDP program"), "{said}");
    assert_eq!(status(node)["attached"].as_array().unwrap().len(), 2);
}

#[test]
fn offloads_that_an_earlier_start_saw_lost_are_named_until_the_guard_is_off() {
    const LOST: [&str; 1] = ["large-receive-offload"];
    let lab = lab(GUARD);
    let node = lab.node(1);
    let named = || status(node)["guard"]["lost"].clone();
    assert_eq!(named(), json!([]), "a veth pair's end loses nothing itself");
    // No driver here takes anything from its own NIC: the memory of a start that saw it.
    node.run(|| {
        Ok(rpc::write_json(
            Path::new("/run/azure-vnet/guard.json"),
            &LOST,
        )?)
    })
    .unwrap();
    for _ in 0..2 {
        restart(node, GUARD);
        assert_eq!(named(), json!(LOST));
        let table = node.exec(&["vnetctl", "status"]).unwrap();
        let warning = "the guard costs eth0 these offloads: large-receive-offload";
        assert!(table.contains(warning), "{table}");
    }
    for (config, mode) in [("", "off"), (GUARD, "native")] {
        restart(node, config);
        let guard = status(node)["guard"].clone();
        assert_eq!((&guard["mode"], &guard["lost"]), (&json!(mode), &json!([])));
        assert!(!warnings(node).contains("offloads"));
    }
}
