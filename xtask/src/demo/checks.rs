//! What pods reach, what they are refused, and what an operator sees.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::{IMDS, Mac, Namespace, WIRESERVER, frame};
use serde_json::Value;

use super::scene::{PORT, Scene};
use super::table::Table;

const SOON: Duration = Duration::from_secs(2);
/// For what must not be answered.
const IN_VAIN: Duration = Duration::from_millis(500);

pub(crate) fn reach(scene: &Scene, table: &mut Table) {
    let (web, db, api) = (&scene.web, &scene.db, &scene.api);
    let node = scene.node().addr();
    let tcp = |from: &Namespace, to, port| from.tcp(to, port).map(|probe| probe.peer_ip());
    let udp = |from: &Namespace, to, port| from.udp(to, port).map(|probe| probe.peer_ip());

    table.equal(
        "pod to pod, same node, TCP: source seen by the server",
        web.addr(),
        tcp(web, db.addr(), PORT),
    );
    table.equal(
        "pod to pod, same node, UDP: source seen",
        web.addr(),
        udp(web, db.addr(), PORT),
    );
    table.equal(
        "pod to pod, across nodes, TCP: source seen",
        web.addr(),
        tcp(web, api.addr(), PORT),
    );
    table.equal(
        "pod to pod, across nodes, UDP: source seen",
        web.addr(),
        udp(web, api.addr(), PORT),
    );
    table.equal(
        "pod to pod, across nodes, ping",
        "answered",
        web.ping(api.addr()).map(|_| "answered"),
    );

    let peer = scene.lab.peer();
    table.equal(
        "pod to peered VNet: source seen, not NATed",
        web.addr(),
        tcp(web, peer.addr(), 8080),
    );
    table.equal(
        "peered VNet to pod: source seen by the pod",
        peer.addr(),
        tcp(peer, web.addr(), PORT),
    );
    let onprem = scene.lab.onprem();
    table.equal(
        "pod to on-premises: source seen, not NATed",
        web.addr(),
        tcp(web, onprem.addr(), 8080),
    );

    let internet = scene.internet();
    table.equal(
        "pod to Internet, TCP: source seen is the node's",
        node,
        tcp(web, internet, 8080),
    );
    table.equal(
        "pod to Internet, UDP: source seen is the node's",
        node,
        udp(web, internet, 7),
    );
    table.equal(
        "pod to Internet, ping: source seen is the node's",
        node,
        ping_source(scene),
    );

    table.equal(
        "DNS at 168.63.129.16 sees the pod's own address",
        web.addr(),
        web.dns("www.example.com"),
    );
    let metadata = web.http(
        IMDS,
        80,
        "/metadata/instance/network?api-version=2021-01-01",
        &[("Metadata", "true")],
    );
    table.equal(
        "metadata at 169.254.169.254, which serves nodes only",
        200,
        metadata.map(|answer| answer.status),
    );
    table.equal(
        "node to pod (kubelet's probes): source seen",
        node,
        tcp(scene.node(), web.addr(), PORT),
    );
    table.holds(
        "none of this left a connection-tracking entry",
        "0 of pods' flows",
        tracked(scene),
    );
}

/// The source of the pod's echo request, as the fabric carries it to the Internet.
fn ping_source(scene: &Scene) -> Result<String> {
    let internet = scene.internet();
    let capture = scene.lab.inet().capture("eth0")?;
    scene.web.ping(internet)?;
    let is_request = |frame: &[u8]| frame.get(23) == Some(&1) && frame.get(34) == Some(&8);
    let request = capture
        .wait_for(SOON, is_request)
        .context("no echo request reached the Internet")?;
    let (source, _) = frame::ipv4_ends(&request).context("the request is no IPv4 packet")?;
    Ok(source.to_string())
}

/// Flows of pods that node 1's connection tracking knows. On-premises is a private range without `serviceCidrs`, so it goes
/// through the kernel, and shows that the instrument works; so do the node's own probes.
fn tracked(scene: &Scene) -> Result<(bool, String)> {
    let onprem = scene.lab.onprem().addr();
    let pods = [scene.web.addr(), scene.db.addr()];
    let flows = scene
        .node()
        .tracked()?
        .into_iter()
        .filter(|flow| flow.src != scene.node().addr());
    let (control, rest): (Vec<_>, Vec<_>) = flows
        .filter(|flow| pods.iter().any(|pod| flow.has(*pod)))
        .partition(|flow| flow.dst == onprem);
    let lines: Vec<String> = rest.into_iter().map(|flow| flow.line).collect();
    let text = format!(
        "{} {}(through the kernel: {})",
        lines.len(),
        lines.join("; "),
        control.len()
    );
    Ok((lines.is_empty() && !control.is_empty(), text))
}

pub(crate) fn refuse(scene: &Scene, table: &mut Table) {
    for port in [80, 32_526] {
        let what = format!("pod to 168.63.129.16 TCP {port} (the VM's secrets)");
        table.holds(&what, "dropped and counted", blocked(scene, port));
    }
    let own = scene.node().http(WIRESERVER, 80, "/health", &[]);
    table.equal(
        "the node itself to 168.63.129.16 TCP 80",
        200,
        own.map(|answer| answer.status),
    );
    table.holds(
        "a pod with a forged source address",
        "dropped and counted",
        spoofed(scene),
    );
}

fn blocked(scene: &Scene, port: u16) -> Result<(bool, String)> {
    let before = scene.dropped("wireserver")?;
    let reached = scene.web.within(IN_VAIN).tcp(WIRESERVER, port).is_ok();
    let counted = scene.dropped("wireserver")? - before;
    let text = format!(
        "{}, {counted} dropped",
        if reached { "REACHED" } else { "no answer" }
    );
    Ok((!reached && counted > 0, text))
}

/// A datagram from the pod's interface with its neighbour's address as source.
fn spoofed(scene: &Scene) -> Result<(bool, String)> {
    let before = scene.dropped("source_address")?;
    let forged = scene.db.addr();
    let target = scene.api.addr();
    let (own, gateway) = macs(&scene.web)?;
    scene.web.send_raw(&frame::udp(
        (gateway, target, PORT),
        (own, forged, 4000),
        b"forged",
    ))?;
    let carried = scene
        .lab
        .fabric()
        .seen(IN_VAIN, |frame| frame.ends_with(b"forged"));
    let counted = scene.dropped("source_address")? - before;
    let text = format!(
        "{counted} dropped{}",
        if carried { ", but one was CARRIED" } else { "" }
    );
    Ok((counted == 1 && !carried, text))
}

/// The pod's Ethernet address, and its next hop's.
fn macs(pod: &Namespace) -> Result<(Mac, Mac)> {
    let link: Value = serde_json::from_str(&pod.exec(&["ip", "-j", "link", "show", "eth0"])?)?;
    let neighbours: Value = serde_json::from_str(&pod.exec(&["ip", "-j", "neigh", "show"])?)?;
    let mac = |value: Option<&Value>| {
        let text = value
            .and_then(Value::as_str)
            .context("ip shows no Ethernet address")?;
        let bytes: Result<Vec<u8>, _> = text
            .split(':')
            .map(|byte| u8::from_str_radix(byte, 16))
            .collect();
        let octets: [u8; 6] = bytes?.try_into().ok().context("not six octets")?;
        Ok::<_, anyhow::Error>(Mac(octets))
    };
    Ok((
        mac(link.pointer("/0/address"))?,
        mac(neighbours.pointer("/0/lladdr"))?,
    ))
}

/// Frames of the whole demo that broke a rule of the fabric.
pub(crate) fn fabric(scene: &Scene, table: &mut Table) {
    table.holds(
        "frames of all this that the fabric refused",
        "0",
        refused(scene),
    );
}

fn refused(scene: &Scene) -> Result<(bool, String)> {
    let drops = scene.lab.fabric().dropped()?;
    ensure!(
        drops.contains_key("node1.foreign_source"),
        "the fabric does not count what it drops"
    );
    let refused: Vec<String> = drops
        .iter()
        .filter(|(_, packets)| **packets > 0)
        .map(|(counter, packets)| format!("{counter} {packets}"))
        .collect();
    Ok((
        refused.is_empty(),
        if refused.is_empty() {
            "0".into()
        } else {
            refused.join(", ")
        },
    ))
}

pub(crate) fn look(scene: &Scene, table: &mut Table) {
    table.holds(
        "bridges and iptables rules of ours on the node",
        "none",
        no_bridge_no_iptables(scene),
    );
    table.holds(
        "`bpftool map dump` names the fields",
        "addr, mac, slot, …",
        dump(scene),
    );
    table.holds(
        "`vnetctl status` knows the pods and what they sent",
        "web, db",
        status(scene),
    );
}

fn no_bridge_no_iptables(scene: &Scene) -> Result<(bool, String)> {
    let bridges = scene
        .node()
        .exec(&["ip", "-o", "link", "show", "type", "bridge"])?;
    let rules = scene.node().exec(&["iptables-save"])?;
    // portmap, chained after us, makes its chains when it is called.
    let ours: Vec<&str> = rules
        .lines()
        .filter(|line| {
            line.starts_with("-A") && !line.contains("CNI-") && !line.contains("HOSTPORT")
        })
        .collect();
    let none = bridges.is_empty() && ours.is_empty();
    Ok((
        none,
        if none {
            "none".into()
        } else {
            format!("{bridges} {}", ours.join("; "))
        },
    ))
}

fn dump(scene: &Scene) -> Result<(bool, String)> {
    let text = scene.node().exec(&[
        "bpftool",
        "-j",
        "map",
        "dump",
        "pinned",
        "/sys/fs/bpf/azure-vnet/v1/maps/veths",
    ])?;
    let entries: Value = serde_json::from_str(&text).context("parse what bpftool printed")?;
    let value = entries
        .pointer("/0/formatted/value")
        .and_then(Value::as_object)
        .context("bpftool knows no field names")?;
    let names: Vec<&str> = value.keys().map(String::as_str).collect();
    let known = ["addr", "generation", "host_mac", "mac", "slot"]
        .iter()
        .all(|name| names.contains(name));
    Ok((known, names.join(", ")))
}

fn status(scene: &Scene) -> Result<(bool, String)> {
    let status = scene.status()?;
    let pods = status
        .pointer("/pods")
        .and_then(Value::as_array)
        .context("no pods in the status")?;
    let sent = |pod: &Value, path: &str| {
        pod.pointer(&format!("/paths/{path}/packets"))
            .and_then(Value::as_u64)
            .unwrap_or(0)
    };
    let names: Vec<&str> = pods
        .iter()
        .filter_map(|pod| pod.pointer("/name").and_then(Value::as_str))
        .collect();
    let web = pods.first().context("no pod in the status")?;
    let (to_pod, to_vnet, to_internet) = (
        sent(web, "to_pod"),
        sent(web, "to_vnet"),
        sent(web, "to_internet"),
    );
    let good = names == ["web", "db"] && to_pod > 0 && to_vnet > 0 && to_internet > 0;
    Ok((
        good,
        format!(
            "{}; web sent {to_pod} to pods, {to_vnet} VNet, {to_internet} Internet",
            names.join(", ")
        ),
    ))
}
