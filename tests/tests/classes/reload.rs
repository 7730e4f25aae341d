//! A changed file takes effect at once, for real packets.

use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};

use abi::{Class, Ip4};
use anyhow::Context as _;
use aya::maps::lpm_trie::Key;
use hooks::{Abi, Maps, Pins};
use lab::Stop;
use nix::sys::signal::Signal;

use super::*;

#[test]
fn a_changed_masq_file_changes_the_source_that_others_see() {
    let lab = lab("");
    let node = lab.node(1);
    let pod = node.add_pod("web").unwrap();
    let sees = |source| move |lab: &Lab, pod: &Pod| seen_on_premises(lab, pod) == source;
    let (by_pod, by_node) = (sees(pod.addr()), sees(node.addr()));
    assert!(
        by_pod(&lab, &pod),
        "private ranges are not masqueraded by default"
    );

    let second = "/etc/azure-vnet/masq/ip-masq-agent-reconciled";
    let write = |path: &str, text: &str| node.write(path, text).unwrap();
    let run = |line: &[&str]| drop(node.exec(line).unwrap());
    let in_two_files = r#"{"NonMasqueradeCIDRs": ["192.168.0.0/16"], "MasqLinkLocal": true}"#;
    let mut times = Vec::new();
    let mut then = |what, change: &dyn Fn(), holds: &dyn Fn(&Lab, &Pod) -> bool| {
        times.push(prompt(node, what, change, || holds(&lab, &pod)));
    };
    // The directory is not there yet.
    let list = "nonMasqueradeCIDRs: [172.16.0.0/12]\nresyncInterval: 60s\n";
    then(
        "a list without on-premises",
        &|| write(MASQ_FILE, list),
        &by_node,
    );
    then(
        "a second file's list is added",
        &|| write(second, in_two_files),
        &by_pod,
    );
    assert_eq!(
        class(node, "169.254.7.7"),
        format!("stack 5 masqLinkLocal 169.254.0.0/16 ({second})")
    );
    then("and taken away", &|| run(&["rm", second]), &by_node);
    write(
        "/etc/azure-vnet/new",
        "nonMasqueradeCIDRs: [192.168.0.0/16]",
    );
    let replace = || run(&["mv", "/etc/azure-vnet/new", MASQ_FILE]);
    then("a file is replaced", &replace, &by_pod);
    then(
        "an empty file is an empty list",
        &|| write(MASQ_FILE, ""),
        &by_node,
    );
    assert!(warnings(node).contains("private ranges outside the VNet are masqueraded"));
    let remove = || run(&["rm", "-r", "/etc/azure-vnet/masq"]);
    then("no directory: the defaults", &remove, &by_pod);
    println!("a change of masq files took effect after {times:?}");
    assert!(times.iter().any(|time| *time < PROMPT), "{times:?}");
}

#[test]
fn kubelets_way_of_changing_a_mounted_config_map_is_seen() {
    let lab = lab("");
    let node = lab.node(1);
    let pod = node.add_pod("web").unwrap();
    // kubelet writes a new directory and swaps the link to it.
    let publish = |version: &str, text: &str| {
        let directory = format!("/etc/azure-vnet/masq/..{version}");
        node.write(&format!("{directory}/ip-masq-agent"), text)
            .unwrap();
        node.run(|| {
            let new = "/etc/azure-vnet/masq/..data_tmp";
            symlink(format!("..{version}"), new)?;
            fs::rename(new, "/etc/azure-vnet/masq/..data")?;
            if !fs::exists(MASQ_FILE)? {
                symlink("..data/ip-masq-agent", MASQ_FILE)?;
            }
            Ok(())
        })
        .unwrap();
    };
    for (version, list, source) in [("1", "", node.addr()), ("2", "192.168.0.0/16", pod.addr())] {
        let change = || publish(version, &format!("nonMasqueradeCIDRs: [{list}]"));
        prompt(node, version, change, || {
            seen_on_premises(&lab, &pod) == source
        });
    }
}

#[test]
fn loader_yaml_takes_effect_without_a_restart() {
    let lab = lab("");
    let node = lab.node(1);
    let pod = node.add_pod("web").unwrap();
    let metadata = || {
        let path = "/metadata/instance/network?api-version=2021-01-01";
        let pod = pod.within(Duration::from_millis(500));
        pod.http(lab::IMDS, 80, path, &[("Metadata", "true")])
            .is_ok()
    };
    let secrets = || {
        let path = "/machine/plugins?comp=nmagent&type=getinterfaceinfov1";
        let pod = pod.within(Duration::from_millis(500));
        pod.http(lab::WIRESERVER, 80, path, &[]).is_ok()
    };
    assert!(metadata() && !secrets());
    let write = |text: &'static str| move || node.write(LOADER_YAML, text).unwrap();
    let open = write("imds: deny\nblockWireserver: false\n");
    prompt(node, "both keys", open, || !metadata() && secrets());
    // So many that half of them are free, whichever of the connections before have closed by then.
    let ports = write("natPorts: 5000-5099\n");
    prompt(node, "both defaults again", ports, || {
        metadata() && !secrets()
    });
    let port = pod.tcp(lab.inet().addr(), 8080).unwrap().peer_addr().port();
    assert!((5000..=5099).contains(&port), "{port}");
    assert_eq!(status(node)["nat_ports"], serde_json::json!([5000, 5099]));
    let warned = "other SNAT ports: connections to the Internet that are open break";
    soon("a warning", || node.loader().log().contains(warned));
    node.exec(&["rm", LOADER_YAML]).unwrap();
    soon("no file", || {
        status(node)["nat_ports"] == serde_json::json!([1024, 29_999])
    });
}

#[test]
fn known_services_make_the_other_private_ranges_fast() {
    let lab = lab("");
    let node = lab.node(1);
    let pod = node.add_pod("web").unwrap();
    let tracked = || {
        let flows = node.tracked().unwrap();
        flows
            .iter()
            .filter(|flow| flow.has(lab.onprem().addr()))
            .count()
    };
    assert_eq!(seen_on_premises(&lab, &pod), pod.addr());
    let before = tracked();
    assert!(before > 0, "through the kernel");

    let write = |text: &'static str| move || node.write(LOADER_YAML, text).unwrap();
    let services = write("serviceCidrs: [10.0.0.0/16]\n");
    prompt(node, "fast", services, || {
        class(node, "192.168.0.4").starts_with("direct 10 ")
    });
    assert_eq!(seen_on_premises(&lab, &pod), pod.addr());
    let masqueraded = write("serviceCidrs: [10.0.0.0/16]\nnonMasqueradeCIDRs: []\n");
    prompt(node, "fast, with SNAT", masqueraded, || {
        class(node, "192.168.0.4").starts_with("snat 11 ")
    });
    assert_eq!(seen_on_premises(&lab, &pod), node.addr());
    assert_eq!(tracked(), before, "past the kernel");
    assert!(class(node, "10.0.0.10").starts_with("stack 6 "));
}

#[test]
fn sighup_takes_over_what_raised_no_event() {
    let lab = lab("");
    let node = lab.node(1);
    node.loader().signal(Signal::SIGHUP).unwrap();
    soon("an answer in the log", || {
        node.loader().log().contains("nothing has changed")
    });
    node.write("/root/other.yaml", "imds: deny\n").unwrap();
    // A mount is not seen by inotify.
    node.exec(&["mount", "--bind", "/root/other.yaml", LOADER_YAML])
        .unwrap();
    assert!(class(node, "169.254.169.254").starts_with("snat 4 "));
    node.loader().signal(Signal::SIGHUP).unwrap();
    soon("the mounted file", || {
        class(node, "169.254.169.254").starts_with("deny 4 imds ")
    });
    assert!(node.loader().is_running().unwrap());
}

#[test]
fn link_local_destinations_are_masqueraded_when_a_file_wants_it() {
    const LINK_LOCAL: Ipv4Addr = Ipv4Addr::new(169, 254, 7, 7);
    let lab = lab("");
    let node = lab.node(1);
    let pod = node.add_pod("web").unwrap();
    // Nobody answers; what counts is the source on the wire.
    let sends_as = |source: Ipv4Addr| {
        let wire = node.capture("eth0").unwrap();
        let socket = pod.run(|| Ok(UdpSocket::bind("0.0.0.0:0")?)).unwrap();
        socket.send_to(b"?", (LINK_LOCAL, 7)).unwrap();
        let ends = Some((source, LINK_LOCAL));
        let within = Duration::from_millis(200);
        let frame = wire.wait_for(within, |frame| lab::frame::ipv4_ends(frame) == ends);
        frame.is_some()
    };
    assert!(sends_as(pod.addr()));
    node.write(MASQ_FILE, "masqLinkLocal: true\n").unwrap();
    soon("masqueraded", || sends_as(node.addr()));
    node.write(
        MASQ_FILE,
        "masqLinkLocal: true\nnonMasqueradeCIDRs: [169.254.0.0/17]\n",
    )
    .unwrap();
    soon("excepted", || sends_as(pod.addr()));
    node.write(LOADER_YAML, "masqLinkLocal: true\n").unwrap();
    node.write(MASQ_FILE, "masqLinkLocal: false\n").unwrap();
    soon("loader.yaml wants it", || sends_as(node.addr()));
}

#[test]
fn another_nic_waits_for_a_restart_and_says_so() {
    let lab = lab("");
    let node = lab.node(1);
    node.ip("link add eth1 type bridge\nlink set eth1 up\n")
        .unwrap();
    node.write(LOADER_YAML, "nic: eth1\nimds: deny\n").unwrap();
    soon("told", || {
        warnings(node).contains("nic: `eth1` takes effect with `systemctl restart")
    });
    assert_eq!(status(node)["node"]["nic"], "eth0");
    assert!(
        class(node, "169.254.169.254").starts_with("deny"),
        "the other keys are in force"
    );
    node.write(LOADER_YAML, "nic: eth0\n").unwrap();
    soon("the NIC that is used", || warnings(node) == "[]");
}

/// While classes change for a hundred other prefixes, a Service is never fast and the peered VNet never slow.
#[test]
fn no_destination_has_a_wrong_class_while_classes_change() {
    const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
    let narrow = "vnetCidrs: [10.50.0.0/16]\n";
    let wide = "vnetCidrs: [10.0.0.0/8]\nserviceCidrs: [10.96.0.0/12]\n";
    let lab = lab(narrow);
    let node = lab.node(1);
    let pod = node.add_pod("web").unwrap();
    let stop = AtomicBool::new(false);
    let watch = || {
        node.run(|| {
            let maps = Maps::from_pins(&Pins::default())?;
            let class = |addr: Ipv4Addr| {
                let entry = maps.dst4.get(&Key::new(32, Abi(Ip4::from(addr))), 0);
                entry.map(|entry| entry.0.class()).context("look up")
            };
            let mut looks = 0_u32;
            while !stop.load(Ordering::Relaxed) {
                assert_eq!(class(SERVICE)?, Class::Stack, "a Service");
                assert_eq!(class(lab.peer().addr())?, Class::Direct, "the peered VNet");
                looks += 1;
            }
            Ok(looks)
        })
    };
    std::thread::scope(|scope| {
        // Also when a change does not come, or this would wait for the watcher for ever.
        let stopping = Stop(&stop);
        let watcher = scope.spawn(watch);
        let paced = scope.spawn(|| pod.udp_paced(lab.peer().addr(), 7, 200, 800).unwrap());
        for round in 0..10 {
            let (yaml, expected) = [
                (wide, "9 vnetCidrs 10.0.0.0/8"),
                (narrow, "9 vnetCidrs 10.50.0.0/16"),
            ][round % 2];
            node.write(LOADER_YAML, yaml).unwrap();
            soon(yaml, || class(node, "10.50.0.4").contains(expected));
        }
        let paced = paced.join().unwrap();
        assert_eq!(paced.received, paced.sent);
        drop(stopping);
        let looks = watcher.join().unwrap().unwrap();
        println!("{looks} looks at dst4 during 10 changes");
        assert!(looks > 1000, "{looks}");
    });
    let clients = lab.peer().clients();
    let strangers = clients
        .iter()
        .filter(|client| *client.address.ip() != pod.addr())
        .count();
    assert_eq!(strangers, 0, "of {}", clients.len());
}

#[test]
fn a_table_of_the_kernels_that_could_not_be_written_is_written_later() {
    const BROKEN: &str = "/run/nft-is-broken";
    let lab = Lab::new().nodes(1).build().unwrap();
    let node = lab.node(1);
    node.loader().start_with_nft_that_breaks(BROKEN).unwrap();
    let pod = node.add_pod("web").unwrap();
    node.write(BROKEN, "").unwrap();
    node.write(MASQ_FILE, "nonMasqueradeCIDRs: [10.0.0.0/8]\n")
        .unwrap();
    soon("a list without on-premises", || {
        class(node, "192.168.0.4").starts_with("stack 11")
    });
    let warning = "does not masquerade";
    soon("the warning", || warnings(node).contains(warning));
    assert_eq!(seen_on_premises(&lab, &pod), pod.addr());
    node.exec(&["rm", BROKEN]).unwrap();
    // The loader looks at the node every 30 s, and when anything of it changes.
    node.ip("link add other0 type bridge\n").unwrap();
    soon("masqueraded", || {
        seen_on_premises(&lab, &pod) == node.addr()
    });
    soon("no warning", || !warnings(node).contains(warning));
}
