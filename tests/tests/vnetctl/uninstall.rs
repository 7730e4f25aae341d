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

/// What takes its time between the look and the loader's end is `systemctl` here.
#[test]
fn a_pod_that_comes_after_the_look_is_not_cut_off_either() -> Result {
    let lab = lab()?;
    let node = lab.node(1);
    node.exec(&["vnetctl", "status", "--wait", "--brief"])?;
    let slow = "#!/bin/sh\ncase $1 in disable) mkfifo /tmp/go; : > /tmp/asked; read -r _ < /tmp/go ;; esac\nexit 1\n";
    node.write("/tmp/bin/systemctl", slow)?;
    node.exec(&["chmod", "+x", "/tmp/bin/systemctl"])?;
    let (network, conflist) = (node.network()?, node.read(lab::CONFLIST)?);
    let line = "PATH=/tmp/bin:$PATH exec vnetctl uninstall";
    let uninstall = node.start(&["sh", "-c", line])?;
    let asked = || node.exec(&["test", "-e", "/tmp/asked"]).ok();
    eventually(LONG, asked).expect("it has looked");
    let mut pod = node.new_netns("late")?;
    pod.add(&network)?;
    node.exec(&["sh", "-c", "echo > /tmp/go"])?;
    assert_eq!(uninstall.wait(LONG)?.code(), Some(1));
    let why = uninstall.log();
    for part in [
        "a pod came meanwhile",
        "1 pods live on this node (default/late)",
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
    let refused = node.feed(&["vnetctl", "uninstall"], b"");
    node.loader().signal(Signal::SIGCONT)?;
    let refused = refused?;
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        refused.stderr.contains("has not ended after 20 s"),
        "{}",
        refused.stderr
    );
    node.exec(&["test", "-e", "/run/azure-vnet/ipam"])?;
    Ok(())
}
