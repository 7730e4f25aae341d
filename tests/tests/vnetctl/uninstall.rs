//! `vnetctl uninstall`: the node as it was, and never under the feet of living pods unless it is told.

use std::time::Duration;

use lab::{AZURE_CONFLIST, eventually};
use nix::sys::signal::Signal;

use super::*;

/// For what happens sooner.
const LONG: Duration = Duration::from_secs(30);

/// What a node has after all, apart from logs and what iptables and portmap leave.
fn left(node: &Node, before: &lab::Snapshot) -> Result<Vec<String>> {
    let left = before.left(&node.snapshot()?);
    // The one thing of ours that was there before, and the lab's own.
    let expected = [lab::CONFLIST, "/run/lab-notify.sock"].map(|path| format!("file: {path}"));
    let is_expected = |line: &String| expected.iter().any(|known| line.starts_with(known));
    Ok(left.into_iter().filter(|line| !is_expected(line)).collect())
}

#[test]
fn the_node_is_as_it_was_before() -> Result {
    for mode in ["bridge", "tunnel"] {
        let conflist = AZURE_CONFLIST.replace("\"bridge\"", &format!("\"{mode}\""));
        let lab = Lab::new().nodes(1).conflist(&conflist).build()?;
        let node = lab.node(1);
        let before = node.snapshot()?;
        node.start_loader()?;
        node.exec(&["vnetctl", "status", "--wait", "--brief"])?;
        node.add_pod("web")?.delete()?;
        let told = node.exec(&["vnetctl", "uninstall"])?;
        for part in [
            "/etc/cni/net.d/10-azure.conflist",
            "the process",
            "programs on eth0",
            "nft table",
            "/sys/fs/bpf/azure-vnet",
            "/run/azure-vnet",
        ] {
            assert!(told.contains(part), "{part}: {told}");
        }
        assert_eq!(left(node, &before)?, Vec::<String>::new(), "{mode}");
        assert!(
            node.exec(&[
                "sh",
                "-c",
                "ls -d /run/azure-vnet* /sys/fs/bpf/azure-vnet; true"
            ])?
            .is_empty()
        );
        // Nothing to do is no error.
        node.exec(&["vnetctl", "uninstall"])?;
        // And it comes back as if it were new.
        node.write(lab::CONFLIST, &conflist)?;
        node.loader().start()?;
    }
    Ok(())
}

#[test]
fn living_pods_are_not_cut_off_unless_it_is_told() -> Result {
    let lab = lab()?;
    let node = lab.node(1);
    let before = Lab::new().nodes(1).build()?.node(1).snapshot()?;
    let pod = node.add_pod("web")?;
    for dead in [false, true] {
        if dead {
            node.loader().kill9()?;
        }
        let refused = node.feed(&["vnetctl", "uninstall"], b"")?;
        assert_eq!(refused.status.code(), Some(1));
        assert!(
            refused
                .stderr
                .contains("1 pods live on this node (default/web)"),
            "{}",
            refused.stderr
        );
        assert_eq!(pod.tcp(lab.inet().addr(), 8080)?.peer_ip(), node.addr());
    }
    let told = node.exec(&["vnetctl", "uninstall", "--force"])?;
    assert!(told.contains("host veth azv"), "{told}");
    let links = node.exec(&["ip", "-o", "link"])?;
    assert!(!links.contains("azv"), "{links}");
    let now = left(node, &before)?;
    assert!(
        !now.iter()
            .any(|line| line.contains("azure-vnet") || line.contains("azv")),
        "{now:#?}"
    );
    Ok(())
}

/// `vnetctl uninstall` with a `systemctl` of this script, which takes its time over `disable`, and does what else these cases say.
fn uninstalling(node: &Node, cases: &str) -> Result<lab::Process> {
    let slow = "#!/bin/sh\ncase $1 in disable) mkfifo /tmp/go; : > /tmp/asked; read -r _ < /tmp/go";
    node.write(
        "/tmp/bin/systemctl",
        &format!("{slow} ;; {cases} esac\nexit 1\n"),
    )?;
    node.exec(&["chmod", "+x", "/tmp/bin/systemctl"])?;
    let line = "PATH=/tmp/bin:$PATH exec vnetctl uninstall";
    let uninstall = node.start(&["sh", "-c", line])?;
    let asked = || node.exec(&["test", "-e", "/tmp/asked"]).ok();
    eventually(LONG, asked).expect("it has looked");
    Ok(uninstall)
}

/// What it says when it goes on, and fails.
fn refusal(node: &Node, uninstall: &lab::Process) -> Result<String> {
    node.exec(&["sh", "-c", "echo > /tmp/go"])?;
    assert_eq!(uninstall.wait(LONG)?.code(), Some(1));
    Ok(uninstall.log())
}

#[test]
fn a_pod_that_comes_after_the_look_is_not_cut_off_either() -> Result {
    let lab = lab()?;
    let node = lab.node(1);
    node.exec(&["vnetctl", "status", "--wait", "--brief"])?;
    let (network, conflist) = (node.network()?, node.read(lab::CONFLIST)?);
    let uninstall = uninstalling(node, "")?;
    let mut pod = node.new_netns("late")?;
    pod.add(&network)?;
    let why = refusal(node, &uninstall)?;
    for part in [
        "a pod came meanwhile",
        "1 pods live on this node (default/late)",
        "the conflist is back, but the loader",
        "has ended: start it again",
    ] {
        assert!(why.contains(part), "{part}: {why}");
    }
    assert_eq!(pod.tcp(lab.inet().addr(), 8080)?.peer_ip(), node.addr());
    assert_eq!(node.read(lab::CONFLIST)?, conflist);
    node.start_loader()?;
    node.add_pod("next")?.delete()?;
    pod.delete()
}

/// Neither the conflist nor the link that enables the unit finds room; the loader is between two starts.
#[test]
fn what_cannot_be_put_back_keeps_nothing_else_from_it_and_the_reason_is_told() -> Result {
    let lab = lab()?;
    let node = lab.node(1);
    node.exec(&["vnetctl", "status", "--wait", "--brief"])?;
    let network = node.network()?;
    let cases = "is-enabled) exit 0 ;; is-active) echo activating; exit 3 ;; \
        enable) echo no room >&2; exit 1 ;; start) : > /tmp/started; exit 0 ;;";
    let uninstall = uninstalling(node, cases)?;
    node.exec(&["mkdir", lab::CONFLIST])?;
    let mut pod = node.new_netns("late")?;
    pod.add(&network)?;
    let why = refusal(node, &uninstall)?;
    for part in [
        "a pod came meanwhile",
        "1 pods live on this node (default/late)",
        "could not put back: ",
        lab::CONFLIST,
        "systemctl enable azure-vnet-loader: no room",
    ] {
        assert!(why.contains(part), "{part}: {why}");
    }
    assert!(!why.contains("is back"), "{why}");
    node.exec(&["test", "-e", "/tmp/started"])?;
    node.exec(&["rmdir", lab::CONFLIST])?;
    node.start_loader()?;
    pod.delete()
}

#[test]
fn who_cannot_look_again_does_not_say_that_a_pod_came() -> Result {
    let lab = lab()?;
    let node = lab.node(1);
    node.exec(&["vnetctl", "status", "--wait", "--brief"])?;
    let (network, conflist) = (node.network()?, node.read(lab::CONFLIST)?);
    let uninstall = uninstalling(node, "")?;
    let mut pod = node.new_netns("late")?;
    pod.add(&network)?;
    // A lock file that leads to itself cannot be looked at.
    let line = "cd /run/azure-vnet/endpoints && for record in *.json; do lock=${record%.json}; ln -s $lock ../locks/$lock; done";
    node.exec(&["sh", "-ec", line])?;
    let why = refusal(node, &uninstall)?;
    let told = "nobody can tell whether a pod came meanwhile";
    assert!(why.contains(told) && why.contains("/locks/"), "{why}");
    assert!(!why.contains("pods live"), "{why}");
    assert_eq!(node.read(lab::CONFLIST)?, conflist);
    node.exec(&["sh", "-c", "rm /run/azure-vnet/locks/*"])?;
    node.start_loader()?;
    pod.delete()
}

#[test]
fn a_unit_that_cannot_be_disabled_leaves_the_runtime_its_conflist() -> Result {
    let lab = lab()?;
    let node = lab.node(1);
    node.exec(&["vnetctl", "status", "--wait", "--brief"])?;
    let conflist = node.read(lab::CONFLIST)?;
    node.exec(&["mkdir", "-p", "/run/systemd/system"])?;
    let uninstall = uninstalling(node, "cat) exit 0 ;;")?;
    node.exec(&["test", "!", "-e", lab::CONFLIST])?;
    let why = refusal(node, &uninstall)?;
    for part in [
        "systemctl disable --now azure-vnet-loader",
        "the conflist is back, but the loader",
        "still runs and was told to leave",
    ] {
        assert!(why.contains(part), "{part}: {why}");
    }
    assert_eq!(node.read(lab::CONFLIST)?, conflist);
    node.add_pod("next")?.delete()
}

/// A loader between two starts, or stopped: the unit would start it again.
#[test]
fn a_unit_that_is_enabled_is_disabled_also_when_no_loader_runs() -> Result {
    let lab = Lab::new().nodes(1).build()?;
    let node = lab.node(1);
    let units = "/etc/systemd/system";
    let wanted = format!("{units}/multi-user.target.wants/azure-vnet-loader.service");
    node.write(
        &format!("{units}/azure-vnet-loader.service"),
        include_str!("../../../deploy/azure-vnet-loader.service"),
    )?;
    node.exec(&["systemctl", "enable", "azure-vnet-loader"])?;
    node.exec(&["test", "-L", &wanted])?;
    node.exec(&["vnetctl", "uninstall"])?;
    node.exec(&["test", "!", "-e", &wanted])?;
    Ok(())
}

#[test]
fn a_loader_whose_socket_does_not_answer_is_waited_for() -> Result {
    let lab = lab()?;
    let node = lab.node(1);
    // One that runs would listen anew.
    node.loader().signal(Signal::SIGSTOP)?;
    node.exec(&["rm", "/run/azure-vnet/loader.sock"])?;
    let conflist = node.read(lab::CONFLIST)?;
    let refused = node.feed(&["vnetctl", "uninstall"], b"");
    node.loader().signal(Signal::SIGCONT)?;
    let refused = refused?;
    assert_eq!(refused.status.code(), Some(1));
    for part in ["has not ended after 20 s", "the conflist is back"] {
        assert!(refused.stderr.contains(part), "{part}: {}", refused.stderr);
    }
    assert_eq!(node.read(lab::CONFLIST)?, conflist);
    node.exec(&["test", "-e", "/run/azure-vnet/ipam"])?;
    Ok(())
}
