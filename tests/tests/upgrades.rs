//! A node gets the next version and goes back; what does not fit is refused, and what runs goes on.
#![cfg(test)]

use std::time::Duration;

use lab::{Lab, Node, Pod, paths_during};
use serde_json::Value;

const MAPS: &str = "/sys/fs/bpf/azure-vnet/v1/maps";

fn lab() -> Lab {
    let lab = Lab::new().nodes(2).build().unwrap();
    for node in lab.nodes() {
        node.start_loader().unwrap();
    }
    lab
}

fn bpftool(node: &Node, words: &str) -> Value {
    let line: Vec<&str> = ["bpftool", "-j"]
        .into_iter()
        .chain(words.split(' '))
        .collect();
    let text = node.exec(&line).unwrap();
    // Some commands say nothing.
    serde_json::from_str(&text).unwrap_or_default()
}

fn map(node: &Node, name: &str) -> Value {
    bpftool(node, &format!("map show pinned {MAPS}/{name}"))
}

/// Connections to the Internet and to the VNet, new ones.
fn works(lab: &Lab, node: &Node, pod: &Pod, far: &Pod) {
    let seen = pod.tcp(lab.inet().addr(), 8080).unwrap();
    assert_eq!(seen.peer_ip(), node.addr());
    assert_eq!(pod.udp(far.addr(), 80).unwrap().peer_ip(), pod.addr());
    assert_eq!(far.tcp(pod.addr(), 80).unwrap().peer_ip(), far.addr());
}

fn echoing(node: &Node, name: &str) -> (Pod, lab::EchoServer) {
    let pod = node.add_pod(name).unwrap();
    let server = pod.serve_echo(80).unwrap();
    (pod, server)
}

/// Whatever is pinned for maps is one per name.
fn no_map_is_left_over(node: &Node) {
    let names = node.exec(&["ls", MAPS]).unwrap();
    assert!(!names.contains('+'), "{names}");
}

#[test]
fn a_plug_in_works_with_the_loader_of_the_next_version_and_entries_go_there_and_back() {
    let lab = lab();
    let node = lab.node(1);
    let [(first, _one), (far, _two)] =
        [(node, "first"), (lab.node(2), "far")].map(|(node, name)| echoing(node, name));
    works(&lab, node, &first, &far);
    let streams = [(far.addr(), 80), (lab.inet().addr(), 8080)]
        .map(|(server, port)| first.stream(server, port).unwrap());
    let before = ["flows", "snat", "dst4", "pods"].map(|name| map(node, name));
    let (classes, program) = (node.status().unwrap()["classes"].clone(), tag(node));

    node.loader().terminate().unwrap();
    node.loader().start_next().unwrap();
    let after = ["flows", "snat", "dst4", "pods"].map(|name| map(node, name));
    let grown = [0, 1, 2].map(|map| {
        (
            before[map]["bytes_value"].as_u64(),
            after[map]["bytes_value"].as_u64(),
        )
    });
    assert_eq!(
        grown,
        [
            (Some(8), Some(16)),
            (Some(16), Some(24)),
            (Some(4), Some(8))
        ]
    );
    assert_eq!(before[3]["id"], after[3]["id"], "the same map");
    assert_ne!(program, tag(node), "another program");
    assert_eq!(node.status().unwrap()["classes"], classes);
    let ((), ways) = paths_during(&[&first], || works(&lab, node, &first, &far)).unwrap();
    assert_eq!(ways, ["from_internet from_vnet to_internet to_vnet"]);
    let (second, _three) = echoing(node, "second");
    works(&lab, node, &second, &far);
    no_map_is_left_over(node);

    node.loader().terminate().unwrap();
    node.start_loader().unwrap();
    assert_eq!(map(node, "snat")["bytes_value"], 16);
    assert_eq!(program, tag(node));
    for pod in [&first, &second] {
        works(&lab, node, pod, &far);
    }
    assert_eq!(node.status().unwrap()["classes"], classes);
    no_map_is_left_over(node);
    for stream in streams {
        let report = stream.finish().unwrap();
        assert_eq!((report.resets, report.error), (0, None));
    }
    second.delete().unwrap();
}

/// Of the program that pods get.
fn tag(node: &Node) -> Value {
    let program = bpftool(
        node,
        "prog show pinned /sys/fs/bpf/azure-vnet/v1/programs/from_pod",
    );
    program["tag"].clone()
}

#[test]
fn an_upgrade_that_is_killed_at_any_moment_is_ended_by_either_version() {
    let lab = lab();
    let node = lab.node(1);
    let [(pod, _one), (far, _two)] =
        [(node, "pod"), (lab.node(2), "far")].map(|(node, name)| echoing(node, name));
    let streams = [(far.addr(), 80), (lab.inet().addr(), 8080)]
        .map(|(server, port)| pod.stream(server, port).unwrap());
    node.loader().kill9().unwrap();
    for (turn, life) in (100..2000).step_by(190).enumerate() {
        node.loader()
            .cut_next_short(Duration::from_millis(life))
            .unwrap();
        assert_eq!(
            pod.tcp(lab.inet().addr(), 8080).unwrap().peer_ip(),
            node.addr()
        );
        if turn % 2 == 0 {
            node.start_loader().unwrap();
        } else {
            node.loader().start_next().unwrap();
        }
        works(&lab, node, &pod, &far);
        no_map_is_left_over(node);
        let haste = nice(&node.loader().pid().unwrap().to_string());
        assert_eq!(haste, nice("self"), "its haste is over");
        node.loader().kill9().unwrap();
    }
    for stream in streams {
        let report = stream.finish().unwrap();
        assert_eq!((report.resets, report.error), (0, None));
    }
}

/// As it is when an upgrade was cut short, too: nobody else asks then whether its haste is over.
#[test]
fn the_haste_of_an_upgrade_ends_with_it_while_flows_find_no_room() {
    let lab = Lab::new().nodes(1).build().unwrap();
    let node = lab.node(1);
    node.start_loader().unwrap();
    let is = || node.loader().pid().map(|pid| nice(&pid.to_string()));
    let before = is().unwrap();
    node.loader().terminate().unwrap();
    bpftool(
        node,
        &format!("map update pinned {MAPS}/flows_lost key 0 0 0 0 value 7 0 0 0"),
    );
    node.loader().start_next().unwrap();
    assert_eq!(is().unwrap(), before);
    assert!(node.loader().log().contains("carried over"));
}

/// How far a process lets others come before it; children have their parent's.
fn nice(process: &str) -> i32 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    // The 19th of all, of which the name is the second.
    fields.split(' ').nth(16).unwrap().parse().unwrap()
}

/// Makes a start fail that must change nothing, and mends what it was.
struct Misfortune {
    spoil: &'static str,
    words: &'static [&'static str],
    mend: &'static str,
}

const MISFORTUNES: [Misfortune; 9] = [
    Misfortune {
        spoil: "mv MAPS/snat MAPS/kept && bpftool map create MAPS/snat type hash key 12 value 16 entries 262144 name snat",
        words: &["maps/snat was not pinned by azure-vnet-loader", "rm -r"],
        mend: "rm MAPS/snat && mv MAPS/kept MAPS/snat",
    },
    Misfortune {
        spoil: "NOTE 07 00 00 00",
        words: &[
            "maps/flows has another layout",
            "revision 7",
            "this build has revision 1",
            "start the version",
        ],
        mend: "NOTE 01 00 00 00",
    },
    Misfortune {
        spoil: "mkdir /sys/fs/bpf/azure-vnet/v2",
        words: &["azure-vnet/v2 holds the pins of another version"],
        mend: "rmdir /sys/fs/bpf/azure-vnet/v2",
    },
    Misfortune {
        spoil: "mount -t tmpfs none /sys/kernel/btf",
        words: &["the kernel has no BTF"],
        mend: "umount /sys/kernel/btf",
    },
    Misfortune {
        spoil: "mount -t tmpfs none /sys/fs/bpf",
        words: &["/sys/fs/bpf is not a BPF file system"],
        mend: "umount /sys/fs/bpf",
    },
    Misfortune {
        spoil: "printf 'nic: [eth0' > CONFIG",
        words: &["loader.yaml", "docs/configuration.md"],
        mend: "rm CONFIG",
    },
    Misfortune {
        spoil: "echo 'vnetCidr: []' > CONFIG",
        words: &["unknown key `vnetCidr`"],
        mend: "rm CONFIG",
    },
    Misfortune {
        spoil: "echo 'flowsMax: many' > CONFIG",
        words: &["loader.yaml", "flowsMax"],
        mend: "rm CONFIG",
    },
    Misfortune {
        spoil: "echo 'nic: eth7' > CONFIG",
        words: &["no interface `eth7`"],
        mend: "rm CONFIG",
    },
];

/// Shell commands: `NOTE` writes the first bytes of the note of map `flows`.
fn shell(node: &Node, command: &str) {
    let command = command
        .replace("MAPS", MAPS)
        .replace("CONFIG", "/etc/azure-vnet/loader.yaml");
    let Some(first) = command.strip_prefix("NOTE ") else {
        node.exec(&["sh", "-c", &command]).unwrap();
        return;
    };
    let key = map(node, "flows")["id"].as_u64().unwrap();
    let key = u32::try_from(key)
        .unwrap()
        .to_ne_bytes()
        .map(|byte| byte.to_string())
        .join(" ");
    let found = bpftool(node, &format!("map lookup pinned {MAPS}/layouts key {key}"));
    let value = found["value"]
        .as_array()
        .expect("a note of the map")
        .iter()
        .skip(4);
    let value: Vec<&str> = first
        .split(' ')
        .chain(value.map(|byte| byte.as_str().unwrap()))
        .collect();
    bpftool(
        node,
        &format!(
            "map update pinned {MAPS}/layouts key {key} value hex {}",
            value.join(" ")
        ),
    );
}

#[test]
fn a_loader_that_is_refused_leaves_maps_and_programs_alone() {
    let lab = lab();
    let node = lab.node(1);
    let [(pod, _one), (far, _two)] =
        [(node, "pod"), (lab.node(2), "far")].map(|(node, name)| echoing(node, name));
    let stream = pod.stream(lab.inet().addr(), 8080).unwrap();
    node.loader().terminate().unwrap();
    let pinned = || {
        let maps = node.exec(&["ls", "-i", MAPS]).unwrap();
        (maps, tag(node), map(node, "snat"), map(node, "flows"))
    };
    let before = pinned();
    for Misfortune { spoil, words, mend } in &MISFORTUNES {
        shell(node, spoil);
        let error = format!("{:#}", node.start_loader().unwrap_err());
        for word in *words {
            assert!(error.contains(word), "{spoil}: `{word}` is not in: {error}");
        }
        works(&lab, node, &pod, &far);
        shell(node, mend);
        assert_eq!(pinned(), before, "{spoil}");
    }
    node.start_loader().unwrap();
    works(&lab, node, &pod, &far);
    let report = stream.finish().unwrap();
    assert_eq!((report.resets, report.error), (0, None));
}
