//! What the product does differently on different kernels. `cargo xtask vm` runs this on each of them.
#![cfg(test)]

use std::fs;
use std::time::Duration;

use hooks::{Hook, Pins};
use lab::{Lab, Node, Pod, eventually};
use serde_json::Value;

fn lab() -> Lab {
    let lab = Lab::new().nodes(1).build().unwrap();
    lab.node(1).start_loader().unwrap();
    lab
}

/// Whether the kernel has TCX, told by its symbols and not by the probe that is tested.
fn has_tcx() -> bool {
    let symbols = fs::read_to_string("/proc/kallsyms").unwrap();
    symbols
        .lines()
        .any(|line| line.ends_with(" tcx_prog_attach"))
}

/// What `tc` shows of the programs on an interface.
fn filters(node: &Node, ifname: &str) -> String {
    ["ingress", "egress"]
        .map(|side| {
            node.exec(&["tc", "filter", "show", "dev", ifname, side])
                .unwrap()
        })
        .concat()
}

fn link_pins(node: &Node) -> String {
    node.exec(&["ls", "/sys/fs/bpf/azure-vnet/v1/links"])
        .unwrap()
}

/// The programs that `vnetctl status` says run on an interface.
fn running(node: &Node, ifname: &str) -> Vec<String> {
    let status = node.exec(&["vnetctl", "status", "-o", "json"]).unwrap();
    let status: Value = serde_json::from_str(&status).unwrap();
    let attached = status["attached"].as_array().unwrap().iter();
    attached
        .filter(|at| at["ifname"] == ifname)
        .map(|at| at["program"].as_str().unwrap().to_owned())
        .collect()
}

fn reaches_the_internet(lab: &Lab, pod: &Pod) {
    let seen = pod.tcp(lab.inet().addr(), 8080).unwrap().peer_ip();
    assert_eq!(seen, lab.node(1).addr());
}

/// Packets of pods that the programs translated, and not the kernel.
fn fast_answers(node: &Node) -> u64 {
    let status = node.exec(&["vnetctl", "status", "-o", "json"]).unwrap();
    let status: Value = serde_json::from_str(&status).unwrap();
    let pods = status["pods"].as_array().unwrap().iter();
    pods.filter_map(|pod| pod["paths"]["from_internet"]["packets"].as_u64())
        .sum()
}

#[test]
fn every_program_is_verified_and_attached_as_this_kernel_can() {
    let lab = Lab::new().nodes(1).build().unwrap();
    let node = lab.node(1);
    node.loader()
        .start_with(&[], &[("AZURE_VNET_LOG", "debug")])
        .unwrap();
    let log = node.loader().log();
    for line in log
        .lines()
        .filter(|line| line.contains("verified_instructions"))
    {
        // For people and for the table of `cargo xtask vm`.
        println!("loaded: {}", &line[line.find("program=").unwrap()..]);
    }
    let (pins, shown) = (link_pins(node), filters(node, "eth0"));
    if has_tcx() {
        println!("the NIC's programs are held by: TCX links");
        assert_eq!(pins, "eth0:from_wire\neth0:to_wire\n");
        assert_eq!(shown, "");
    } else {
        println!("the NIC's programs are held by: clsact filters");
        assert_eq!(pins, "");
        for filter in [
            "pref 1 bpf chain 0 handle 0x617a from_wire direct-action",
            "pref 65535 bpf chain 0 handle 0x617a to_wire direct-action",
        ] {
            assert!(shown.contains(filter), "{filter}: {shown}");
        }
    }
    assert_eq!(running(node, "eth0"), ["to_wire", "from_wire"]);
    let pod = node.add_pod("web").unwrap();
    reaches_the_internet(&lab, &pod);
    assert!(fast_answers(node) > 0, "the programs did it");
    let received = ["cat", "/sys/class/net/eth0/statistics/rx_packets"];
    let received = pod.exec(&received).unwrap();
    println!("the pod's own interface counts packets received: {received}");
}

#[test]
fn a_restart_replaces_the_nics_programs_where_they_are() {
    let lab = lab();
    let node = lab.node(1);
    let (pins, before) = (link_pins(node), filters(node, "eth0"));
    node.loader().kill9().unwrap();
    node.start_loader().unwrap();
    let after = filters(node, "eth0");
    assert_eq!(link_pins(node), pins);
    assert_eq!(after.lines().count(), before.lines().count(), "{after}");
    if !has_tcx() {
        assert_ne!(after, before, "the program's id is a new one");
    }
    let log = node.loader().log();
    assert_eq!(log.matches("outcome=Replaced").count(), 2, "{log}");
}

#[test]
fn programs_of_others_on_the_nic_see_what_ours_leave_to_the_kernel() {
    let lab = lab();
    let node = lab.node(1);
    let pod = node.add_pod("web").unwrap();
    reaches_the_internet(&lab, &pod);
    node.ping(lab.inet().addr()).unwrap();

    let clsact = node.feed(&["tc", "qdisc", "add", "dev", "eth0", "clsact"], b"");
    assert_eq!(
        clsact.unwrap().status.success(),
        has_tcx(),
        "else it is there"
    );
    // Drops whatever does not come from a pod's veth, so everything here.
    let dropper = "filter add dev eth0 ingress pref 7 bpf direct-action pinned \
                   /sys/fs/bpf/azure-vnet/v1/programs/from_pod";
    let line: Vec<&str> = ["tc"].into_iter().chain(dropper.split(' ')).collect();
    node.exec(&line).unwrap();

    let meets_it = |node: &Node| {
        let ping = ["ping", "-c1", "-W1", "203.0.113.10"];
        !node.feed(&ping, b"").unwrap().status.success()
    };
    assert!(meets_it(node), "the node's own packets go on to it");
    reaches_the_internet(&lab, &pod);
    node.loader().terminate().unwrap();
    node.start_loader().unwrap();
    assert!(meets_it(node), "a restart leaves it alone");
    reaches_the_internet(&lab, &pod);
}

#[test]
fn a_deleted_qdisc_of_the_nic_is_repaired_by_a_restart() {
    let lab = lab();
    let node = lab.node(1);
    let pod = node.add_pod("web").unwrap();
    // Else it would repair that before we look.
    node.loader().terminate().unwrap();
    lose_the_qdisc(node);
    assert_eq!(filters(node, "eth0"), "", "whatever was there is gone");
    for hook in [Hook::TO_WIRE, Hook::FROM_WIRE] {
        let runs = node.run(|| Ok(hooks::runs(&Pins::default(), hook, "eth0")));
        assert_eq!(runs.unwrap(), has_tcx(), "links survive: {}", hook.program);
    }
    node.ping(lab.inet().addr()).unwrap();
    node.start_loader().unwrap();
    assert_eq!(running(node, "eth0"), ["to_wire", "from_wire"]);
    reaches_the_internet(&lab, &pod);
}

#[test]
#[ignore = "slow: the loader looks every 30 s"]
fn a_deleted_qdisc_of_the_nic_is_repaired_without_a_restart() {
    let lab = lab();
    let node = lab.node(1);
    let pod = node.add_pod("web").unwrap();
    lose_the_qdisc(node);
    let repaired = eventually(Duration::from_mins(1), || {
        (running(node, "eth0") == ["to_wire", "from_wire"]).then_some(())
    });
    assert!(repaired.is_some(), "{:?}", running(node, "eth0"));
    reaches_the_internet(&lab, &pod);
    assert!(fast_answers(node) > 0);
}

/// What somebody does who cleans up after another tool.
fn lose_the_qdisc(node: &Node) {
    if has_tcx() {
        node.exec(&["tc", "qdisc", "add", "dev", "eth0", "clsact"])
            .unwrap();
    }
    node.exec(&["tc", "qdisc", "del", "dev", "eth0", "clsact"])
        .unwrap();
}

#[test]
fn the_programs_leave_an_interface_that_is_not_the_nic_any_more() {
    let lab = lab();
    let node = lab.node(1);
    node.ip("link add nic2 type veth peer name far2\nlink set nic2 up\nlink set far2 up\n")
        .unwrap();
    node.ip("address add 10.66.0.4/24 dev nic2\n").unwrap();
    node.loader().terminate().unwrap();
    node.write("/etc/azure-vnet/loader.yaml", "nic: nic2\n")
        .unwrap();
    node.start_loader().unwrap();
    assert_eq!(running(node, "nic2"), ["to_wire", "from_wire"]);
    assert!(!link_pins(node).contains("eth0"), "{}", link_pins(node));
    assert!(
        !filters(node, "eth0").contains("_wire"),
        "{}",
        filters(node, "eth0")
    );
}

#[test]
fn the_documented_commands_take_the_programs_off_the_nic() {
    let guide = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/troubleshooting.md");
    let guide = fs::read_to_string(guide).unwrap();
    let commands: Vec<&str> = guide
        .lines()
        .filter(|line| {
            line.starts_with("tc filter del") || *line == "rm -rf /sys/fs/bpf/azure-vnet"
        })
        .collect();
    assert_eq!(commands.len(), 3);

    let lab = lab();
    let node = lab.node(1);
    node.loader().terminate().unwrap();
    for command in commands {
        let line: Vec<&str> = command.split(' ').collect();
        let done = node.feed(&line, b"").unwrap();
        let expected = command.starts_with("rm") || !has_tcx();
        assert_eq!(
            done.status.success(),
            expected,
            "{command}: {}",
            done.stderr
        );
    }
    assert!(
        !filters(node, "eth0").contains("_wire"),
        "{}",
        filters(node, "eth0")
    );
}
