//! `ipsToRouteViaHost` of the conflist: addresses that pods reach through the node's own stack, whatever their class.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use abi::Class;
use ipnet::Ipv4Net;
use rpc::Endpoint;

use crate::classes::{Rule, Why};

/// The addresses that the conflists of these attachments name.
pub fn addresses(endpoints: &[Endpoint]) -> BTreeSet<Ipv4Addr> {
    endpoints
        .iter()
        .flat_map(|endpoint| endpoint.via_host.iter().copied())
        .collect()
}

/// Adds them to `rules`, longest prefix first. An address that has a rule of its own, such as the wireserver, keeps it, and so
/// does one that takes the stack already.
pub fn add(mut rules: Vec<Rule>, addresses: &BTreeSet<Ipv4Addr>) -> Vec<Rule> {
    for &address in addresses {
        let covering = rules.iter().find(|rule| rule.prefix.contains(&address));
        let masquerade = match covering {
            Some(rule) if rule.prefix.prefix_len() == 32 || rule.class == Class::Stack => continue,
            Some(rule) => rule.masquerade,
            None => false,
        };
        let rule = Rule {
            prefix: Ipv4Net::from(address),
            class: Class::Stack,
            masquerade,
            why: Why {
                row: 6,
                text: "ipsToRouteViaHost of the conflist",
                file: None,
            },
        };
        rules.insert(0, rule);
    }
    rules
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(prefix: &str, class: Class, masquerade: bool) -> Rule {
        Rule {
            prefix: prefix.parse().unwrap(),
            class,
            masquerade,
            why: Why {
                row: 1,
                text: "",
                file: None,
            },
        }
    }

    #[test]
    fn an_address_gets_the_stack_unless_it_has_it_or_a_rule_of_its_own() {
        let rules = vec![
            rule("168.63.129.16/32", Class::Wireserver, false),
            rule("169.254.0.0/16", Class::Stack, false),
            rule("10.0.0.0/8", Class::Direct, false),
            rule("0.0.0.0/0", Class::Snat, true),
        ];
        let wanted = ["168.63.129.16", "169.254.20.10", "10.0.0.10", "1.1.1.1"];
        let added = add(
            rules.clone(),
            &wanted.map(|text| text.parse().unwrap()).into(),
        );
        let new: Vec<(String, Class, bool)> = added
            .iter()
            .filter(|rule| !rules.contains(rule))
            .map(|rule| (rule.prefix.to_string(), rule.class, rule.masquerade))
            .collect();
        assert_eq!(
            new,
            [
                ("10.0.0.10/32".into(), Class::Stack, false),
                ("1.1.1.1/32".into(), Class::Stack, true)
            ]
        );
    }
}
