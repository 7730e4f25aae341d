//! Limits of bandwidth: where fast packets meet them, and where not (ADR 0013).

use lab::{AZURE_CONFLIST, Paced, Pod};

use crate::scene::Scene;

/// So little that most of what is sent at once does not get through.
const LIMIT: &str = "rate 8kbit burst 1600";

/// The documented list with `bandwidth` at its end.
fn chained(limits: &str) -> String {
    let (list, end) = AZURE_CONFLIST.trim_end().rsplit_once(']').unwrap();
    format!("{list}, {{\"type\": \"bandwidth\", {limits}}}]{end}")
}

fn is_limited(Paced { sent, received, .. }: Paced) -> bool {
    received < sent / 2
}

fn tc(pod: &Pod, words: &str) {
    let line: Vec<_> = ["tc"].into_iter().chain(words.split(' ')).collect();
    pod.exec(&line).unwrap();
}

#[test]
fn fast_packets_meet_a_limit_at_the_pods_end_and_none_at_the_nodes() {
    let limits = r#""ingressRate": 8000, "ingressBurst": 12800"#;
    let scene = Scene::with(AZURE_CONFLIST);
    let node = scene.lab.node(1);
    node.write(lab::CONFLIST, &chained(limits)).unwrap();
    let (client, server) = (node.add_pod("client"), node.add_pod("server"));
    let (client, server) = (client.unwrap(), server.unwrap());
    let _echo = server.serve_echo(80).unwrap();
    let ask = || client.udp_paced(server.addr(), 80, 1000, 200).unwrap();
    let shown = node.exec(&["tc", "qdisc", "show", "dev", server.host_veth().unwrap()]);
    assert!(
        shown.unwrap().contains("tbf"),
        "bandwidth has done its part"
    );
    assert_eq!(ask().received, 200, "they pass the qdisc by");
    tc(
        &server,
        &format!("qdisc add dev eth0 root tbf {LIMIT} limit 1600"),
    );
    assert!(is_limited(ask()), "out of the pod");
    tc(&server, "qdisc del dev eth0 root");
    assert_eq!(ask().received, 200);
    server
        .ip("link add ifb0 type ifb\nlink set ifb0 up\n")
        .unwrap();
    tc(
        &server,
        &format!("qdisc add dev ifb0 root tbf {LIMIT} limit 1600"),
    );
    tc(&server, "qdisc add dev eth0 ingress");
    let detour = "u32 match u32 0 0 action mirred egress redirect dev ifb0";
    tc(
        &server,
        &format!("filter add dev eth0 ingress protocol ip {detour}"),
    );
    assert!(is_limited(ask()), "into the pod");
}

#[test]
fn an_egress_limit_of_bandwidth_is_refused_and_leaves_nothing() {
    let scene = Scene::new();
    let node = scene.lab.node(1);
    // Chains of portmap, which stay.
    node.add_pod("first").unwrap().delete().unwrap();
    let before = node.snapshot().unwrap();
    let limits = r#""egressRate": 8000, "egressBurst": 12800"#;
    node.write(lab::CONFLIST, &chained(limits)).unwrap();
    let error = format!("{:#}", node.add_pod("web").unwrap_err());
    assert!(
        error.contains("create ingress qdisc: file exists"),
        "{error}"
    );
    assert!(!error.contains("DEL failed"), "{error}");
    let left = scene.left(&before);
    assert!(left.iter().all(|line| line.contains("/netns/")), "{left:?}");
}
