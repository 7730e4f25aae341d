//! What fails says what failed, why and what to do; nothing is left behind, and nobody else is disturbed.
#![cfg(test)]

use std::time::{Duration, Instant};

use lab::{Lab, Node, Wireserver};

/// What the platform's second source tells is as good.
#[test]
fn a_wireserver_that_is_away_is_replaced_by_imds() {
    for mode in [Wireserver::Absent, Wireserver::Status(503)] {
        let lab = Lab::new().nodes(1).build().unwrap();
        let node = lab.node(1);
        lab.platform().wireserver(mode).unwrap();
        node.start_loader().unwrap();
        let pod = node.add_pod("web").unwrap();
        let secondaries = node.secondaries().unwrap();
        assert_eq!(pod.addr(), secondaries[0], "never the primary one");
        assert_eq!(node.status().unwrap()["pools"]["Ok"]["source"], "imds");
    }
}

/// ADD fails with all of `words` in its error, leaves the node as it was, and the other pod reaches the Internet.
fn add_fails(lab: &Lab, name: &str, prepare: impl FnOnce(&lab::Pod), words: &[&str]) {
    let node = lab.node(1);
    let other = node.add_pod("other").unwrap();
    let mut pod = node.new_netns(name).unwrap();
    prepare(&pod);
    let before = node.snapshot().unwrap();
    let error = format!("{:#}", pod.add(&node.network().unwrap()).unwrap_err());
    for word in words {
        assert!(error.contains(word), "`{word}` is not in: {error}");
    }
    assert_eq!(before.left(&node.snapshot().unwrap()), Vec::<String>::new());
    assert_eq!(
        other.tcp(lab.inet().addr(), 8080).unwrap().peer_ip(),
        node.addr()
    );
}

fn lab() -> Lab {
    let lab = Lab::new().nodes(1).build().unwrap();
    lab.node(1).start_loader().unwrap();
    lab
}

/// A loader that cannot start says why in one line.
fn loader_fails(node: &Node, words: &[&str]) {
    let error = format!("{:#}", node.start_loader().unwrap_err());
    for word in words {
        assert!(error.contains(word), "`{word}` is not in: {error}");
    }
}

#[test]
fn an_interface_name_that_is_taken() {
    let lab = lab();
    let take = |pod: &lab::Pod| {
        pod.ip("link add eth0 type veth peer name other0\n")
            .unwrap();
    };
    add_fails(
        &lab,
        "taken",
        take,
        &["eth0", "there already", "another CNI_IFNAME"],
    );
}

#[test]
fn a_namespace_that_is_gone() {
    let lab = lab();
    let unbind = |pod: &lab::Pod| {
        let path = pod.netns().display().to_string();
        lab.node(1).exec(&["umount", &path]).unwrap();
        lab.node(1).exec(&["rm", &path]).unwrap();
    };
    add_fails(
        &lab,
        "gone",
        unbind,
        &["/run/netns/cni-", "the runtime must make the namespace"],
    );
}

#[test]
fn a_wireserver_that_is_absent_slow_or_broken_at_start() {
    for mode in [
        Wireserver::Absent,
        Wireserver::Garbage,
        Wireserver::Status(503),
        Wireserver::Slow(Duration::from_secs(30)),
    ] {
        let lab = Lab::new().nodes(1).build().unwrap();
        lab.platform().wireserver(mode).unwrap();
        lab.platform().imds(false);
        let started = Instant::now();
        lab.node(1).start_loader().unwrap();
        assert!(
            started.elapsed() < Duration::from_secs(2),
            "{mode:?}: the loader does not wait for it"
        );
        let error = format!("{:#}", lab.node(1).add_pod("web").unwrap_err());
        for source in ["wireserver", "IMDS"] {
            assert!(error.contains(source), "{mode:?}: {error}");
        }
        assert!(
            started.elapsed() < Duration::from_secs(15),
            "{mode:?}: took {:?}",
            started.elapsed()
        );

        lab.platform().wireserver(Wireserver::Normal).unwrap();
        lab.node(1)
            .add_pod("again")
            .unwrap_or_else(|error| panic!("{mode:?}: {error:#}"));
    }
}

#[test]
fn a_wireserver_that_goes_away_later_is_not_missed() {
    let lab = lab();
    lab.node(1).add_pod("first").unwrap();
    lab.platform().wireserver(Wireserver::Absent).unwrap();
    let started = Instant::now();
    lab.node(1).add_pod("second").unwrap().delete().unwrap();
    assert!(
        started.elapsed() < Duration::from_secs(1),
        "{:?}",
        started.elapsed()
    );
    lab.node(1).loader().kill9().unwrap();
    lab.node(1).start_loader().unwrap();
    let pod = lab.node(1).add_pod("third").unwrap();
    assert_eq!(
        pod.tcp(lab.inet().addr(), 8080).unwrap().peer_ip(),
        lab.node(1).addr()
    );
}

#[test]
fn no_bpffs() {
    let lab = Lab::new().nodes(1).build().unwrap();
    lab.node(1).exec(&["umount", "/sys/fs/bpf"]).unwrap();
    loader_fails(
        lab.node(1),
        &["/sys/fs/bpf is not a BPF file system", "mount -t bpf"],
    );
}

#[test]
fn no_btf() {
    let lab = Lab::new().nodes(1).build().unwrap();
    lab.node(1)
        .exec(&["mount", "-t", "tmpfs", "none", "/sys/kernel/btf"])
        .unwrap();
    loader_fails(lab.node(1), &["BTF", "CONFIG_DEBUG_INFO_BTF"]);
}

#[test]
fn a_loader_configuration_that_makes_no_sense() {
    let lab = Lab::new().nodes(1).build().unwrap();
    for (yaml, words) in [
        (
            "vnetCidr: []",
            ["unknown key `vnetCidr`", "did you mean `vnetCidrs`?"],
        ),
        ("nic: eth7", ["no interface `eth7`", "eth0"]),
        ("natPorts: 1-2", ["port range", "1024-29999"]),
        ("{", ["loader.yaml", "docs/configuration.md"]),
    ] {
        lab.node(1)
            .write("/etc/azure-vnet/loader.yaml", yaml)
            .unwrap();
        loader_fails(lab.node(1), &words);
    }
}

#[test]
fn a_node_without_a_default_route() {
    let lab = Lab::new().nodes(1).build().unwrap();
    lab.node(1)
        .exec(&["ip", "route", "del", "default"])
        .unwrap();
    loader_fails(lab.node(1), &["no IPv4 default route", "nic:"]);
}

#[test]
fn vnetctl_without_a_loader() {
    let lab = Lab::new().nodes(1).build().unwrap();
    let done = lab.node(1).feed(&["vnetctl", "status"], b"").unwrap();
    assert!(!done.status.success());
    assert!(
        done.stderr.contains("is azure-vnet-loader running?"),
        "{}",
        done.stderr
    );
}

/// The disk of the state fills up, then becomes read-only: what runs goes on, and what cannot be done is told.
#[test]
fn a_full_and_a_read_only_disk() {
    let lab = Lab::new().nodes(1).build().unwrap();
    let node = lab.node(1);
    let disk = "/run/azure-vnet";
    let mount = |options: &str| node.exec(&["mount", "-t", "tmpfs", "-o", options, "none", disk]);
    node.exec(&["mkdir", disk]).unwrap();
    mount("size=256k").unwrap();
    node.start_loader().unwrap();
    let before = node.snapshot().unwrap();
    let [first, second] = ["first", "second"].map(|name| node.add_pod(name).unwrap());
    let works = |pod: &lab::Pod| {
        let seen = pod.tcp(lab.inet().addr(), 8080).unwrap();
        assert_eq!(seen.peer_ip(), node.addr());
    };

    let filler = "/run/azure-vnet/filler";
    let full = node.exec(&["dd", "if=/dev/zero", &format!("of={filler}")]);
    assert!(format!("{:#}", full.unwrap_err()).contains("No space left"));
    let error = format!("{:#}", node.add_pod("third").unwrap_err());
    for word in ["code 5", disk, "No space left", "file system"] {
        assert!(error.contains(word), "`{word}` is not in: {error}");
    }
    node.loader().kill9().unwrap();
    first.delete().unwrap();
    node.start_loader().unwrap();
    works(&second);

    // A disk on which somebody writes cannot be made read-only.
    node.loader().kill9().unwrap();
    mount("remount,ro").unwrap();
    let mut fourth = node.new_netns("fourth").unwrap();
    let error = fourth.add(&node.network().unwrap()).unwrap_err();
    let error = format!("{error:#}; {:#}", second.del().unwrap_err());
    for word in ["code 5", disk, "Read-only", "file system"] {
        assert!(error.contains(word), "`{word}` is not in: {error}");
    }
    loader_fails(node, &["loader.lock", "Read-only"]);
    works(&second);

    mount("remount,rw").unwrap();
    node.exec(&["rm", filler]).unwrap();
    node.start_loader().unwrap();
    second.delete().unwrap();
    fourth.add(&node.network().unwrap()).unwrap();
    works(&fourth);
    fourth.delete().unwrap();
    assert_eq!(before.left(&node.snapshot().unwrap()), Vec::<String>::new());
}
