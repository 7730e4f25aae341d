//! Do the lab's runtime, loader handling and measuring helpers work? Shown with other people's plug-ins and a
//! stand-in for the loader.

#![expect(clippy::tests_outside_test_module, reason = "the whole file is a test")]

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use lab::libcni::{self, CniError, Network, Verb};
use lab::{AZURE_CONFLIST, Deadline, Lab};

type Result<T = ()> = anyhow::Result<T>;

const PTP: &str = r#"{
  "cniVersion": "0.4.0",
  "name": "reference",
  "plugins": [
    {"type": "ptp", "ipam": {"type": "host-local", "subnet": "10.240.1.0/24",
      "rangeStart": "10.240.1.10", "rangeEnd": "10.240.1.41", "routes": [{"dst": "0.0.0.0/0"}]}},
    {"type": "portmap", "capabilities": {"portMappings": true}, "snat": true}
  ]
}"#;

#[test]
fn a_runtime_adds_checks_and_deletes_pods() -> Result {
    let lab = Lab::new().nodes(2).conflist(PTP).build()?;
    let node = lab.node(1);
    // ptp turns it on and iptables makes its tables with the first pod; neither goes away again.
    node.add_pod("first")?.delete()?;
    let before = node.snapshot()?;

    let a = node.add_pod("a")?;
    let mut b = node.new_netns("b")?;
    *b.attachment_mut() = b.attachment().clone().host_port(8080, 80, "tcp");
    b.add(&node.network()?)?;
    assert!(a.netns().starts_with("/run/netns"));
    let echo = b.serve_echo(80)?;
    assert_eq!(a.tcp(b.addr(), 80)?.peer_ip(), a.addr());
    assert_eq!(a.udp(b.addr(), 80)?.peer_ip(), a.addr());
    a.ping(b.addr())?;
    // The pod's address reaches the platform and the peer as it is, and not the Internet.
    assert_eq!(a.dns("example.org")?, a.addr());
    assert_eq!(a.tcp(lab.peer().addr(), 7)?.peer_ip(), a.addr());
    assert!(
        a.within(Duration::from_millis(100))
            .tcp(lab.inet().addr(), 7)
            .is_err()
    );
    assert!(lab.fabric().drops("inet.not_primary")? > 0);
    // runtimeConfig arrived at portmap.
    assert_eq!(
        lab.node(2).tcp(node.addr(), 8080)?.peer_ip(),
        lab.node(2).addr()
    );
    assert_eq!(echo.last_client().map(|client| client.port), Some(80));
    a.check()?; // not b: this portmap looks for IPv6 rules that it did not make

    let during = before.diff(&node.snapshot()?);
    assert!(
        during.added.iter().any(|line| line.contains("veth")),
        "{during}"
    );
    a.delete()?;
    drop(echo);
    b.delete()?;
    let after = before.diff(&node.snapshot()?);
    let is_hostlocal = |line: &String| {
        line.contains("last_reserved_ip") || line.contains("iptables") || line.contains("nft")
    };
    assert!(after.added.iter().all(is_hostlocal), "{after}");
    Ok(())
}

#[test]
fn a_plug_ins_error_reaches_the_caller() -> Result {
    let lab = Lab::new().nodes(1).build()?;
    let node = lab.node(1);
    let pod = node.new_netns("web")?;
    let mut wrong = Network::parse(PTP.replace("10.240.1.0/24", "nonsense").as_bytes())?;
    let error = wrong.add(node, pod.attachment()).unwrap_err();
    let cni: &CniError = error.downcast_ref().expect("a CNI error");
    assert_eq!(cni.plugin, "ptp");
    assert!(cni.msg.contains("nonsense"), "{cni}");

    wrong = Network::parse(AZURE_CONFLIST.as_bytes())?;
    assert_eq!(
        wrong.plugins().collect::<Vec<_>>(),
        ["azure-vnet", "portmap"]
    );
    let check = wrong
        .check(node, pod.attachment(), &serde_json::Value::Null)
        .unwrap_err();
    assert!(check.to_string().contains("does not support CHECK"));

    let version = libcni::exec(
        node,
        "portmap",
        &pod.attachment().environment(Verb::Version),
        b"{}",
    )?;
    assert!(
        libcni::outcome("portmap", &version)?
            .unwrap()
            .get("supportedVersions")
            .is_some()
    );
    Ok(())
}

#[test]
fn what_is_not_built_is_asked_for() -> Result {
    let lab = Lab::new().nodes(1).binaries("/nowhere").build()?;
    let loader = format!("{:#}", lab.node(1).start_loader().unwrap_err());
    assert!(loader.contains("cargo xtask build"), "{loader}");
    let add = format!("{:#}", lab.node(1).add_pod("web").unwrap_err());
    assert!(add.contains("cargo xtask build"), "{add}");
    Ok(())
}

/// A lab whose `azure-vnet-loader` is this test binary.
fn lab_with_stand_in() -> Result<(tempfile::TempDir, Lab)> {
    let dir = tempfile::tempdir()?;
    std::os::unix::fs::symlink(
        std::env::current_exe()?,
        dir.path().join("azure-vnet-loader"),
    )?;
    let lab = Lab::new().nodes(1).binaries(dir.path()).build()?;
    Ok((dir, lab))
}

const STAND_IN: [&str; 4] = ["--exact", "stand_in", "--ignored", "--nocapture"];

#[test]
fn a_loader_is_awaited_killed_and_read() -> Result {
    let (_dir, lab) = lab_with_stand_in()?;
    let loader = lab.node(1).loader();
    loader.start_with(&STAND_IN, &[("STAND_IN", "ready")])?;
    assert!(loader.is_running()?);
    assert!(loader.start_with(&STAND_IN, &[]).is_err());
    loader.kill9()?;
    assert!(!loader.is_running()?);
    assert!(loader.kill9().is_err());
    loader.start_with(&STAND_IN, &[("STAND_IN", "ready")])?;
    assert!(loader.terminate().is_err(), "the stand-in dies of SIGTERM");
    let failed = loader
        .start_with(&STAND_IN, &[("STAND_IN", "fail")])
        .unwrap_err();
    let failed = format!("{failed:#}");
    assert!(failed.contains("the map is on fire"), "{failed}");
    assert!(
        lab.dump().contains("the stand-in is ready"),
        "{}",
        lab.dump()
    );
    Ok(())
}

#[test]
#[ignore = "run as a loader by a_loader_is_awaited_killed_and_read"]
fn stand_in() -> Result {
    if std::env::var("STAND_IN")? == "fail" {
        eprintln!("the map is on fire");
        std::process::abort();
    }
    eprintln!("the stand-in is ready");
    let socket = UnixDatagram::unbound()?;
    socket.send_to(b"STATUS=attaching", std::env::var("NOTIFY_SOCKET")?)?;
    socket.send_to(b"READY=1\nSTATUS=up", std::env::var("NOTIFY_SOCKET")?)?;
    loop {
        std::thread::park();
    }
}

#[test]
fn a_stream_reports_stalls_and_breaks() -> Result {
    let lab = Lab::new().nodes(2).build()?;
    let (one, two) = (lab.node(1), lab.node(2));
    let echo = two.serve_echo(9000)?;
    let stall = |rule: &str| {
        lab.fabric().nft(&format!(
            "{rule} ip fabric forward ip daddr {} drop",
            two.addr()
        ))
    };
    let stream = one.stream(two.addr(), 9000)?;
    let paced = one.udp_paced(two.addr(), 9000, 1000, 100)?;
    assert_eq!((paced.sent, paced.received), (100, 100));
    stall("insert rule")?;
    let lossy = one.udp_paced(two.addr(), 9000, 1000, 10)?;
    assert_eq!((lossy.sent, lossy.received), (10, 0));
    lab.fabric().nft("flush chain ip fabric forward")?;
    let report = stream.finish()?;
    assert_eq!(report.resets, 0, "{report:?}");
    assert!(report.bytes > 0, "{report:?}");
    assert!(
        report.longest_gap > Duration::from_millis(500),
        "{report:?}"
    );

    let stream = one.stream(two.addr(), 9000)?;
    drop(echo);
    let deadline = Deadline::after(Duration::from_secs(5));
    while !stream.is_broken() && !deadline.passed() {
        std::thread::yield_now();
    }
    assert_eq!(stream.finish()?.resets, 1);
    Ok(())
}

#[test]
fn a_node_writes_only_to_itself() -> Result {
    let lab = Lab::new().nodes(1).build()?;
    let node = lab.node(1);
    node.exec(&["sysctl", "-w", "net.ipv4.ip_forward=1"])?;
    assert!(
        node.exec(&["sysctl", "-w", "kernel.printk_ratelimit=5"])
            .is_err()
    );
    assert!(node.exec(&["touch", "/usr/lib/lab"]).is_err());
    node.write("/run/azure-vnet/x/y", "z")?;
    assert_eq!(node.read("/run/azure-vnet/x/y")?, "z");
    assert!(!std::path::Path::new("/run/azure-vnet/x").exists());
    assert!(
        node.read("/sys/class/net/eth0/address")?
            .starts_with(&node.mac().to_string())
    );
    let rule = [
        "iptables",
        "-t",
        "nat",
        "-A",
        "POSTROUTING",
        "-j",
        "MASQUERADE",
    ];
    node.exec(&rule)?;
    assert!(node.exec(&["iptables-save"])?.contains("MASQUERADE"));
    assert!(node.exec(&["conntrack", "-L"]).is_ok());
    assert!(node.exec(&["bpftool", "map", "list"]).is_ok());
    Ok(())
}
