//! `/metrics`, `/healthz` and `/readyz` of a loader with real pods and real traffic.
#![cfg(test)]
#![expect(clippy::float_cmp, reason = "counts are whole numbers")]

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::time::Duration;

use lab::libcni::{Verb, outcome};
use lab::{Lab, METRICS_ON, METRICS_PORT, Node, Response, Scrape, eventually};
use serde_json::Value;

const CONFIG: &str = "/etc/azure-vnet/loader.yaml";
const LOCALHOST: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// A sweep comes every ten seconds.
const SWEPT: Duration = Duration::from_secs(25);
const SOON: Duration = Duration::from_secs(10);
/// Repairs come every 30 s.
const REPAIRED: Duration = Duration::from_secs(45);

/// One node whose loader serves metrics.
fn lab() -> Lab {
    let lab = Lab::new().nodes(1).build().unwrap();
    lab.node(1).write(CONFIG, METRICS_ON).unwrap();
    start(lab.node(1));
    lab
}

/// Metrics are served a moment after the loader is ready.
fn start(node: &Node) {
    node.start_loader().unwrap();
    eventually(SOON, || node.scrape().ok()).expect("metrics are served");
}

/// The sum over all pods of what `vnetctl status` says about a path.
fn of_pods(node: &Node, path: &str) -> [f64; 2] {
    let status = node.status().unwrap();
    let pods = status["pods"].as_array().unwrap().clone();
    ["packets", "bytes"].map(|unit| {
        let counts = pods
            .iter()
            .filter_map(|pod| pod["paths"][path][unit].as_u64());
        f64::from(u32::try_from(counts.sum::<u64>()).unwrap())
    })
}

fn of_page(page: &Scrape, path: &str) -> [f64; 2] {
    ["azure_vnet_packets_total", "azure_vnet_bytes_total"]
        .map(|name| page.value(name, &[("path", path)]))
}

fn get(node: &Node, path: &str) -> Response {
    node.http(LOCALHOST, METRICS_PORT, path, &[]).unwrap()
}

#[test]
fn a_scrape_tells_what_pods_sent_and_what_calls_did() {
    let lab = lab();
    let node = lab.node(1);
    let web = node.add_pod("web").unwrap();
    let db = node.add_pod("db").unwrap();
    let _echo = db.serve_echo(80).unwrap();
    web.tcp(db.addr(), 80).unwrap();
    web.tcp(lab.inet().addr(), 8080).unwrap();
    web.udp(lab.inet().addr(), 7).unwrap();
    let refused = web
        .within(Duration::from_millis(300))
        .tcp(lab::WIRESERVER, 80);
    assert!(refused.is_err());

    // Every way, at a moment when nothing moves.
    let same = eventually(SOON, || {
        let before = of_pods(node, "to_internet");
        let page = node.scrape().unwrap();
        let still = of_pods(node, "to_internet");
        (before == still && of_page(&page, "to_internet") == before).then_some(page)
    });
    let page = same.expect("the page agrees with `vnetctl status`");
    for path in ["to_pod", "from_pod", "from_internet", "dropped"] {
        assert_eq!(of_page(&page, path), of_pods(node, path), "{path}");
        assert!(of_page(&page, path)[0] > 0.0, "{path}");
    }
    let reason = [("reason", "wireserver")];
    let dropped = page.value("azure_vnet_dropped_packets_total", &reason);
    assert!(dropped >= 1.0);
    assert!(page.value("azure_vnet_dropped_bytes_total", &reason) >= 60.0);

    let is = |name: &str, labels: &[(&str, &str)], expected: f64| {
        assert_eq!(page.find(name, labels), Some(expected), "{name} {labels:?}");
    };
    is("azure_vnet_pods", &[], 2.0);
    is("azure_vnet_ready", &[], 1.0);
    is("azure_vnet_config_rejected", &[], 0.0);
    is("azure_vnet_map_entries", &[("map", "pods")], 2.0);
    is(
        "azure_vnet_map_capacity_entries",
        &[("map", "snat")],
        262_144.0,
    );
    is("azure_vnet_snat_ports", &[], 28_976.0);
    is("azure_vnet_ipam_addresses", &[("state", "used")], 2.0);
    is(
        "azure_vnet_attached_programs",
        &[("program", "from_wire")],
        1.0,
    );
    is(
        "azure_vnet_attached_programs",
        &[("program", "xdp_guard")],
        0.0,
    );
    let adds = [("plugin", "azure-vnet"), ("verb", "ADD")];
    is("azure_vnet_cni_call_duration_seconds_count", &adds, 2.0);
    let ipam = [("plugin", "azure-vnet-ipam"), ("verb", "ADD")];
    is("azure_vnet_cni_call_duration_seconds_count", &ipam, 2.0);
    let took = page.value("azure_vnet_cni_call_duration_seconds_sum", &adds);
    assert!((0.001..10.0).contains(&took), "{took} s");
    let age = page.find("azure_vnet_pool_age_seconds", &[("source", "wireserver")]);
    assert!(age.is_some_and(|age| age < 60.0), "{age:?}");
    assert!(page.value("process_resident_memory_bytes", &[]) > 1e6);

    // What only a sweep tells.
    let page = eventually(SWEPT, || {
        let page = node.scrape().unwrap();
        (page.value("azure_vnet_snat_bindings", &[("state", "open")]) > 0.0).then_some(page)
    });
    let page = page.expect("a sweep has seen the binding of the datagram");
    let end = [
        ("address", &*lab.inet().addr().to_string()),
        ("port", "7"),
        ("protocol", "udp"),
    ]
    .map(|(key, value)| (key, value.to_owned()));
    let end = end.each_ref().map(|(key, value)| (*key, value.as_str()));
    assert_eq!(
        page.find("azure_vnet_snat_destination_ports", &end),
        Some(1.0)
    );
    assert!(page.value("azure_vnet_gc_sweep_duration_seconds_count", &[]) >= 1.0);
}

#[test]
fn counters_never_fall_when_pods_go_slots_are_used_again_and_the_loader_restarts() {
    let lab = lab();
    let node = lab.node(1);
    let mut before = [0.0; 2];
    let mut sent = |name: &str| {
        let pod = node.add_pod(name).unwrap();
        for _ in 0..5 {
            pod.udp(lab.inet().addr(), 7).unwrap();
        }
        let now = of_page(&node.scrape().unwrap(), "to_internet");
        assert!(now[0] >= before[0] + 5.0, "{now:?} after {before:?}");
        assert!(now[1] >= before[1] + 5.0 * 60.0, "{now:?} after {before:?}");
        pod.delete().unwrap();
        let without = of_page(&node.scrape().unwrap(), "to_internet");
        assert!(without[0] >= now[0], "{without:?} after {now:?}");
        before = without;
    };
    sent("first");
    sent("in the same slot");
    node.loader().kill9().unwrap();
    start(node);
    sent("of another loader");
    assert!(before[0] >= 15.0);
}

#[test]
fn a_call_that_fails_is_counted_with_code_and_step() {
    let lab = lab();
    let node = lab.node(1);
    let network = node.network().unwrap();
    let pod = node.new_netns("pod").unwrap();
    // An interface of that name is there already.
    pod.ip("link add eth0 type veth peer name other\n").unwrap();
    let done = pod.call(&network, Verb::Add).unwrap();
    assert!(outcome("azure-vnet", &done).is_err());
    let labels = [
        ("plugin", "azure-vnet"),
        ("verb", "ADD"),
        ("code", "100"),
        ("step", "existing"),
    ];
    // The plug-in tells and does not wait for anybody to hear it.
    let is_counted = || {
        let found = node
            .scrape()
            .ok()?
            .find("azure_vnet_cni_call_errors_total", &labels);
        (found == Some(1.0)).then_some(())
    };
    eventually(SOON, is_counted).unwrap();
}

#[test]
fn readyz_says_what_status_says_and_healthz_that_the_loader_lives() {
    let lab = lab();
    let node = lab.node(1);
    let network = node.network().unwrap();
    let agrees = |ready: bool, word: &str| {
        let answer = eventually(SOON, || {
            let answer = get(node, "/readyz");
            ((answer.status == 200) == ready && answer.body.contains(word)).then_some(answer)
        });
        let answer = answer.unwrap_or_else(|| get(node, "/readyz"));
        assert_eq!(answer.status, if ready { 200 } else { 503 }, "{answer:?}");
        assert!(answer.body.contains(word), "{answer:?}");
        let status = network.clone().in_version("1.1.0").status(node, 1);
        assert_eq!(status.is_ok(), ready, "{status:?}");
        let page = node.scrape().unwrap();
        assert_eq!(
            page.value("azure_vnet_ready", &[]),
            f64::from(u8::from(ready))
        );
        assert_eq!(get(node, "/healthz").status, 200);
    };
    agrees(true, "ok");
    // Every address is taken.
    let pools = node.read("/run/azure-vnet/ipam/pools.json").unwrap();
    let pools: Value = serde_json::from_str(pools.split_once('\n').unwrap().1).unwrap();
    let subnet = &pools["interfaces"][0]["subnets"][0];
    let all = subnet["secondary"].as_array().unwrap();
    assert!(!all.is_empty());
    for address in all {
        let address = address.as_str().unwrap();
        let path = format!("/run/azure-vnet/ipam/leases/{address}");
        node.write(&path, "").unwrap();
    }
    agrees(false, "no address is left");
    node.exec(&["sh", "-c", "rm /run/azure-vnet/ipam/leases/*"])
        .unwrap();
    agrees(true, "ok");
}

#[test]
fn a_program_that_is_put_back_is_counted_as_a_repair() {
    let lab = lab();
    let node = lab.node(1);
    let pod = node.add_pod("pod").unwrap();
    let veth = pod.host_veth().unwrap().to_owned();
    node.exec(&["tc", "qdisc", "del", "dev", &veth, "clsact"])
        .unwrap();
    let repaired = eventually(REPAIRED, || {
        let page = node.scrape().unwrap();
        let attached = ["from_pod", "to_pod"]
            .map(|program| page.value("azure_vnet_attached_programs", &[("program", program)]));
        let repairs = page.value("azure_vnet_repairs_total", &[("what", "program")]);
        (attached == [1.0; 2]).then_some(repairs)
    });
    assert_eq!(repaired, Some(2.0));
}

#[test]
fn whatever_is_put_back_is_counted() {
    let lab = lab();
    let node = lab.node(1);
    let pod = node.add_pod("pod").unwrap();
    let lease = format!("/run/azure-vnet/ipam/leases/{}", pod.addr());
    let route = format!("ip route del {}", pod.addr());
    for (what, deed) in [
        ("pin", "rm /sys/fs/bpf/azure-vnet/v1/programs/to_pod"),
        ("setting", "echo 0 > /proc/sys/net/ipv4/ip_forward"),
        ("way", &route),
        ("file", &format!("rm {lease}")),
        ("socket", "rm /run/azure-vnet/loader.sock"),
        ("lock", "rm /run/azure-vnet/loader.lock"),
        ("fallback", "nft flush table ip azure-vnet"),
    ] {
        let total = || {
            let page = node.scrape().unwrap();
            page.value("azure_vnet_repairs_total", &[("what", what)])
        };
        assert_eq!(total(), 0.0, "{what}");
        node.exec(&["sh", "-c", deed]).unwrap();
        eventually(SOON, || (total() == 1.0).then_some(()))
            .unwrap_or_else(|| panic!("{what}: {}", total()));
    }
}

#[test]
fn what_the_loader_cannot_mend_is_a_metric_by_topic() {
    let lab = lab();
    let node = lab.node(1);
    let trouble = |topic| {
        let page = node.scrape().unwrap();
        page.value("azure_vnet_trouble", &[("topic", topic)])
    };
    assert_eq!(trouble("nic"), 0.0);
    node.exec(&["ip", "route", "del", "default"]).unwrap();
    eventually(SOON, || (trouble("nic") == 1.0).then_some(())).expect("it is told");
    assert_eq!(trouble("stack"), 0.0);
    // Pods could be added.
    assert_eq!(node.scrape().unwrap().value("azure_vnet_ready", &[]), 1.0);
}

#[test]
fn nobody_listens_unless_told_and_the_address_may_change_meanwhile() {
    let lab = Lab::new().nodes(1).build().unwrap();
    let node = lab.node(1);
    node.start_loader().unwrap();
    let listens = |port: u16| {
        node.within(Duration::from_secs(1))
            .http(LOCALHOST, port, "/healthz", &[])
            .is_ok_and(|answer| answer.status == 200)
    };
    let sockets = node.exec(&["ss", "-Hltn"]).unwrap();
    assert_eq!(sockets.trim(), "", "no port is open by default");
    node.write(CONFIG, METRICS_ON).unwrap();
    eventually(SOON, || listens(METRICS_PORT).then_some(())).expect("a changed file is enough");
    node.write(CONFIG, "metrics: 127.0.0.1:9656\n").unwrap();
    eventually(SOON, || listens(9656).then_some(())).expect("another address");
    eventually(SOON, || (!listens(METRICS_PORT)).then_some(())).expect("not the old one");
    node.write(CONFIG, "metrics: off\n").unwrap();
    eventually(SOON, || (!listens(9656)).then_some(())).expect("none");
}

#[test]
fn whoever_is_slow_or_sends_garbage_keeps_nobody_waiting() {
    let lab = lab();
    let node = lab.node(1);
    let address = SocketAddrV4::new(LOCALHOST, METRICS_PORT);
    let connect = || node.run(|| Ok(TcpStream::connect(address)?)).unwrap();
    for (garbage, answer) in [
        (&b"\x16\x03\x01 what?\r\n\r\n"[..], "HTTP/1.1 400"),
        (
            b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 405",
        ),
        (
            b"GET /etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
            "HTTP/1.1 404",
        ),
        (&vec![b'a'; 100_000], "HTTP/1.1 4"),
    ] {
        let mut stream = connect();
        // Whoever sends too much is cut off.
        drop(stream.write_all(garbage));
        let mut found = Vec::new();
        drop(stream.read_to_end(&mut found));
        let found = String::from_utf8_lossy(&found).into_owned();
        assert!(
            found.starts_with(answer) || found.is_empty(),
            "{answer}: {found}"
        );
    }
    // More than are served at a time, and none says a word.
    let silent: Vec<TcpStream> = (0..40).map(|_| connect()).collect();
    node.status().unwrap();
    node.add_pod("pod").unwrap().delete().unwrap();
    drop(silent);
    let page = eventually(SOON, || node.scrape().ok()).unwrap();
    let silent: Vec<TcpStream> = (0..4).map(|_| connect()).collect();
    assert_eq!(
        node.scrape().unwrap().value("azure_vnet_pods", &[]),
        page.value("azure_vnet_pods", &[])
    );
    drop(silent);
}
