//! Connections through a ClusterIP, a NodePort and directly, at full rate, beside kube-proxy's rules: none fails, whatever
//! the tables hold.
#![cfg(test)]

use std::net::Ipv4Addr;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Duration;

use hooks::{Maps, Pins};
use lab::{ConnectClose, Lab, Node, Pod, Proxy, Service, Stop};

/// A Service with a backend on the other node, and one with a backend on the client's.
const REMOTE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 10);
const LOCAL: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 11);
const PORT: u16 = 9000;
const NODE_PORT: u16 = 30_080;

struct Scene {
    lab: Lab,
    client: Pod,
    near: Pod,
    far: Pod,
    _servers: Vec<lab::ConnectCloseServer>,
}

impl Scene {
    fn new(loader_yaml: &str) -> Self {
        let lab = Lab::new().nodes(2).record(false).build().unwrap();
        for node in lab.nodes() {
            node.write("/etc/azure-vnet/loader.yaml", loader_yaml)
                .unwrap();
            node.start_loader().unwrap();
        }
        let node = lab.node(1);
        let client = node.add_pod("client").unwrap();
        let near = node.add_pod("near").unwrap();
        let far = lab.node(2).add_pod("far").unwrap();
        let services = [
            Service::new("remote", REMOTE, PORT)
                .backend(far.addr(), PORT)
                .node_port(NODE_PORT),
            Service::new("local", LOCAL, PORT).backend(near.addr(), PORT),
        ];
        node.proxy(Proxy::Iptables, &services).unwrap();
        // The kernel forgets closed connections slowly; here, faster than the test makes them.
        node.sysctl("net.netfilter.nf_conntrack_tcp_timeout_time_wait", "1")
            .unwrap();
        // What a server keeps of a closed connection meets the next one on the same ports with an older time stamp when one
        // came to the Service and the other to the backend; then the client waits 8 ms and tries again: no full rate.
        for server in [&near, &far] {
            server.sysctl("net.ipv4.tcp_max_tw_buckets", "0").unwrap();
        }
        let servers = [&near, &far]
            .map(|pod| pod.serve_connect_close(PORT).unwrap())
            .into();
        Self {
            lab,
            client,
            near,
            far,
            _servers: servers,
        }
    }

    fn node(&self) -> &Node {
        self.lab.node(1)
    }

    /// How many flows have found no room.
    fn lost_flows(&self) -> u32 {
        let lost = || Ok(Maps::from_pins(&Pins::default())?.flows_lost.get(&0, 0)?);
        self.node().run(lost).unwrap()
    }

    /// The packets on `path` of a pod of the client's node.
    fn counted(&self, pod: &Pod, path: &str) -> u64 {
        let status = self.node().status().unwrap();
        let (pods, address) = (status["pods"].as_array().unwrap(), pod.addr().to_string());
        let found = pods.iter().find(|pod| pod["address"] == *address);
        let packets = &found.unwrap()["paths"][path]["packets"];
        packets.as_u64().unwrap_or(0)
    }
}

fn report(what: &str, counted: &ConnectClose) {
    println!(
        "{what:<28} {:>8} connections, {:>6.0}/s, {} slow, {} failed {}",
        counted.done,
        counted.rate(),
        counted.slow,
        counted.failed,
        counted.first_failure.as_deref().unwrap_or("")
    );
    // Who takes the wrong side once may come through when it tries again: that is a lost packet, too.
    assert_eq!(
        (counted.failed, counted.slow),
        (0, 0),
        "{what}: {counted:?}"
    );
    assert_ne!(counted.done, 0, "{what}");
}

/// `count` connections through a ClusterIP to the other node, while another pod talks to the same backend directly. Not
/// the same pod: where a direct connection gets the port of one through the Service, it rightly takes the stack.
fn a_service_and_the_vnet_side_by_side(count: u32) {
    let scene = Scene::new("");
    let over = AtomicBool::new(false);
    let (service, direct) = thread::scope(|scope| {
        let direct = scope.spawn(|| {
            let far = scene.far.addr();
            scene.near.connect_close_until(far, PORT, &over).unwrap()
        });
        let stop = Stop(&over);
        let service = scene
            .client
            .connect_close_times(REMOTE, PORT, count)
            .unwrap();
        drop(stop);
        (service, direct.join().unwrap())
    });
    report("ClusterIP, remote backend", &service);
    report("directly, at the same time", &direct);
    assert_eq!(service.done, count);
    let both = ["to_stack", "from_stack", "to_vnet", "from_vnet"];
    let of_client = both.map(|path| scene.counted(&scene.client, path));
    let of_near = both.map(|path| scene.counted(&scene.near, path));
    println!("packets on {both:?}: {of_client:?}, directly {of_near:?}");
    // There: SYN, ACK, a byte, FIN. Back: SYN-ACK, a byte, FIN. Some may be sent together, none is left out.
    let (there, back) = (
        |done: u32| u64::from(done) * 4,
        |done: u32| u64::from(done) * 3,
    );
    assert!(of_client[0] >= there(count) && of_client[1] >= back(count));
    assert_eq!(of_client[2..], [0, 0], "nothing of the Service's is fast");
    assert!(of_near[2] >= there(direct.done) && of_near[3] >= back(direct.done));
    assert_eq!(of_near[..2], [0, 0], "nothing of the direct ones is slow");
}

#[test]
fn a_service_and_the_vnet_at_the_same_time() {
    a_service_and_the_vnet_side_by_side(1000);
}

#[test]
#[ignore = "slow: 10,000 connections; cargo xtask test load"]
fn ten_thousand_connections_through_a_service_beside_the_vnet() {
    a_service_and_the_vnet_side_by_side(10_000);
}

/// One way after the other, `time` each, with the same pods and ports, so that every way meets the others' flows. Returns how
/// many flows have found no room in the table, and how many packets went fast to the near pod and to the far one.
fn one_way_after_the_other(flows: u32, ports: &str, time: Duration) -> (u32, [u64; 2]) {
    let scene = Scene::new(&format!("flowsMax: {flows}\n"));
    scene
        .client
        .sysctl("net.ipv4.ip_local_port_range", ports)
        .unwrap();
    scene.client.sysctl("net.ipv4.tcp_tw_reuse", "1").unwrap();
    println!("flows: {flows} entries");
    for (what, server, port) in [
        ("ClusterIP, remote backend", REMOTE, PORT),
        ("ClusterIP, local backend", LOCAL, PORT),
        ("NodePort", scene.node().addr(), NODE_PORT),
        ("directly, same node", scene.near.addr(), PORT),
        ("directly, other node", scene.far.addr(), PORT),
        ("ClusterIP, remote, again", REMOTE, PORT),
    ] {
        let counted = scene.client.connect_close(server, port, time).unwrap();
        report(what, &counted);
    }
    let lost = scene.lost_flows();
    let fast = ["to_pod", "to_vnet"].map(|path| scene.counted(&scene.client, path));
    println!("{lost} flows found no room, {fast:?} packets to near and far went fast");
    (lost, fast)
}

/// Few, so that every way meets all the others' flows; and all that there are.
const FEW_PORTS: &str = "40000 44999";
const ALL_PORTS: &str = "1024 65535";

#[test]
fn services_and_pods_take_turns_while_the_flow_table_overflows() {
    let (lost, _) = one_way_after_the_other(1024, FEW_PORTS, Duration::from_millis(700));
    assert_ne!(lost, 0);
}

#[test]
#[ignore = "slow: two minutes; cargo xtask test load"]
fn services_and_pods_take_turns_for_twenty_seconds_each_with_65536_flows() {
    let (_, [near, far]) = one_way_after_the_other(65_536, ALL_PORTS, Duration::from_secs(20));
    assert!(
        near > 0 && far > 0,
        "what is direct goes fast where there is room"
    );
}

#[test]
#[ignore = "slow: two minutes; cargo xtask test load"]
fn services_and_pods_take_turns_for_twenty_seconds_each_with_1024_flows() {
    let (lost, _) = one_way_after_the_other(1024, FEW_PORTS, Duration::from_secs(20));
    assert_ne!(lost, 0);
}
