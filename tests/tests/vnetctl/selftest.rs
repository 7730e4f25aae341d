//! `vnetctl selftest`: two throw-away pods, every path, and nothing left, however it ends.

use std::time::Duration;

use lab::{AZURE_CONFLIST, eventually};
use nix::sys::signal::Signal;

use super::*;

const LIMIT: Duration = Duration::from_secs(10);

#[test]
fn a_healthy_node_passes_in_every_mode_and_nothing_is_left() -> Result {
    for mode in ["bridge", "tunnel"] {
        let conflist = AZURE_CONFLIST.replace("\"bridge\"", &format!("\"{mode}\""));
        let lab = Lab::new().nodes(1).conflist(&conflist).build()?;
        let node = lab.node(1);
        node.start_loader()?;
        node.exec(&["vnetctl", "status", "--wait", "--brief"])?;
        // What stays after the first pod is not the selftest's.
        node.add_pod("first")?.delete()?;
        let before = node.snapshot()?;
        let done = node.feed(&["vnetctl", "selftest"], b"")?;
        let (took, text) = (
            done.elapsed,
            String::from_utf8_lossy(&done.stdout).into_owned(),
        );
        println!("{mode}: {took:?}\n{text}");
        assert_eq!(done.status.code(), Some(0), "{text}");
        assert!(took < LIMIT, "{took:?}");
        assert!(
            text.lines().filter(|line| line.starts_with("ok ")).count() >= 20,
            "{text}"
        );
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
    node.add_pod("first")?.delete()?;
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
        ] {
            assert!(text.contains(part), "{mode}: {part}: {told:#}");
        }
        // Fast again, where the kernel's way is no answer.
        assert!(!text.contains("took the fast path"), "{told:#}");
    }
    Ok(())
}

#[test]
fn a_path_that_is_broken_is_named() -> Result {
    let broken = ["node to pod a, UDP", "pod a to the node, UDP"];
    breaks("udp dport 1024-65535", &broken)?;
    // What is short passes.
    let broken = ["node to pod a, TCP", "pod a to the node, TCP"];
    breaks("tcp dport 1024-65535 meta length 1000-65535", &broken)
}

/// Rules that drop what pods send to the node break these paths, and no others.
fn breaks(matches: &str, paths: &[&str]) -> Result {
    let lab = lab()?;
    let node = lab.node(1);
    node.exec(&["vnetctl", "status", "--wait", "--brief"])?;
    node.nft(&format!(
        "table ip site {{\n chain in {{\n type filter hook input priority 0;\n iifname \"azv*\" {matches} drop\n }}\n}}\n"
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
