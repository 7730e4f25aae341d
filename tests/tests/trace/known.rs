//! What is there already, what must not change, and what cannot be traced.

use std::net::{SocketAddrV4, UdpSocket};
use std::time::Duration;

use lab::{Lab, Node, WIRESERVER, paths_during};
use serde_json::Value;
use socket2::Type;

use crate::{Result, first_line, socket};

const SOON: Duration = Duration::from_secs(3);

/// All that a node's programs remember.
fn remembered(node: &Node) -> Result<String> {
    let maps = hooks::Pins::default().maps();
    let dump = |name: &&str| {
        let map = maps.join(name).display().to_string();
        node.exec(&["bpftool", "map", "dump", "pinned", &map])
    };
    let dumps: Result<Vec<String>> = ["snat", "flows", "snat_open", "stats", "drops"]
        .iter()
        .map(dump)
        .collect();
    Ok(dumps?.concat())
}

#[test]
fn a_trace_changes_nothing_and_needs_no_loader() -> Result {
    let lab = Lab::new().nodes(1).build()?;
    let node = lab.node(1);
    node.start_loader()?;
    let pod = node.add_pod("web")?;
    pod.tcp(lab.inet().addr(), 8080)?;
    node.loader().kill9()?;
    let before = remembered(node)?;
    let inet = lab.inet().addr();
    let mut told = Vec::new();
    for destination in [
        format!("{inet}:443"),
        inet.to_string(),
        "10.0.0.10:80".into(),
        format!("{WIRESERVER}:80"),
    ] {
        told.push(node.exec(&["vnetctl", "trace", "web", &destination])?);
    }
    assert_eq!(remembered(node)?, before);
    println!("{}", told.join("\n"));
    assert!(
        told[0].contains("takes port ") && told[0].contains("straight out of eth0"),
        "{}",
        told[0]
    );
    assert!(told[2].contains("left to the kernel"), "{}", told[2]);
    assert!(told[3].contains("DROPPED, wireserver: "), "{}", told[3]);
    assert!(
        told.iter().all(|text| text.contains("Confirmed")),
        "{told:?}"
    );
    assert!(
        told.iter().all(|text| !text.contains("WARNING")),
        "{told:?}"
    );

    let veth = pod.host_veth()?;
    node.exec(&["tc", "qdisc", "del", "dev", veth, "clsact"])?;
    let bare = node.exec(&["vnetctl", "trace", "web", "10.0.0.10:80"])?;
    assert!(
        bare.contains(&format!("from_pod is not attached to {veth}")),
        "{bare}"
    );
    Ok(())
}

#[test]
fn a_trace_knows_the_connections_that_exist() -> Result {
    let lab = Lab::new().nodes(1).build()?;
    let node = lab.node(1);
    node.start_loader()?;
    let pod = node.add_pod("web")?;
    let inet = lab.inet().addr();
    let trace = |port: u16, more: &[&str]| -> Result<(String, Value)> {
        let (port, to) = (port.to_string(), format!("{inet}:{more}", more = more[0]));
        let line = [
            "vnetctl",
            "trace",
            "web",
            &to,
            "--pod-port",
            &port,
            "-o",
            "json",
        ];
        let text = node.exec(&[&line, &more[1..]].concat())?;
        let trace: Value = serde_json::from_str(&text)?;
        assert_eq!(trace["warnings"], serde_json::json!([]), "{trace:#}");
        Ok((trace["steps"].to_string(), trace))
    };

    let mut open = pod.converse(40_001, inet, 8080)?;
    let (steps, known) = trace(40_001, &["8080", "--established"])?;
    assert!(
        steps.contains("of pod default/web port 40001, established"),
        "{steps}"
    );
    assert!(!steps.contains("takes port"), "{steps}");
    assert_eq!(known["source"], open.seen().to_string());
    open.say("still here")?;

    // A datagram in fragments goes through the kernel, and all others of its flow after it.
    let socket = pod.run(|| Ok(UdpSocket::from(socket(Type::DGRAM, 40_002, SOON)?)))?;
    socket.connect((inet, 7))?;
    let seen = |datagram: &[u8]| -> Result<Option<SocketAddrV4>> {
        socket.send(datagram)?;
        let mut answer = vec![0; 8192];
        let read = socket.recv(&mut answer)?;
        Ok(first_line(&answer[..read]))
    };
    seen(&[b'x'; 4000])?;
    let (steps, known) = trace(40_002, &["7", "--proto", "udp"])?;
    assert!(steps.contains("the kernel's own"), "{steps}");
    assert_eq!(known["verdict"]["is"], "stack");
    assert_eq!(known["stack"]["masquerade"], true);
    let (seen, paths) = paths_during(&[&pod], || seen(b"x\n"))?;
    assert!(
        paths[0].contains("to_stack") && !paths[0].contains("to_internet"),
        "{paths:?}"
    );
    assert!(seen?.is_some_and(|seen| seen.port() >= 61_000));
    Ok(())
}

#[test]
fn what_the_guard_drops_is_traced_as_dropped() -> Result {
    let lab = Lab::new().nodes(1).build()?;
    let node = lab.node(1);
    let (denied, other) = (lab.peer().addr(), lab.onprem().addr());
    let yaml = format!("{{xdp: guard, denyCidrs: [{denied}/32]}}\n");
    node.write("/etc/azure-vnet/loader.yaml", &yaml)?;
    node.start_loader()?;
    let pod = node.add_pod("web")?;
    for (from, drops) in [(denied, true), (other, false), (node.addr(), true)] {
        let line = [
            "vnetctl",
            "trace",
            "web",
            &from.to_string(),
            "--from-wire",
            "-o",
            "json",
        ];
        let trace: Value = serde_json::from_str(&node.exec(&line)?)?;
        assert_eq!(trace["warnings"], serde_json::json!([]), "{trace:#}");
        assert_eq!(trace["verdict"]["is"] == "drop", drops, "{trace:#}");
        assert_eq!(
            trace["packet"]["program"] == "xdp_guard",
            drops,
            "{trace:#}"
        );
        if from == denied {
            assert_eq!(trace["verdict"]["reason"], "deny_list", "{trace:#}");
        }
    }
    assert!(lab.peer().ping(pod.addr()).is_err());
    lab.onprem().ping(pod.addr())?;
    Ok(())
}

#[test]
fn rules_that_may_drop_what_is_forwarded_are_named() -> Result {
    let lab = Lab::new().nodes(1).build()?;
    let node = lab.node(1);
    node.write("/etc/azure-vnet/loader.yaml", "datapath: stack\n")?;
    node.start_loader()?;
    let _pod = node.add_pod("web")?;
    let trace = || {
        node.exec(&[
            "vnetctl",
            "trace",
            "web",
            &format!("{}:80", lab.inet().addr()),
        ])
    };
    let before = trace()?;
    assert!(
        before.contains("the kernel's: `datapath: stack`"),
        "{before}"
    );
    assert!(!before.contains("it is filtered"), "{before}");
    node.nft(
        "table ip wall { chain forward { type filter hook forward priority 0; policy drop; }; }",
    )?;
    let after = trace()?;
    assert!(
        after.contains("it is filtered, and may be dropped, by a firewall of this node (table ip wall, chain forward: "),
        "{after}"
    );
    Ok(())
}

#[test]
fn what_cannot_be_traced_is_refused_with_what_to_write() -> Result {
    let lab = Lab::new().nodes(1).build()?;
    let node = lab.node(1);
    let refused_with = |code: i32, line: &[&str], expected: &str| -> Result {
        let line = [&["vnetctl", "trace"], line].concat();
        let done = node.feed(&line, b"")?;
        assert!(
            done.status.code() == Some(code) && done.stderr.contains(expected),
            "{line:?}: {}",
            done.stderr
        );
        Ok(())
    };
    let refused = |line: &[&str], expected: &str| refused_with(1, line, expected);
    let wrong = |line: &[&str], expected: &str| refused_with(2, line, expected);
    refused(&["web", "10.0.0.10"], "is azure-vnet-loader running")?;
    node.start_loader()?;
    refused(
        &["web", "10.0.0.10"],
        "no pod of this node is called web; there are: none",
    )?;
    let pod = node.add_pod("web")?;
    refused(
        &["wbe", "10.0.0.10"],
        &format!("there are: default/web ({})", pod.addr()),
    )?;
    wrong(&["web", "10.0.0"], "write one such as 10.0.0.10")?;
    wrong(&["web", "10.0.0.10:http"], "`http` is no port")?;
    wrong(
        &["web", "10.0.0.10", "--proto", "udp"],
        "udp needs a port; write 10.0.0.10:PORT",
    )?;
    wrong(
        &["web", "10.0.0.10:80", "--proto", "icmp"],
        "a ping has no port",
    )?;
    refused(&["web", "0.0.0.0:80"], "0.0.0.0 is no destination")
}
