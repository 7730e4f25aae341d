//! kube-proxy's nftables shape: verdict maps from address and port to a chain per Service.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use super::{AFFINITY, CLUSTER_CIDR, Service};

/// Input of `nft -f`; `local` are the addresses of this node's pods, `node` is its own.
pub(super) fn rules(services: &[Service], local: &[Ipv4Addr], node: Ipv4Addr) -> String {
    let mut chains = String::new();
    let (mut ips, mut ports) = (Vec::new(), Vec::new());
    for service in services {
        let (name, protocol, port) = (&service.name, service.protocol, service.port);
        ips.push(format!(
            "{} . {protocol} . {port} : goto service-{name}",
            service.cluster_ip
        ));
        for addr in &service.external_ips {
            ips.push(format!(
                "{addr} . {protocol} . {port} : goto external-{name}"
            ));
        }
        if let Some(node_port) = service.node_port {
            ports.push(format!("{protocol} . {node_port} : goto external-{name}"));
        }
        // Writing to a String cannot fail.
        write_service(&mut chains, service, local).unwrap_or_default();
    }
    format!(
        "table ip kube-proxy {{\n\
         set nodeport-ips {{ type ipv4_addr; elements = {{ {node} }}; }}\n\
         chain mark-for-masquerade {{ meta mark set meta mark | 0x4000; }}\n\
         {chains}\
         map service-ips {{ type ipv4_addr . inet_proto . inet_service : verdict; {} }}\n\
         map service-nodeports {{ type inet_proto . inet_service : verdict; {} }}\n\
         chain services {{\n\
         ip daddr . meta l4proto . th dport vmap @service-ips\n\
         ip daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports\n}}\n\
         chain masquerading {{\n\
         meta mark & 0x4000 == 0 return\n\
         meta mark set meta mark ^ 0x4000\n\
         masquerade fully-random\n}}\n\
         chain nat-prerouting {{ type nat hook prerouting priority dstnat; jump services; }}\n\
         chain nat-output {{ type nat hook output priority -100; jump services; }}\n\
         chain nat-postrouting {{ type nat hook postrouting priority srcnat; jump masquerading; }}\n\
         }}\n",
        elements(&ips),
        elements(&ports)
    )
}

fn elements(elements: &[String]) -> String {
    if elements.is_empty() {
        return String::new();
    }
    format!("elements = {{ {} }};", elements.join(", "))
}

fn write_service(out: &mut String, service: &Service, local: &[Ipv4Addr]) -> std::fmt::Result {
    let Service {
        name,
        cluster_ip,
        protocol,
        port,
        ..
    } = service;
    for number in 0..service.backends.len() {
        write_endpoint(out, service, number)?;
    }
    writeln!(out, "chain service-{name} {{")?;
    writeln!(
        out,
        "ip daddr {cluster_ip} {protocol} dport {port} ip saddr != {CLUSTER_CIDR} jump mark-for-masquerade"
    )?;
    let all: Vec<usize> = (0..service.backends.len()).collect();
    write_choice(out, service, &all)?;
    writeln!(out, "}}")?;
    if !service.has_external() {
        return Ok(());
    }
    writeln!(out, "chain external-{name} {{")?;
    if service.local_only {
        writeln!(out, "ip saddr {CLUSTER_CIDR} goto service-{name}")?;
        writeln!(out, "fib saddr type local jump mark-for-masquerade")?;
        writeln!(out, "fib saddr type local goto service-{name}")?;
        write_choice(out, service, &service.external_backends(local))?;
    } else {
        writeln!(out, "jump mark-for-masquerade")?;
        writeln!(out, "goto service-{name}")?;
    }
    writeln!(out, "}}")
}

/// One of the endpoints: the one of last time, or else a random one.
fn write_choice(out: &mut String, service: &Service, numbers: &[usize]) -> std::fmt::Result {
    let name = &service.name;
    if service.session_affinity {
        for number in numbers {
            writeln!(
                out,
                "ip saddr @affinity-{name}-{number} goto endpoint-{name}-{number}"
            )?;
        }
    }
    let places: Vec<String> = numbers
        .iter()
        .enumerate()
        .map(|(place, number)| format!("{place} : goto endpoint-{name}-{number}"))
        .collect();
    if places.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "numgen random mod {} vmap {{ {} }}",
        places.len(),
        places.join(", ")
    )
}

fn write_endpoint(out: &mut String, service: &Service, number: usize) -> std::fmt::Result {
    let Some(at) = service.backends.get(number) else {
        return Ok(());
    };
    let (name, protocol) = (&service.name, service.protocol);
    if service.session_affinity {
        writeln!(
            out,
            "set affinity-{name}-{number} {{ type ipv4_addr; flags dynamic,timeout; timeout {AFFINITY}s; }}"
        )?;
    }
    writeln!(out, "chain endpoint-{name}-{number} {{")?;
    writeln!(out, "ip saddr {} jump mark-for-masquerade", at.ip())?;
    if service.session_affinity {
        writeln!(out, "update @affinity-{name}-{number} {{ ip saddr }}")?;
    }
    writeln!(
        out,
        "meta l4proto {protocol} dnat to {}:{}",
        at.ip(),
        at.port()
    )?;
    writeln!(out, "}}")
}
