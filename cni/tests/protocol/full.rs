//! Whole attachments, with programs that pass everything: what is made, looked at, killed half-way and taken away.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};

use crate::exec::{netconf, netconf_with, pass};
use crate::loader::{Loader, Manner};
use crate::programs;
use crate::sandbox::Sandbox;

const POD: &str = "/run/netns/pod";

/// A node where ADD can succeed.
pub(crate) fn node(manner: Manner) -> (Sandbox, Loader) {
    let sandbox = Sandbox::with_pod();
    programs::pin();
    sandbox.cache_pools(&(5..=250).collect::<Vec<u8>>());
    (sandbox, Loader::start(manner))
}

pub(crate) fn host_veth(result: &Value) -> &str {
    result["interfaces"][1]["name"].as_str().unwrap()
}

fn mac_of(interface: &Value) -> String {
    interface["mac"].as_str().unwrap().to_owned()
}

/// Rows 41 to 46, 51 and 63.
#[test]
fn an_attachment_comes_and_goes_in_every_version() {
    let (sandbox, loader) = node(Manner::Helpful);
    let before = sandbox.snapshot();
    for (round, version) in [
        "0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0",
    ]
    .iter()
    .enumerate()
    {
        let conf = netconf_with(json!({"cniVersion": version}));
        let result = sandbox.azure_vnet("ADD").conf(&conf).run().document();
        let address = format!("10.240.0.{}/16", 5 + round);
        assert_eq!(result["cniVersion"], *version);
        if version.starts_with("0.1") || version.starts_with("0.2") {
            assert_eq!(result["ip4"]["ip"], address);
        } else {
            assert_eq!(result["ips"][0]["address"], address);
            assert_eq!(result["ips"][0]["interface"], 0);
            assert_eq!(result["interfaces"][0]["name"], "eth0");
            assert_eq!(result["interfaces"][0]["sandbox"], POD);
            assert_eq!(result["interfaces"][1].get("sandbox"), None);
            assert_eq!(
                result["interfaces"][0].get("mtu"),
                (*version == "1.1.0").then_some(&json!(1400))
            );
            assert_eq!(
                sandbox.mac(host_veth(&result)),
                mac_of(&result["interfaces"][1])
            );
            assert_eq!(sandbox.mac_in_pod("eth0"), mac_of(&result["interfaces"][0]));
        }
        assert_eq!(
            sandbox.azure_vnet("ADD").conf(&conf).run().document(),
            result
        );
        assert_eq!(
            sandbox.interfaces_in(Path::new(POD)),
            BTreeSet::from(["lo".into(), "eth0".into()])
        );
        sandbox.azure_vnet("DEL").conf(&conf).run().silence();
        assert_eq!(sandbox.snapshot(), before, "{version}");
    }
    let once = ["node", "register", "inspect", "remove_link", "unregister"];
    assert_eq!(loader.requests(), once.repeat(7));
}

/// Damages an attachment; gets the host veth's name.
type Spoil = Box<dyn Fn(&Sandbox, &str)>;

/// Rows 67 and 79 to 81: what CHECK misses does not keep DEL from taking the rest away.
#[test]
fn check_names_exactly_what_is_missing() {
    let (sandbox, _loader) = node(Manner::Helpful);
    let conf = |result: &Value| netconf_with(json!({"cniVersion": "1.0.0", "prevResult": result}));
    let add = || {
        sandbox
            .azure_vnet("ADD")
            .conf(&netconf_with(json!({"cniVersion": "1.0.0"})))
            .run()
            .document()
    };
    let host = host_veth(&add()).to_owned();
    sandbox.azure_vnet("DEL").run().silence();
    let before = sandbox.snapshot();

    let cases: [(&str, Spoil); 12] = [
        (
            "host interface",
            Box::new(|sandbox, host| sandbox.ip(&format!("link del {host}"))),
        ),
        (
            "being up",
            Box::new(|sandbox, host| sandbox.ip(&format!("link set {host} down"))),
        ),
        (
            "route 10.240.0.",
            Box::new(|sandbox, host| sandbox.ip(&format!("route flush dev {host}"))),
        ),
        (
            "interface eth0 in the pod being up",
            Box::new(|sandbox, _| drop(sandbox.ip_in_pod("link set eth0 down"))),
        ),
        (
            "address 10.240.0.",
            Box::new(|sandbox, _| drop(sandbox.ip_in_pod("addr flush dev eth0"))),
        ),
        (
            "default route",
            Box::new(|sandbox, _| drop(sandbox.ip_in_pod("route del default"))),
        ),
        (
            "permanent neighbour",
            Box::new(|sandbox, _| drop(sandbox.ip_in_pod("neigh del 169.254.1.1 dev eth0"))),
        ),
        // The kernel forgets an interface's neighbours with its Ethernet address.
        (
            "permanent neighbour",
            Box::new(|sandbox, _| {
                sandbox.ip_in_pod("link set eth0 address 02:00:00:00:00:77");
            }),
        ),
        (
            "program from_pod",
            Box::new(|sandbox, host| sandbox.tc(&format!("filter del dev {host} ingress"))),
        ),
        (
            "program to_pod",
            Box::new(|sandbox, host| sandbox.tc(&format!("filter del dev {host} egress"))),
        ),
        (
            "IPAM's reservation",
            Box::new(|_, _| fs::remove_dir_all("/run/azure-vnet/ipam/leases").unwrap()),
        ),
        (
            "a working data path",
            Box::new(|_, _| fs::remove_file("/run/azure-vnet/loader.sock").unwrap()),
        ),
    ];
    for (missing, spoil) in cases {
        let result = add();
        sandbox.ip_in_pod("link set eth0 mtu 1300");
        sandbox.ip_in_pod("addr add 192.0.2.7/32 dev eth0");
        sandbox.ip_in_pod("route add 192.0.2.0/24 via 169.254.1.1");
        sandbox
            .azure_vnet("CHECK")
            .conf(&conf(&result))
            .run()
            .silence();
        spoil(&sandbox, &host);
        let answer = sandbox.azure_vnet("CHECK").conf(&conf(&result)).run();
        answer.error_saying(105, &[missing]);
        sandbox.azure_vnet("DEL").run().silence();
        let mut left = sandbox.snapshot();
        left.forget_loader();
        let mut before = before.clone();
        before.forget_loader();
        assert_eq!(left, before, "{missing}");
    }
}

/// Row 53 at the last steps, and row 92. The loader writes the record of a pod that it serves again when somebody removes it,
/// so it must have forgotten the pod before the record goes.
#[test]
fn a_refusal_or_a_reader_that_is_gone_undoes_everything() {
    let (sandbox, loader) = node(Manner::Refusing);
    let before = sandbox.snapshot();
    let answer = sandbox.azure_vnet("ADD").run();
    answer.error_saying(11, &["register: full; wait", "failed at step `register`"]);
    assert_eq!(sandbox.snapshot(), before);
    assert_eq!(
        loader.requests(),
        ["node", "register", "remove_link", "unregister"]
    );
    assert_eq!(loader.had_records(), [true]);

    let (sandbox, loader) = node(Manner::Helpful);
    let before = sandbox.snapshot();
    fs::write("/run/conf", netconf().to_string()).unwrap();
    let full = fs::OpenOptions::new().write(true).open("/dev/full");
    let (_, nobody_reads) = std::io::pipe().unwrap();
    for stdout in [Stdio::from(full.unwrap()), nobody_reads.into()] {
        let mut exec = sandbox.azure_vnet("ADD");
        exec.command
            .stdin(fs::File::open("/run/conf").unwrap())
            .stdout(stdout)
            .stderr(Stdio::null());
        assert_eq!(exec.command.status().unwrap().code(), Some(1));
        assert_eq!(sandbox.snapshot(), before);
    }
    assert_eq!(
        loader.requests(),
        ["node", "register", "remove_link", "unregister"].repeat(2)
    );
    assert_eq!(loader.had_records(), [true; 2]);
}

/// Row 52, in the mode where both would like to have the pod's name.
#[test]
fn two_interfaces_of_one_pod_live_and_die_on_their_own() {
    let (sandbox, _loader) = node(Manner::Helpful);
    let before = sandbox.snapshot();
    let conf = netconf_with(json!({"mode": "transparent"}));
    let add = |ifname: &str| {
        sandbox
            .azure_vnet("ADD")
            .env("CNI_IFNAME", ifname)
            .conf(&conf)
            .run()
    };
    let first = add("eth0").document();
    let second = add("net1").document();
    assert_ne!(host_veth(&first), host_veth(&second));
    assert_eq!(host_veth(&first), "azvc04432ae156");
    // What comes from an address leaves by its interface.
    for (result, ifname) in [(&first, "eth0"), (&second, "net1")] {
        let address = result["ips"][0]["address"].as_str().unwrap();
        let source = address.split_once('/').unwrap().0;
        let way = sandbox.ip_in_pod(&format!("route get 192.0.2.1 from {source}"));
        assert!(
            way.contains(&format!("via 169.254.1.1 dev {ifname}")),
            "{way}"
        );
    }
    sandbox
        .azure_vnet("DEL")
        .env("CNI_IFNAME", "net1")
        .conf(&conf)
        .run()
        .silence();
    assert_eq!(
        sandbox.mac(host_veth(&first)),
        mac_of(&first["interfaces"][1])
    );
    sandbox.azure_vnet("DEL").conf(&conf).run().silence();
    assert_eq!(sandbox.snapshot(), before);
}

/// A pod that is made anew under its name, while DEL of the old one is late: the late DEL must leave the new one alone.
#[test]
fn a_late_del_leaves_the_pod_of_the_same_name_alone() {
    let (sandbox, _loader) = node(Manner::Helpful);
    let conf = netconf_with(json!({"mode": "transparent"}));
    let add = |id: &str, netns: &str| {
        sandbox
            .azure_vnet("ADD")
            .env("CNI_CONTAINERID", id)
            .env("CNI_NETNS", netns)
            .conf(&conf)
            .run()
            .document()
    };
    let old = add("old", POD);
    // The old pod dies with its namespace.
    sandbox.ip(&format!("link del {}", host_veth(&old)));
    let path = sandbox.add_netns("pod2");
    let new = add("new", path.to_str().unwrap());
    assert_eq!(host_veth(&old), host_veth(&new));
    sandbox
        .azure_vnet("DEL")
        .env("CNI_CONTAINERID", "old")
        .conf(&conf)
        .run()
        .silence();
    assert_eq!(sandbox.mac(host_veth(&new)), mac_of(&new["interfaces"][1]));
    let conf =
        netconf_with(json!({"mode": "transparent", "cniVersion": "1.0.0", "prevResult": new}));
    sandbox
        .azure_vnet("CHECK")
        .env("CNI_CONTAINERID", "new")
        .env("CNI_NETNS", path)
        .conf(&conf)
        .run()
        .silence();
}

/// Whoever takes over after a crash reads the draft: it says all that the loader is told, before the loader is told.
#[test]
fn the_draft_is_complete_before_the_loader_is_asked() {
    let (sandbox, loader) = node(Manner::Helpful);
    sandbox.azure_vnet("ADD").run().document();
    let [(request, draft)] = loader.registered().try_into().unwrap();
    for key in ["host_ifname", "host_ifindex", "host_mac", "mac", "address"] {
        assert_eq!(draft[key], request[key], "{key}");
    }
    assert_ne!(draft["host_ifindex"], 0);
}

/// Row 74: killed at any time, one DEL, or another ADD and a DEL, leaves nothing.
#[test]
fn an_add_that_is_killed_leaves_nothing_after_the_first_del() {
    let (sandbox, _loader) = node(Manner::Helpful);
    let before = sandbox.snapshot();
    fs::write("/run/conf", netconf().to_string()).unwrap();
    for round in 0..40_u32 {
        let mut exec = sandbox.azure_vnet("ADD");
        let mut child = exec
            .command
            .stdin(fs::File::open("/run/conf").unwrap())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        pass(Duration::from_millis((round * 3 / 2).into()));
        child.kill().unwrap();
        child.wait().unwrap();
        if round % 2 == 0 {
            sandbox.azure_vnet("ADD").run().document();
        }
        sandbox.azure_vnet("DEL").run().silence();
        assert_eq!(sandbox.snapshot(), before, "killed in round {round}");
    }
}

/// Rows 14 and 26: what is long or looks like a program is stored as it is, and two of it are two.
#[test]
fn long_ids_and_hostile_pod_names_are_stored_as_they_are() {
    let (sandbox, _loader) = node(Manner::Helpful);
    let before = sandbox.snapshot();
    let name = "%s$(reboot)\n\"'`reboot`\\";
    for length in [64, 253, 4096, 100_000] {
        let mut addresses = BTreeSet::new();
        for last in ["a", "b"] {
            let netns = sandbox.add_netns(last);
            let id = format!("{}{last}", "x".repeat(length - 1));
            let call = |verb: &str| {
                sandbox
                    .azure_vnet(verb)
                    .env("CNI_CONTAINERID", &id)
                    .env("CNI_NETNS", &netns)
                    .env(
                        "CNI_ARGS",
                        format!("K8S_POD_NAMESPACE=ns;K8S_POD_NAME={name}{last}"),
                    )
                    .run()
            };
            let result = call("ADD").document();
            assert_eq!(call("ADD").document(), result);
            addresses.insert(result["ips"][0]["address"].to_string());
        }
        assert_eq!(addresses.len(), 2);
        let mut pods = Vec::new();
        for record in fs::read_dir("/run/azure-vnet/endpoints").unwrap() {
            let record: rpc::Endpoint = rpc::read_json(&record.unwrap().path()).unwrap();
            pods.push(record.pod_name);
        }
        pods.sort();
        assert_eq!(pods, ["a", "b"].map(|last| format!("{name}{last}")));
        for last in ["a", "b"] {
            let id = format!("{}{last}", "x".repeat(length - 1));
            let del = sandbox.azure_vnet("DEL").env("CNI_CONTAINERID", id);
            del.run().silence();
            sandbox.ip_netns_del(last);
        }
        assert_eq!(sandbox.snapshot(), before);
    }
    let log = fs::read_to_string("/var/log/azure-vnet.log").unwrap_or_default();
    for line in log.lines() {
        serde_json::from_str::<Value>(line).unwrap();
    }
}
