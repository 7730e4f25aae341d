//! kube-proxy's IPVS shape: virtual servers at addresses of a dummy interface, and rules over sets of addresses for what is
//! masqueraded.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::Ipv4Addr;

use super::{AFFINITY, CLUSTER_CIDR, Service};

/// Where the Services' addresses are, so that the kernel takes what is sent there for its own.
const INTERFACE: &str = "kube-ipvs0";

/// What the rules ask for, and of what type: addresses and ports of Services, and of backends, which may be the client, too.
const SETS: [(&str, &str); 5] = [
    ("KUBE-CLUSTER-IP", "hash:ip,port"),
    ("KUBE-EXTERNAL-IP", "hash:ip,port"),
    ("KUBE-LOOP-BACK", "hash:ip,port,ip"),
    ("KUBE-NODE-PORT", "hash:ip,port"),
    ("KUBE-NODE-PORT-LOCAL", "hash:ip,port"),
];

/// Settings of the network namespace without which Services do not work.
pub(super) const SETTINGS: [(&str, &str); 2] = [
    // So that netfilter sees, and may masquerade, what IPVS forwards.
    ("net.ipv4.vs.conntrack", "1"),
    ("net.ipv4.vs.expire_nodest_conn", "1"),
];

/// Input of `ip -batch`.
pub(super) fn addresses(services: &[Service]) -> String {
    let of = |service: &Service| [&[service.cluster_ip], &service.external_ips[..]].concat();
    let addresses: BTreeSet<_> = services.iter().flat_map(of).collect();
    let mut batch = vec![format!("link add {INTERFACE} type dummy")];
    let add = |addr| format!("addr add {addr}/32 dev {INTERFACE}");
    batch.extend(addresses.into_iter().map(add));
    batch.join("\n")
}

/// Input of `ipset restore`; `node` is the node's own address.
pub(super) fn sets(services: &[Service], node: Ipv4Addr) -> String {
    let mut sets = String::new();
    for (name, kind) in SETS {
        // Writing to a String cannot fail.
        writeln!(sets, "create {name} {kind}").unwrap_or_default();
    }
    for service in services {
        write_members(&mut sets, service, node).unwrap_or_default();
    }
    sets
}

fn write_members(sets: &mut String, service: &Service, node: Ipv4Addr) -> std::fmt::Result {
    let (protocol, port) = (service.protocol, service.port);
    let cluster_ip = service.cluster_ip;
    writeln!(sets, "add KUBE-CLUSTER-IP {cluster_ip},{protocol}:{port}")?;
    for addr in &service.external_ips {
        writeln!(sets, "add KUBE-EXTERNAL-IP {addr},{protocol}:{port}")?;
    }
    if let Some(port) = service.node_port {
        writeln!(sets, "add KUBE-NODE-PORT {node},{protocol}:{port}")?;
        if service.local_only {
            writeln!(sets, "add KUBE-NODE-PORT-LOCAL {node},{protocol}:{port}")?;
        }
    }
    for at in &service.backends {
        let (addr, port) = (at.ip(), at.port());
        writeln!(
            sets,
            "add -exist KUBE-LOOP-BACK {addr},{protocol}:{port},{addr}"
        )?;
    }
    Ok(())
}

/// Input of `iptables-restore`: the same for any Services.
pub(super) fn rules() -> String {
    format!(
        "*nat\n:KUBE-SERVICES - [0:0]\n:KUBE-NODE-PORT - [0:0]\n:KUBE-POSTROUTING - [0:0]\n:KUBE-MARK-MASQ - [0:0]\n\
         -A PREROUTING -j KUBE-SERVICES\n\
         -A OUTPUT -j KUBE-SERVICES\n\
         -A POSTROUTING -j KUBE-POSTROUTING\n\
         -A KUBE-MARK-MASQ -j MARK --or-mark 0x4000\n\
         -A KUBE-SERVICES -s 127.0.0.0/8 -j RETURN\n\
         -A KUBE-SERVICES ! -s {CLUSTER_CIDR} -m set --match-set KUBE-CLUSTER-IP dst,dst -j KUBE-MARK-MASQ\n\
         -A KUBE-SERVICES -m set --match-set KUBE-EXTERNAL-IP dst,dst -j KUBE-MARK-MASQ\n\
         -A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODE-PORT\n\
         -A KUBE-SERVICES -m set --match-set KUBE-CLUSTER-IP dst,dst -j ACCEPT\n\
         -A KUBE-NODE-PORT -m set --match-set KUBE-NODE-PORT-LOCAL dst,dst -j RETURN\n\
         -A KUBE-NODE-PORT -m set --match-set KUBE-NODE-PORT dst,dst -j KUBE-MARK-MASQ\n\
         -A KUBE-POSTROUTING -m set --match-set KUBE-LOOP-BACK dst,dst,src -j MASQUERADE\n\
         -A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN\n\
         -A KUBE-POSTROUTING -j MARK --xor-mark 0x4000\n\
         -A KUBE-POSTROUTING -j MASQUERADE --random-fully\n\
         COMMIT\n\
         *filter\n:KUBE-FORWARD - [0:0]\n-A FORWARD -j KUBE-FORWARD\n\
         -A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP\n\
         -A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT\n\
         -A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\nCOMMIT\n"
    )
}

/// Input of `ipvsadm --restore`; `local` are the addresses of this node's pods, `node` is its own.
pub(super) fn servers(services: &[Service], local: &[Ipv4Addr], node: Ipv4Addr) -> String {
    let mut servers = String::new();
    for service in services {
        let all: Vec<usize> = (0..service.backends.len()).collect();
        let external = service.external_backends(local);
        let mut add = |addr, port, numbers: &[usize]| {
            write_server(&mut servers, service, (addr, port), numbers).unwrap_or_default();
        };
        add(service.cluster_ip, service.port, &all);
        for addr in &service.external_ips {
            add(*addr, service.port, &external);
        }
        if let Some(port) = service.node_port {
            add(node, port, &external);
        }
    }
    servers
}

fn write_server(
    out: &mut String,
    service: &Service,
    (addr, port): (Ipv4Addr, u16),
    numbers: &[usize],
) -> std::fmt::Result {
    let protocol = if service.protocol == "udp" {
        "-u"
    } else {
        "-t"
    };
    write!(out, "-A {protocol} {addr}:{port} -s rr")?;
    if service.session_affinity {
        write!(out, " -p {AFFINITY}")?;
    }
    writeln!(out)?;
    let backends = numbers
        .iter()
        .filter_map(|number| service.backends.get(*number));
    for backend in backends {
        writeln!(out, "-a {protocol} {addr}:{port} -r {backend} -m -w 1")?;
    }
    Ok(())
}
