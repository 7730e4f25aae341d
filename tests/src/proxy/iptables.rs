//! kube-proxy's iptables shape: chains per Service and endpoint, a mark for what is masqueraded.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use super::{AFFINITY, CLUSTER_CIDR, Service};

/// Input of `iptables-restore`; `local` are the addresses of this node's pods.
pub(super) fn rules(services: &[Service], local: &[Ipv4Addr]) -> String {
    let mut chains = String::new();
    let mut rules = String::from(
        "-A PREROUTING -j KUBE-SERVICES\n\
         -A OUTPUT -j KUBE-SERVICES\n\
         -A POSTROUTING -j KUBE-POSTROUTING\n\
         -A KUBE-MARK-MASQ -j MARK --or-mark 0x4000\n\
         -A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN\n\
         -A KUBE-POSTROUTING -j MARK --xor-mark 0x4000\n\
         -A KUBE-POSTROUTING -j MASQUERADE --random-fully\n",
    );
    for service in services {
        // Writing to a String cannot fail.
        write_service(&mut chains, &mut rules, service, local).unwrap_or_default();
    }
    format!(
        "*nat\n:KUBE-SERVICES - [0:0]\n:KUBE-NODEPORTS - [0:0]\n:KUBE-POSTROUTING - [0:0]\n:KUBE-MARK-MASQ - [0:0]\n\
         {chains}{rules}-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS\nCOMMIT\n\
         *filter\n:KUBE-FORWARD - [0:0]\n-A FORWARD -j KUBE-FORWARD\n\
         -A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP\n\
         -A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT\n\
         -A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\nCOMMIT\n"
    )
}

fn write_service(
    chains: &mut String,
    rules: &mut String,
    service: &Service,
    local: &[Ipv4Addr],
) -> std::fmt::Result {
    let Service {
        name,
        cluster_ip,
        port,
        protocol,
        ..
    } = service;
    let (svc, ext, svl) = (
        format!("KUBE-SVC-{name}"),
        format!("KUBE-EXT-{name}"),
        format!("KUBE-SVL-{name}"),
    );
    writeln!(chains, ":{svc} - [0:0]")?;
    writeln!(
        rules,
        "-A KUBE-SERVICES -d {cluster_ip}/32 -p {protocol} --dport {port} -j {svc}"
    )?;
    writeln!(
        rules,
        "-A {svc} ! -s {CLUSTER_CIDR} -d {cluster_ip}/32 -p {protocol} --dport {port} -j KUBE-MARK-MASQ"
    )?;
    let all: Vec<usize> = (0..service.backends.len()).collect();
    write_choice(rules, &svc, service, &all)?;
    for number in all {
        write_endpoint(chains, rules, service, number)?;
    }
    if !service.has_external() {
        return Ok(());
    }

    writeln!(chains, ":{ext} - [0:0]")?;
    for addr in &service.external_ips {
        writeln!(
            rules,
            "-A KUBE-SERVICES -d {addr}/32 -p {protocol} --dport {port} -j {ext}"
        )?;
    }
    if let Some(node_port) = service.node_port {
        writeln!(
            rules,
            "-A KUBE-NODEPORTS -p {protocol} --dport {node_port} -j {ext}"
        )?;
    }
    if !service.local_only {
        writeln!(rules, "-A {ext} -j KUBE-MARK-MASQ")?;
        return writeln!(rules, "-A {ext} -j {svc}");
    }
    writeln!(chains, ":{svl} - [0:0]")?;
    writeln!(rules, "-A {ext} -s {CLUSTER_CIDR} -j {svc}")?;
    writeln!(
        rules,
        "-A {ext} -m addrtype --src-type LOCAL -j KUBE-MARK-MASQ"
    )?;
    writeln!(rules, "-A {ext} -m addrtype --src-type LOCAL -j {svc}")?;
    writeln!(rules, "-A {ext} -j {svl}")?;
    write_choice(rules, &svl, service, &service.external_backends(local))
}

/// One of the endpoints: the one of last time, or else a random one.
fn write_choice(
    rules: &mut String,
    chain: &str,
    service: &Service,
    numbers: &[usize],
) -> std::fmt::Result {
    let endpoint = |number: &usize| format!("KUBE-SEP-{}-{number}", service.name);
    if service.session_affinity {
        for number in numbers {
            let sep = endpoint(number);
            writeln!(
                rules,
                "-A {chain} -m recent --name {sep} --rcheck --seconds {AFFINITY} --reap --rsource -j {sep}"
            )?;
        }
    }
    for (place, number) in numbers.iter().enumerate() {
        let sep = endpoint(number);
        match u32::try_from(numbers.len() - place).unwrap_or(u32::MAX) {
            1 => writeln!(rules, "-A {chain} -j {sep}")?,
            left => writeln!(
                rules,
                "-A {chain} -m statistic --mode random --probability {:.10} -j {sep}",
                1.0 / f64::from(left)
            )?,
        }
    }
    Ok(())
}

fn write_endpoint(
    chains: &mut String,
    rules: &mut String,
    service: &Service,
    number: usize,
) -> std::fmt::Result {
    let Some(at) = service.backends.get(number) else {
        return Ok(());
    };
    let (sep, protocol) = (
        format!("KUBE-SEP-{}-{number}", service.name),
        service.protocol,
    );
    writeln!(chains, ":{sep} - [0:0]")?;
    writeln!(rules, "-A {sep} -s {}/32 -j KUBE-MARK-MASQ", at.ip())?;
    let remember = if service.session_affinity {
        format!("-m recent --name {sep} --set --rsource ")
    } else {
        String::new()
    };
    writeln!(
        rules,
        "-A {sep} -p {protocol} {remember}-m {protocol} -j DNAT --to-destination {at}"
    )
}
