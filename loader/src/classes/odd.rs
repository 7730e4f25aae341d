//! Which configurations are allowed, and odd?

use ipnet::Ipv4Net;
use rpc::LOADER_CONFIG;

use super::{Inputs, told_subnets};
use crate::config::key;

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
    for (key, prefixes) in direct {
        for prefix in prefixes {
            if let Some(route) = node.elsewhere.iter().find(|route| route.contains(prefix))
                && !vnet.iter().any(|subnet| subnet.contains(prefix))
            {
                odd.push(format!(
                    "{LOADER_CONFIG}: {key}: {prefix} has no effect: the node reaches {route} by another interface (ip route); take it out"
                ));
            }
        }
    }
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
