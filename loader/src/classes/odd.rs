//! Which configurations are allowed, and odd?

use ipnet::Ipv4Net;
use rpc::LOADER_CONFIG;

use super::{Inputs, told_subnets};
use crate::config::{Config, key};
use crate::nic::Node;

/// What is allowed, and odd: the operator should know.
pub fn oddities(inputs: Inputs<'_>) -> Vec<String> {
    let Inputs { config, node, .. } = inputs;
    let mut odd = Vec::new();
    let vnet: Vec<Ipv4Net> = told_subnets(inputs.pools)
        .chain(node.connected.iter().copied())
        .collect();
    for service in &config.service_cidrs {
        if let Some(subnet) = vnet.iter().find(|subnet| service.contains(*subnet)) {
            odd.push(format!(
                "{LOADER_CONFIG}: serviceCidrs: {service} contains the VNet's {subnet}: all of it takes the kernel's path; write the Service range alone"
            ));
        }
    }
    let direct = [
        (key::VNET, &config.vnet_cidrs),
        (key::DIRECT, &config.direct_cidrs),
    ];
    for (key, prefixes) in &direct {
        for prefix in *prefixes {
            if let Some(route) = node.elsewhere.iter().find(|route| route.contains(prefix))
                && !vnet.iter().any(|subnet| subnet.contains(prefix))
            {
                odd.push(format!(
                    "{LOADER_CONFIG}: {key}: {prefix} has no effect: the node reaches {route} by another interface (ip route); take it out"
                ));
            }
        }
    }
    for (key, _) in direct
        .iter()
        .filter(|(_, prefixes)| prefixes.iter().any(|prefix| prefix.prefix_len() == 0))
    {
        odd.push(format!(
            "{LOADER_CONFIG}: {key}: 0.0.0.0/0 shows pods' addresses to the Internet, which cannot answer them: nothing is translated; write the prefixes that accept them"
        ));
    }
    odd.extend(denied_neighbours(config, node, &vnet));
    for prefix in &config.direct_cidrs {
        if let Some(wider) = config
            .vnet_cidrs
            .iter()
            .find(|wider| wider.contains(prefix))
        {
            odd.push(format!(
                "{LOADER_CONFIG}: directCidrs: {prefix} has no effect: it lies in {wider} of vnetCidrs; take it out"
            ));
        }
    }
    odd
}

/// Denied prefixes that take all neighbours with them. A warning only: the node may change under a configuration.
fn denied_neighbours<'a>(
    config: &'a Config,
    node: &'a Node,
    vnet: &'a [Ipv4Net],
) -> impl Iterator<Item = String> + 'a {
    config.deny_cidrs.iter().filter_map(|denied| {
        let subnet = vnet.iter().find(|subnet| denied.contains(*subnet));
        let gateway = node.gateway.filter(|gateway| denied.contains(gateway));
        let neighbours = match (subnet, gateway) {
            (Some(subnet), _) => format!("the VNet's {subnet}"),
            (None, Some(gateway)) => format!("the gateway {gateway}"),
            (None, None) => return None,
        };
        Some(format!(
            "{LOADER_CONFIG}: {}: {denied} contains {neighbours}: nothing that they send arrives while the guard runs; take it out",
            key::DENY
        ))
    })
}
