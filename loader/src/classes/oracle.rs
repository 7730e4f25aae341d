//! The table of `docs/configuration.md` as it reads, row by row, against the prefixes that `classify` makes of it.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use abi::Class;
use ipnet::Ipv4Net;
use proptest::collection::vec;
use proptest::prelude::*;

use super::tests::{node, pools, rule};
use super::{IMDS, Inputs, WIRESERVER, classify};
use crate::config::{Config, Imds};
use crate::masq::Masq;
use crate::nic::Node;

/// A node with its configuration.
#[derive(Clone, Debug)]
struct World {
    config: Config,
    masq: Masq,
    node: Node,
    told: Option<Ipv4Net>,
}

/// Class, whether the kernel masquerades, and the row that decided.
type Answer = (Class, bool, u8);

fn is_in(addr: Ipv4Addr, prefixes: &[Ipv4Net]) -> bool {
    prefixes.iter().any(|prefix| prefix.contains(&addr))
}

fn within(addr: Ipv4Addr, prefixes: &[&str]) -> bool {
    let prefixes: Vec<Ipv4Net> = prefixes.iter().map(|text| text.parse().unwrap()).collect();
    is_in(addr, &prefixes)
}

/// The table, first match.
fn oracle(world: &World, addr: Ipv4Addr) -> Answer {
    let World {
        config,
        masq,
        node,
        told,
    } = world;
    let rfc_1918 = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"];
    let has_list = config.non_masquerade_cidrs.is_some() || !masq.files.is_empty();
    let mut listed = config.non_masquerade_cidrs.clone().unwrap_or_default();
    listed.extend(masq.prefixes.iter().map(|(prefix, _)| *prefix));
    let if_services_known = |class| match config.service_cidrs.as_slice() {
        [] => Class::Stack,
        _ => class,
    };

    if node.addresses.contains(&addr) {
        (Class::Stack, false, 2)
    } else if addr == WIRESERVER {
        (Class::Wireserver, false, 3)
    } else if addr == IMDS {
        let denied = config.imds == Imds::Deny;
        (if denied { Class::Deny } else { Class::Snat }, true, 4)
    } else if within(addr, &["169.254.0.0/16"]) {
        let wanted = config.masq_link_local || masq.link_local.is_some();
        (Class::Stack, wanted && !is_in(addr, &listed), 5)
    } else if within(
        addr,
        &[
            "0.0.0.0/8",
            "127.0.0.0/8",
            "224.0.0.0/4",
            "255.255.255.255/32",
        ],
    ) {
        (Class::Stack, false, 5)
    } else if is_in(addr, &config.service_cidrs) {
        (Class::Stack, false, 6)
    } else if told.is_some_and(|subnet| subnet.contains(&addr)) {
        (Class::Direct, false, 7)
    } else if is_in(addr, &node.elsewhere) {
        (Class::Stack, false, 8)
    } else if is_in(addr, &node.connected)
        || is_in(addr, &config.vnet_cidrs)
        || is_in(addr, &config.direct_cidrs)
    {
        (Class::Direct, false, 9)
    } else if if has_list {
        is_in(addr, &listed)
    } else {
        within(addr, &rfc_1918)
    } {
        (if_services_known(Class::Direct), false, 10)
    } else if within(addr, &rfc_1918) {
        (if_services_known(Class::Snat), true, 11)
    } else if within(
        addr,
        &[
            "100.64.0.0/10",
            "192.0.0.0/24",
            "198.18.0.0/15",
            "240.0.0.0/4",
        ],
    ) {
        (if_services_known(Class::Snat), true, 12)
    } else {
        (Class::Snat, true, 13)
    }
}

/// Prefixes of any length, near the addresses that the table knows, so that they overlap.
fn prefix() -> impl Strategy<Value = Ipv4Net> {
    (address(), 0_u8..=32).prop_map(|(addr, len)| Ipv4Net::new(addr, len).unwrap().trunc())
}

/// Any address, most of them near those that the table knows.
fn address() -> impl Strategy<Value = Ipv4Addr> {
    let known = prop::sample::select(vec![
        [10, 0, 0, 0],
        [10, 240, 0, 4],
        [100, 64, 0, 0],
        [127, 0, 0, 1],
        [168, 63, 129, 16],
        [169, 254, 169, 254],
        [172, 16, 0, 0],
        [192, 0, 0, 0],
        [192, 168, 0, 0],
        [198, 18, 0, 0],
        [224, 0, 0, 0],
        [255, 255, 255, 255],
        [8, 8, 8, 8],
    ]);
    let near = (known, 0_u32..=32, any::<u32>()).prop_map(|(octets, bits, noise)| {
        let mask = u32::MAX.checked_shr(32 - bits).unwrap_or(0);
        Ipv4Addr::from(u32::from_be_bytes(octets) ^ (noise & mask))
    });
    prop_oneof![6 => near, 1 => any::<u32>().prop_map(Ipv4Addr::from)]
}

fn prefixes() -> impl Strategy<Value = Vec<Ipv4Net>> {
    vec(prefix(), 0..4)
}

prop_compose! {
    fn config()(
        vnet_cidrs in prefixes(),
        direct_cidrs in prefixes(),
        non_masquerade_cidrs in prop::option::of(prefixes()),
        service_cidrs in prefixes(),
        masq_link_local: bool,
        deny: bool,
    ) -> Config {
        let imds = if deny { Imds::Deny } else { Imds::Snat };
        Config { vnet_cidrs, direct_cidrs, non_masquerade_cidrs, masq_link_local, service_cidrs, imds, ..Config::default() }
    }
}

prop_compose! {
    fn world()(
        config in config(),
        listed in prop::option::of(prefixes()),
        link_local: bool,
        connected in prefixes(),
        elsewhere in prefixes(),
        addresses in vec(address(), 0..4),
        told in prop::option::of(prefix()),
    ) -> World {
        let file = PathBuf::from("ip-masq-agent");
        let masq = listed.map_or_else(Masq::default, |prefixes| Masq {
            prefixes: prefixes.into_iter().map(|prefix| (prefix, file.clone())).collect(),
            link_local: link_local.then(|| file.clone()),
            files: vec![file],
            warnings: Vec::new(),
        });
        World { config, masq, node: Node { connected, elsewhere, addresses, ..node() }, told }
    }
}

/// The edges of every prefix, and the addresses just outside: where a mistake would show.
fn edges(world: &World) -> Vec<Ipv4Addr> {
    let World {
        config,
        masq,
        node,
        told,
    } = world;
    let lists = [
        &config.vnet_cidrs,
        &config.direct_cidrs,
        &config.service_cidrs,
        &node.connected,
        &node.elsewhere,
    ];
    let listed = config.non_masquerade_cidrs.iter().flatten();
    let prefixes = lists.into_iter().flatten().chain(listed).chain(told);
    let prefixes = prefixes.chain(masq.prefixes.iter().map(|(prefix, _)| prefix));
    let ends = prefixes.flat_map(|prefix| {
        let (first, last) = (u32::from(prefix.network()), u32::from(prefix.broadcast()));
        [first, last, first.wrapping_sub(1), last.wrapping_add(1)]
    });
    ends.map(Ipv4Addr::from)
        .chain(node.addresses.iter().copied())
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn every_address_gets_the_class_of_the_first_row_that_fits(world in world(), addrs in vec(address(), 20)) {
        let told = world.told.map(pools);
        let rules = classify(Inputs { config: &world.config, masq: &world.masq, node: &world.node, pools: told.as_ref() });
        for addr in addrs.into_iter().chain(edges(&world)) {
            let rule = rule(&rules, addr);
            let answer = (rule.class, rule.masquerade, rule.why.row);
            prop_assert_eq!(answer, oracle(&world, addr), "{} by {:?}", addr, rule);
        }
    }

    #[test]
    fn no_address_of_a_service_is_ever_fast(world in world(), addrs in vec(address(), 20)) {
        let told = world.told.map(pools);
        let rules = classify(Inputs { config: &world.config, masq: &world.masq, node: &world.node, pools: told.as_ref() });
        for addr in addrs.into_iter().chain(edges(&world)) {
            let is_platform = addr == WIRESERVER || addr == IMDS;
            if is_in(addr, &world.config.service_cidrs) && !is_platform {
                prop_assert_eq!(rule(&rules, addr).class, Class::Stack, "{}", addr);
            }
        }
    }
}
