//! Which addresses there are to give, and in which order.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use rpc::{Interface, Pools, Subnet};

use super::IpamError;

/// Addresses that can be given to pods, all of one subnet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pool {
    pub(super) prefix: Ipv4Net,
    pub(super) gateway: Ipv4Addr,
    /// Whether it is for whoever names neither subnet nor NIC: pods' traffic leaves by the primary NIC, and the platform drops there
    /// what comes from another one's address.
    pub(super) is_for_anybody: bool,
    /// Ascending.
    pub(super) addresses: Vec<Ipv4Addr>,
}

/// The pools that may be used, best first: the primary NIC's, then larger ones, then by prefix.
pub(super) fn usable(
    pools: &Pools,
    subnet: Option<Ipv4Net>,
    master: Option<&str>,
) -> Result<Vec<Pool>, IpamError> {
    let primaries: BTreeSet<Ipv4Addr> = subnets(pools)
        .filter_map(|(_, subnet)| subnet.primary)
        .collect();
    let is_named = subnet.is_some() || master.is_some();
    let has_primary = pools.interfaces.iter().any(|nic| nic.is_primary);
    let mut found: Vec<(bool, Pool)> = subnets(pools)
        .filter(|(nic, _)| master.is_none_or(|master| nic.name == master))
        .filter(|(_, candidate)| {
            subnet.is_none_or(|wanted| candidate.prefix.trunc() == wanted.trunc())
        })
        .map(|(nic, subnet)| {
            let is_for_anybody = is_named || nic.is_primary || !has_primary;
            let pool = Pool {
                is_for_anybody,
                ..pool(subnet, &primaries)
            };
            (nic.is_primary, pool)
        })
        .collect();
    if found.is_empty() {
        if let Some(subnet) = subnet {
            return Err(IpamError::NoSuchSubnet { subnet });
        }
        if let Some(master) = master {
            return Err(IpamError::NoSuchMaster {
                master: master.to_owned(),
            });
        }
    }
    found.sort_by_key(|(is_primary, pool)| {
        (!is_primary, usize::MAX - pool.addresses.len(), pool.prefix)
    });
    Ok(found.into_iter().map(|(_, pool)| pool).collect())
}

fn subnets(pools: &Pools) -> impl Iterator<Item = (&Interface, &Subnet)> {
    pools
        .interfaces
        .iter()
        .flat_map(|nic| nic.subnets.iter().map(move |subnet| (nic, subnet)))
}

/// Whatever the source lists: the node's own, the gateway's, the network's and the broadcast address are nobody's.
fn pool(subnet: &Subnet, primaries: &BTreeSet<Ipv4Addr>) -> Pool {
    let (prefix, gateway) = (subnet.prefix.trunc(), subnet.gateway());
    let reserved = [gateway, prefix.network(), prefix.broadcast()];
    let addresses: BTreeSet<Ipv4Addr> = subnet
        .secondary
        .iter()
        .copied()
        .filter(|address| {
            prefix.contains(address) && !reserved.contains(address) && !primaries.contains(address)
        })
        .collect();
    Pool {
        prefix,
        gateway,
        is_for_anybody: true,
        addresses: addresses.into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nic(name: &str, is_primary: bool, subnets: &[(&str, &str, &[&str])]) -> Interface {
        Interface {
            name: name.into(),
            mac: rpc::MacAddr([2; 6]),
            is_primary,
            subnets: subnets
                .iter()
                .map(|(prefix, primary, secondary)| Subnet {
                    prefix: prefix.parse().unwrap(),
                    primary: Some(primary.parse().unwrap()),
                    secondary: secondary.iter().map(|ip| ip.parse().unwrap()).collect(),
                })
                .collect(),
        }
    }

    fn node() -> Pools {
        Pools {
            boot_id: String::new(),
            source: "wireserver".into(),
            read_at_ms: 0,
            interfaces: vec![
                nic(
                    "eth1",
                    false,
                    &[(
                        "10.9.0.0/16",
                        "10.9.0.4",
                        &["10.9.0.5", "10.9.0.6", "10.9.0.7"],
                    )],
                ),
                nic(
                    "eth0",
                    true,
                    &[
                        ("10.2.0.0/24", "10.2.0.4", &["10.2.0.5"]),
                        ("10.1.0.0/24", "10.1.0.4", &["10.1.0.6"]),
                        ("10.3.0.0/24", "10.3.0.4", &["10.3.0.5", "10.3.0.6"]),
                    ],
                ),
            ],
        }
    }

    /// Unless none is said to be the primary one.
    #[test]
    fn a_secondary_nics_addresses_are_only_for_those_who_name_it() {
        let for_anybody = |node: &Pools, subnet: Option<&str>, master| -> Vec<String> {
            let pools = usable(node, subnet.map(|text| text.parse().unwrap()), master).unwrap();
            let pools = pools.iter().filter(|pool| pool.is_for_anybody);
            pools.map(|pool| pool.prefix.to_string()).collect()
        };
        let mut node = node();
        assert_eq!(
            for_anybody(&node, None, None),
            ["10.3.0.0/24", "10.1.0.0/24", "10.2.0.0/24"]
        );
        for (subnet, master) in [(Some("10.9.0.0/16"), None), (None, Some("eth1"))] {
            assert_eq!(for_anybody(&node, subnet, master), ["10.9.0.0/16"]);
        }
        node.interfaces[1].is_primary = false;
        assert_eq!(for_anybody(&node, None, None).len(), 4);
    }

    fn prefixes(subnet: Option<&str>, master: Option<&str>) -> Vec<String> {
        usable(&node(), subnet.map(|text| text.parse().unwrap()), master)
            .unwrap()
            .iter()
            .map(|pool| pool.prefix.to_string())
            .collect()
    }

    #[test]
    fn the_primary_nic_comes_first_then_larger_pools_then_the_prefix() {
        assert_eq!(
            prefixes(None, None),
            ["10.3.0.0/24", "10.1.0.0/24", "10.2.0.0/24", "10.9.0.0/16"]
        );
        assert_eq!(prefixes(None, Some("eth1")), ["10.9.0.0/16"]);
        assert_eq!(prefixes(Some("10.2.0.0/24"), None), ["10.2.0.0/24"]);
    }

    #[test]
    fn an_unknown_subnet_or_master_is_told_in_azures_words() {
        let subnet = usable(&node(), Some("10.7.0.0/24".parse().unwrap()), None).unwrap_err();
        assert!(
            subnet
                .to_string()
                .contains("Pool id 10.7.0.0/24 not found :Invalid address pool")
        );
        let master = usable(&node(), None, Some("eth7")).unwrap_err();
        assert!(master.to_string().contains("no available address pools"));
    }

    #[test]
    fn reserved_addresses_are_never_given_even_if_listed() {
        let mut pools = node();
        pools.interfaces = vec![nic(
            "eth0",
            true,
            &[
                (
                    "10.1.0.0/24",
                    "10.1.0.4",
                    &[
                        "10.1.0.0",
                        "10.1.0.1",
                        "10.1.0.4",
                        "10.1.0.9",
                        "10.1.0.255",
                        "10.8.0.1",
                    ],
                ),
                ("10.2.0.0/24", "10.1.0.9", &[]),
            ],
        )];
        let usable = usable(&pools, None, None).unwrap();
        assert!(
            usable.iter().all(|pool| pool.addresses.is_empty()),
            "{usable:?}"
        );
    }
}
