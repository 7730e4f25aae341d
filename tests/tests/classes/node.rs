//! Addresses and routes of the node are followed as the kernel announces them.

use nix::sys::signal::Signal;

use super::*;

/// In the VNet's subnet, so that it would go to the wire if the node did not have it.
const ADDED: Ipv4Addr = Ipv4Addr::new(10, 240, 99, 99);

#[test]
fn a_new_address_of_the_node_is_reached_through_the_stack_and_a_lost_one_is_not() {
    let lab = lab("");
    let node = lab.node(1);
    let pod = node.add_pod("web").unwrap();
    let _echo = node.serve_echo(80).unwrap();
    let reaches = || {
        pod.within(Duration::from_millis(200))
            .tcp(ADDED, 80)
            .is_ok()
    };
    node.ip("link add other0 type bridge\nlink set other0 up\n")
        .unwrap();
    assert!(!reaches());
    let mut times = Vec::new();
    for _ in 0..3 {
        let change = |verb| {
            let line = format!("address {verb} {ADDED}/32 dev other0\n");
            move || node.ip(&line).unwrap()
        };
        times.push(prompt(node, "reached", change("add"), reaches));
        assert!(class(node, "10.240.99.99").starts_with("stack 2 address of the node"));
        times.push(prompt(node, "the VNet's again", change("del"), || {
            class(node, "10.240.99.99").starts_with("direct 7 ")
        }));
    }
    println!("a change of addresses took effect after {times:?}");
    assert!(times.iter().any(|time| *time < PROMPT), "{times:?}");
}

#[test]
fn routes_over_other_interfaces_are_followed_and_go_with_their_interface() {
    let lab = lab("vnetCidrs: [10.0.0.0/8]\n");
    let node = lab.node(1);
    assert!(class(node, "10.77.1.1").starts_with("direct 9 vnetCidrs"));
    node.ip("link add other0 type bridge\nlink set other0 up\nroute add 10.77.0.0/16 dev other0\n")
        .unwrap();
    soon("the route", || {
        class(node, "10.77.1.1").starts_with("stack 8 routed by another interface")
    });
    node.ip("link set other0 down\n").unwrap();
    soon("its interface is down", || {
        class(node, "10.77.1.1").starts_with("direct 9 ")
    });
}

#[test]
fn a_burst_that_the_socket_cannot_hold_is_caught_up_with() {
    let lab = lab("");
    let node = lab.node(1);
    node.ip("link add other0 type bridge\nlink set other0 up\n")
        .unwrap();
    node.loader().signal(Signal::SIGSTOP).unwrap();
    let address = |n: u32| format!("10.240.{}.{}", 100 + n / 250, 1 + n % 250);
    let batch = |verb: &str, numbers: std::ops::Range<u32>| {
        let lines = numbers.map(|n| format!("address {verb} {}/32 dev other0\n", address(n)));
        node.ip(&lines.collect::<String>()).unwrap();
    };
    // The first ones stay, and the announcements of the last ones are lost.
    batch("add", 0..2500);
    batch("del", 100..2500);
    batch("add", 2400..2500);
    let overrun = node.exec(&["cat", "/proc/net/netlink"]).unwrap();
    let lost = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields.get(3).is_some_and(|groups| *groups != "00000000")
            && fields.get(8).is_some_and(|drops| *drops != "0")
    };
    assert!(
        overrun.lines().skip(1).any(lost),
        "nothing was lost:\n{overrun}"
    );
    node.loader().signal(Signal::SIGCONT).unwrap();
    soon("the last address", || {
        class(node, &address(2499)).starts_with("stack 2 ")
    });
    assert!(class(node, &address(0)).starts_with("stack 2 "));
    assert!(class(node, &address(200)).starts_with("direct 7 "));
}

#[test]
fn pods_come_and_go_without_a_look_at_the_whole_node() {
    let lab = Lab::new().nodes(1).build().unwrap();
    let node = lab.node(1);
    node.loader().start_with(&["--log", "debug"], &[]).unwrap();
    let told = "links, addresses or routes of the node changed";
    // Longer than one burst lasts.
    for number in 0..20 {
        let pod = node.add_pod(&format!("pod{number}")).unwrap();
        pod.delete().unwrap();
    }
    // Announcements come in order, so those of the pods are through when this one is.
    node.ip("link add other0 type bridge\n").unwrap();
    soon("the bridge", || node.loader().log().contains(told));
    assert_eq!(node.loader().log().matches(told).count(), 1);
}
