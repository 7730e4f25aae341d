//! `vnetctl selftest`: two throw-away pods, every path, and nothing left, however it ends.

use std::time::Duration;

use lab::{AZURE_CONFLIST, eventually};
use nix::sys::signal::Signal;

use super::*;

const OURS: &str = r#"{"type": "azure-vnet", "mode": "bridge", "bridge": "azure0", "ipam": {"type": "azure-vnet-ipam"}}"#;
const LIMIT: Duration = Duration::from_secs(10);

/// What stays after the first pod, and of portmap after the first host port, is not the selftest's.
fn first(node: &Node) -> Result {
    let mut pod = node.new_netns("first")?;
    let attachment = pod.attachment().clone();
    *pod.attachment_mut() = attachment.host_port(8081, 8080, "tcp");
    pod.add(&node.network()?)?;
    pod.delete()
}

#[test]
fn a_healthy_node_passes_in_every_mode_and_nothing_is_left() -> Result {
    for mode in ["bridge", "tunnel"] {
        let conflist = AZURE_CONFLIST.replace("\"bridge\"", &format!("\"{mode}\""));
        let lab = Lab::new().nodes(1).conflist(&conflist).build()?;
        let node = lab.node(1);
        node.start_loader()?;
        node.exec(&["vnetctl", "status", "--wait", "--brief"])?;
        first(node)?;
        let before = node.snapshot()?;
        let done = node.feed(&["vnetctl", "selftest"], b"")?;
        let (took, text) = (
            done.elapsed,
            String::from_utf8_lossy(&done.stdout).into_owned(),
        );
        println!("{mode}: {took:?}\n{text}");
        assert_eq!(done.status.code(), Some(0), "{text}");
        assert!(took < LIMIT, "{took:?}");
        let steps = ["ready for pods", "ADD of", "DEL of", "nothing is left"];
        let is_path = |line: &&str| !steps.iter().any(|step| line.contains(step));
        let ok = text.lines().filter(|line| line.starts_with("ok "));
        assert!(ok.filter(is_path).count() >= 25, "{text}");
        assert_eq!(text.matches("and an answer finds back").count(), 2);
        assert_eq!(
            before.left(&node.snapshot()?),
            Vec::<String>::new(),
            "{mode}"
        );
    }
    Ok(())
}

/// The two pods appear one after the other; either may be half made by then.
#[test]
fn a_selftest_that_is_told_to_end_takes_its_pods_away_at_once() -> Result {
    let lab = lab()?;
    let node = lab.node(1);
    node.exec(&["vnetctl", "status", "--wait", "--brief"])?;
    first(node)?;
    let before = node.snapshot()?;
    for (signal, veths) in [
        (Signal::SIGINT, 1),
        (Signal::SIGINT, 2),
        (Signal::SIGTERM, 2),
    ] {
        let selftest = node.start(&["vnetctl", "selftest"])?;
        let has_veths = || {
            let links = node.exec(&["ip", "-o", "link"]).ok()?;
            (links.matches(": azv").count() >= veths).then_some(())
        };
        eventually(LIMIT, has_veths).expect("its pods");
        selftest.signal(signal)?;
        assert_eq!(selftest.wait(LIMIT)?.code(), Some(1), "{signal}");
        let why = selftest.log();
        assert!(why.contains("told to end"), "{signal}: {why}");
        let left = before.left(&node.snapshot()?);
        assert_eq!(left, Vec::<String>::new(), "{signal}, {veths} veths");
    }
    Ok(())
}

#[test]
fn with_datapath_stack_every_path_works_through_the_kernel() -> Result {
    for mode in ["bridge", "tunnel"] {
        let conflist = AZURE_CONFLIST.replace("\"bridge\"", &format!("\"{mode}\""));
        let lab = Lab::new().nodes(1).conflist(&conflist).build()?;
        let node = lab.node(1);
        node.write("/etc/azure-vnet/loader.yaml", "datapath: stack\n")?;
        node.start_loader()?;
        node.exec(&["vnetctl", "status", "--wait", "--brief"])?;
        let told = json(node, "selftest")?;
        assert_eq!(told["failed"], 0, "{mode}: {told:#}");
        let text = told["paths"].to_string();
        for part in [
            "pod to pod took the kernel's path (datapath: stack)",
            "packets `to_stack`",
            "masqueraded by the kernel",
            "left to the kernel",
        ] {
            assert!(text.contains(part), "{mode}: {part}: {told:#}");
        }
        // Fast again, where the kernel's way is no answer.
        assert!(!text.contains("took the fast path"), "{told:#}");
    }
    Ok(())
}

/// The conflist's order: a plug-in of the site's behind ours, and no ports to map.
#[test]
fn every_plug_in_of_the_conflist_is_called_and_without_portmap_there_are_no_host_ports() -> Result {
    let site = r#"{"type": "site"}"#;
    let conflist =
        format!(r#"{{"cniVersion": "1.0.0", "name": "azure", "plugins": [{OURS}, {site}]}}"#);
    let lab = Lab::new().nodes(1).conflist(&conflist).build()?;
    let node = lab.node(1);
    // Tells of each call whether it comes with a result, and hands that on.
    let script = "#!/bin/sh\ninput=$(cat)\ncase $input in *prevResult*) told=result ;; *) told=nothing ;; esac\n\
                  echo \"$CNI_COMMAND $told\" >> /tmp/calls\n\
                  echo \"$input\" | sed 's/.*\"prevResult\":\\({.*}\\),\"type\".*/\\1/'\n";
    node.write("/opt/cni/bin/site", script)?;
    node.exec(&["chmod", "+x", "/opt/cni/bin/site"])?;
    node.start_loader()?;
    node.exec(&["vnetctl", "status", "--wait", "--brief"])?;
    let told = json(node, "selftest")?;
    assert_eq!(told["failed"], 0, "{told:#}");
    assert!(!told["paths"].to_string().contains("host port"), "{told:#}");
    let calls = node.read("/tmp/calls")?;
    assert_eq!(calls, "ADD result\nADD result\nDEL result\nDEL result\n");
    Ok(())
}

/// An ADD that fails half-way, and a DEL that cannot work: the plug-in of the site's takes ours away.
#[test]
fn what_is_left_of_a_pod_whose_add_failed_half_way_is_told() -> Result {
    let site = r#"{"type": "site"}"#;
    let conflist =
        format!(r#"{{"cniVersion": "1.0.0", "name": "azure", "plugins": [{OURS}, {site}]}}"#);
    let lab = Lab::new().nodes(1).conflist(&conflist).build()?;
    let node = lab.node(1);
    let script = "#!/bin/sh\numount /opt/cni/bin/azure-vnet\nexit 1\n";
    node.write("/opt/cni/bin/site", script)?;
    node.exec(&["chmod", "+x", "/opt/cni/bin/site"])?;
    node.start_loader()?;
    node.exec(&["vnetctl", "status", "--wait", "--brief"])?;
    let told = json(node, "selftest")?;
    let paths = told["paths"].as_array().unwrap();
    let saw = |path: &str| {
        let step = paths.iter().find(|one| one["path"] == path).unwrap();
        (step["ok"] == true, step["saw"].as_str().unwrap())
    };
    assert!(!saw("ADD of pod a").0, "{told:#}");
    let (ok, why) = saw("nothing is left of them");
    assert!(!ok && why.contains("is still in the maps"), "{told:#}");
    assert_eq!(paths.len(), 6, "no path of half a pod is tried: {told:#}");
    Ok(())
}

#[test]
fn a_path_that_is_broken_is_named() -> Result {
    let broken = ["node to pod a, UDP", "pod a to the node, UDP"];
    breaks("input", "udp dport 1024-65535", &broken)?;
    // What is short passes.
    let broken = [
        "node to pod a, TCP",
        "pod a to the node, TCP",
        "node to pod a's host port, TCP",
    ];
    breaks(
        "input",
        "tcp dport 1024-65535 meta length 1000-65535",
        &broken,
    )?;
    let broken = [
        "pod b to pod a's host port, UDP",
        "pod a to its own host port, UDP",
    ];
    breaks("forward", "ct status dnat meta l4proto udp", &broken)
}

/// Rules of a hook of netfilter's that drop packets of pods break these paths, and no others.
fn breaks(hook: &str, matches: &str, paths: &[&str]) -> Result {
    let lab = lab()?;
    let node = lab.node(1);
    node.exec(&["vnetctl", "status", "--wait", "--brief"])?;
    node.nft(&format!(
        "table ip site {{\n chain in {{\n type filter hook {hook} priority 0;\n iifname \"azv*\" {matches} drop\n }}\n}}\n"
    ))?;
    let told = json(node, "selftest")?;
    let failed: Vec<&str> = told["paths"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|path| path["ok"] == false)
        .map(|path| path["path"].as_str().unwrap())
        .collect();
    assert_eq!(failed, paths, "{told:#}");
    Ok(())
}

#[test]
fn without_a_loader_it_says_so_and_leaves_nothing() -> Result {
    let lab = Lab::new().nodes(1).build()?;
    let node = lab.node(1);
    let before = node.snapshot()?;
    let done = node.feed(&["vnetctl", "selftest"], b"")?;
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    assert_eq!(done.status.code(), Some(1), "{text}");
    assert!(text.contains("is azure-vnet-loader running?"), "{text}");
    let left = before.left(&node.snapshot()?);
    let left: Vec<&String> = left
        .iter()
        .filter(|line| line.contains("azv") || line.contains("selftest"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    Ok(())
}
