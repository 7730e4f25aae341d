//! Somebody takes a part of a pod away: CHECK names that part and nothing else, and DEL removes the rest (rows 67 and 80, with the
//! real loader).
#![cfg(test)]

use std::net::Ipv4Addr;

use lab::libcni::{CniError, Network};
use lab::{Lab, Node, Pod};

/// The CNI code of a CHECK that misses something.
const CHECK: u64 = 105;

/// Where the part is taken away.
#[derive(Clone, Copy, Debug)]
enum At {
    Node,
    Pod,
}

/// What a shell does, and how each thing begins that CHECK then misses. `HOST` is the host veth's name, `INDEX` its index as a map's
/// key, `ADDR` the pod's address, `KEY` the same as a map's key, `PINS` the directory of our pins.
type Case = (At, &'static str, &'static [&'static str]);

const PINS: &str = "/sys/fs/bpf/azure-vnet/v1";
const CASES: [Case; 15] = [
    // Half a veth is none, wherever it is removed.
    (
        At::Pod,
        "ip link del eth0",
        &["host interface HOST (index ", "interface eth0 in the pod"],
    ),
    // With its last address an interface would lose its routes, too.
    (
        At::Pod,
        "ip addr add 192.0.2.9/32 dev eth0; ip addr del $(ip -o -4 addr show dev eth0 | grep -o 'ADDR/[0-9]*') dev eth0",
        &["address ADDR/"],
    ),
    (
        At::Pod,
        "ip route del default",
        &["default route via 169.254.1.1 in the pod"],
    ),
    (
        At::Pod,
        "ip neigh del 169.254.1.1 dev eth0",
        &["permanent neighbour 169.254.1.1 = "],
    ),
    // The kernel takes routes and neighbours of a link that is down.
    (
        At::Pod,
        "ip link set eth0 down",
        &[
            "interface eth0 in the pod being up",
            "default route via 169.254.1.1 in the pod",
            "permanent neighbour 169.254.1.1 = ",
        ],
    ),
    (
        At::Node,
        "ip link set HOST down",
        &["host interface HOST being up", "route ADDR/32 dev HOST"],
    ),
    (
        At::Node,
        "ip route del ADDR/32 dev HOST",
        &["route ADDR/32 dev HOST"],
    ),
    (
        At::Node,
        "tc filter del dev HOST ingress",
        &["program from_pod on HOST"],
    ),
    (
        At::Node,
        "tc filter del dev HOST egress",
        &["program to_pod on HOST"],
    ),
    (
        At::Node,
        "tc qdisc del dev HOST clsact",
        &["program to_pod on HOST", "program from_pod on HOST"],
    ),
    (
        At::Node,
        "bpftool map delete pinned PINS/maps/pods key KEY",
        &["a working data path (the loader refuses: "],
    ),
    (
        At::Node,
        "bpftool map delete pinned PINS/maps/veths key INDEX",
        &["a working data path (the loader refuses: "],
    ),
    (
        At::Node,
        "rm /run/azure-vnet/ipam/leases/ADDR",
        &["IPAM's reservation ("],
    ),
    (
        At::Node,
        "rm /run/azure-vnet/endpoints/*",
        &["endpoint record of azure/"],
    ),
    // Found by its pin: without one nobody can tell that the kernel runs the right program.
    (
        At::Node,
        "rm PINS/programs/from_pod",
        &["program from_pod on HOST"],
    ),
];

fn bytes(bytes: [u8; 4]) -> String {
    bytes.map(|byte| byte.to_string()).join(" ")
}

/// `text` with what this pod has for the words in capitals.
fn fill(text: &str, node: &Node, pod: &Pod) -> String {
    let host = pod.host_veth().unwrap();
    let index = format!("/sys/class/net/{host}/ifindex");
    let index: u32 = node
        .read(&index)
        .map_or(0, |text| text.trim().parse().unwrap());
    let addr: Ipv4Addr = pod.addr();
    [
        ("HOST", host.to_owned()),
        ("INDEX", bytes(index.to_ne_bytes())),
        ("ADDR", addr.to_string()),
        ("KEY", bytes(addr.octets())),
        ("PINS", PINS.to_owned()),
    ]
    .iter()
    .fold(text.to_owned(), |text, (word, value)| {
        text.replace(word, value)
    })
}

/// What CHECK misses.
fn missing(pod: &Pod) -> Vec<String> {
    let error = pod.check().unwrap_err();
    let told = error.downcast_ref::<CniError>().unwrap();
    assert_eq!(told.code, CHECK, "{error:#}");
    let list = told
        .msg
        .strip_prefix("check the attachment: missing: ")
        .and_then(|rest| rest.strip_suffix("; delete the pod, so that it is made anew"));
    split(list.unwrap_or_else(|| panic!("{error:#}")))
}

/// At the commas, but for those in parentheses: these are a reason's own.
fn split(list: &str) -> Vec<String> {
    let mut items = vec![String::new()];
    let mut depth = 0_u32;
    for letter in list.chars() {
        match letter {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                items.push(String::new());
                continue;
            }
            _ => {}
        }
        items.last_mut().unwrap().push(letter);
    }
    items.iter().map(|item| item.trim().to_owned()).collect()
}

fn is_named_alone(found: &[String], wanted: &[String]) {
    let fits = found.len() == wanted.len()
        && found
            .iter()
            .zip(wanted)
            .all(|(found, wanted)| found.starts_with(wanted.as_str()));
    assert!(fits, "CHECK misses {found:?}, not {wanted:?}");
}

fn healthy(node: &Node, network: &Network) -> Pod {
    let mut pod = node.new_netns("web").unwrap();
    pod.add(network).unwrap();
    pod.check().unwrap();
    pod
}

#[test]
fn check_names_the_part_that_is_gone_and_del_removes_the_rest() {
    let lab = Lab::new().nodes(1).build().unwrap();
    let node = lab.node(1);
    node.start_loader().unwrap();
    let network = node.network().unwrap().in_version("1.0.0");
    let before = node.snapshot().unwrap();
    for (at, command, gone) in CASES {
        let pod = healthy(node, &network);
        let wanted: Vec<String> = gone.iter().map(|text| fill(text, node, &pod)).collect();
        let command = fill(command, node, &pod);
        println!("{at:?}: {command}");
        let shell = ["sh", "-ec", &command];
        match at {
            At::Node => node.exec(&shell),
            At::Pod => pod.exec(&shell),
        }
        .unwrap();
        is_named_alone(&missing(&pod), &wanted);
        pod.delete().unwrap();
        // A pin comes back, and a pod without a record leaves the maps, when the loader looks next.
        if ["/programs/", "/endpoints/"]
            .iter()
            .any(|gone| command.contains(gone))
        {
            node.loader().terminate().unwrap();
            node.start_loader().unwrap();
        }
        let left = before.left(&node.snapshot().unwrap());
        assert_eq!(left, Vec::<String>::new(), "{command}");
    }
    healthy(node, &network).delete().unwrap();
}

/// The tombstone that DEL leaves is the next loader's to replay.
#[test]
fn check_names_a_loader_that_was_killed_and_del_does_without() {
    let lab = Lab::new().nodes(1).build().unwrap();
    let node = lab.node(1);
    node.start_loader().unwrap();
    let network = node.network().unwrap().in_version("1.0.0");
    let before = node.snapshot().unwrap();
    let pod = healthy(node, &network);
    node.loader().kill9().unwrap();
    let wanted = ["a working data path (".to_owned()];
    let found = missing(&pod);
    is_named_alone(&found, &wanted);
    assert!(
        found[0].contains("is azure-vnet-loader running?"),
        "{found:?}"
    );
    pod.delete().unwrap();
    node.start_loader().unwrap();
    assert_eq!(before.left(&node.snapshot().unwrap()), Vec::<String>::new());
    healthy(node, &network).delete().unwrap();
}
