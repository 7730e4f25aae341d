//! No false alarm: a node as it is installed, and one with everything beside it that coexistence promises.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use lab::{Proxy, Service};

use super::*;

const PORT: u16 = 8080;

#[test]
fn a_node_with_pods_is_healthy() -> Result {
    let lab = Lab::new().nodes(1).build()?;
    let node = lab.node(1);
    node.start_loader()?;
    node.exec(&["vnetctl", "status", "--wait", "--brief"])?;
    let _pods = [node.add_pod("web")?, node.add_pod("db")?];
    let found = findings(node)?;
    assert!(found.is_empty(), "{found:#?}");
    let table = node.exec(&["vnetctl", "doctor"])?;
    assert_eq!(table, "0 problems, 34 checks\n");
    Ok(())
}

#[test]
fn pods_that_come_and_go_are_no_problem() -> Result {
    let lab = Lab::new().nodes(1).build()?;
    let node = lab.node(1);
    node.start_loader()?;
    node.exec(&["vnetctl", "status", "--wait", "--brief"])?;
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let churn = scope.spawn(|| {
            let mut pods = 0;
            while !over.load(Ordering::Relaxed) {
                node.add_pod(&format!("web-{pods}"))?.delete()?;
                pods += 1;
            }
            anyhow::Ok(pods)
        });
        let found: Result<Vec<_>> = (0..15).map(|_| findings(node)).collect();
        over.store(true, Ordering::Relaxed);
        println!("{} pods came and went", churn.join().unwrap()?);
        // Addresses rest for a while.
        let found = found?.into_iter().flatten();
        let found: Vec<_> = found
            .filter(|one| one.name != "addresses-used-up")
            .collect();
        assert!(found.is_empty(), "{found:#?}");
        Ok(())
    })
}

#[test]
fn whoever_is_not_root_is_told_so() -> Result {
    let lab = Lab::new().nodes(1).build()?;
    let node = lab.node(1);
    let as_nobody = |words: &[&str]| {
        let line = [&["setpriv", "--reuid=65534", "vnetctl"], words].concat();
        node.feed(&line, b"")
    };
    for command in ["doctor", "status", "endpoints"] {
        let refused = as_nobody(&[command])?;
        assert_eq!(refused.status.code(), Some(1), "{command}");
        assert!(
            refused.stderr.contains("run it with sudo"),
            "{}",
            refused.stderr
        );
    }
    as_nobody(&["explain", "11"])?.success()?;
    Ok(())
}

#[test]
fn kube_proxy_portmap_and_node_local_dns_are_no_problem() -> Result {
    for proxy in [Proxy::Iptables, Proxy::Nftables] {
        let lab = Lab::new().nodes(1).build()?;
        let node = lab.node(1);
        node.start_loader()?;
        node.exec(&["vnetctl", "status", "--wait", "--brief"])?;
        let mut published = node.new_netns("published")?;
        *published.attachment_mut() = published.attachment().clone().host_port(8081, PORT, "tcp");
        published.add(&node.network()?)?;
        let service = Service::new("web", Ipv4Addr::new(10, 0, 0, 10), 80).node_port(30080);
        node.proxy(proxy, &[service.backend(published.addr(), PORT)])?;
        let _dns = node.node_local_dns()?;
        // Docker's, for its own containers.
        node.iptables(
            "*nat\n-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE\nCOMMIT\n",
        )?;
        let found = findings(node)?;
        assert!(found.is_empty(), "{proxy:?}: {found:#?}");
    }
    Ok(())
}
