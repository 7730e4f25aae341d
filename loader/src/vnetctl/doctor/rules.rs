//! Do other people's rules filter what passes them by, or translate what is ours to translate?

use std::net::Ipv4Addr;

use abi::ConfigFlags;
use ipnet::Ipv4Net;
use rpc::LOADER_CONFIG;

use super::node::Node;
use super::{Problem, some};
use crate::foreign::{Filter, OURS, filters, reached};

/// Our masquerading, for what the programs leave to the kernel.
pub(super) fn ours(node: &Node) -> Option<Problem> {
    let why = "what the programs leave to the kernel goes to the Internet with the pod's address, and never comes back; the \
               wireserver's ports are open to it";
    let remedy = "systemctl restart azure-vnet-loader; it needs nft (package nftables); find who flushes the ruleset";
    let chains = match &node.ruleset {
        Ok(chains) => chains,
        Err(error) => {
            return Some(Problem::error(
                format!("netfilter's rules cannot be read: {error}"),
                why,
                remedy,
            ));
        }
    };
    // Nothing was ever set up: others say so.
    node.config()?;
    let is_there = chains
        .iter()
        .any(|chain| chain.table == OURS && chain.kind == "nat" && !chain.rules.is_empty());
    (!is_there).then(|| Problem::error("the loader's nft table `azure-vnet` is gone", why, remedy))
}

/// Who drops forwarded packets, while fast ones pass these rules by.
pub(super) fn forward(node: &Node) -> Option<Problem> {
    let chains = node.ruleset.as_ref().ok()?;
    if node
        .config()
        .is_some_and(|config| config.flags.contains(ConfigFlags::STACK))
    {
        return None;
    }
    let found: Vec<String> = filters(chains).iter().map(Filter::to_string).collect();
    (!found.is_empty()).then(|| {
        Problem::error(
            some(&found),
            "fast packets do not meet these rules, so they protect no pod; what takes the kernel's path (Services, host ports, \
             fragments) does meet them, and may be dropped",
            format!(
                "where they must hold, write `datapath: stack` in {LOADER_CONFIG}; otherwise `iptables -P FORWARD ACCEPT`, or \
                 remove them (docs/coexistence.md)"
            ),
        )
    })
}

pub(super) fn snat(node: &Node) -> Option<Problem> {
    let chains = node.ruleset.as_ref().ok()?;
    let sources: Vec<Ipv4Addr> = node
        .config()
        .map(|config| config.primary.into())
        .into_iter()
        .chain(node.pods())
        .collect();
    let mut found = Vec::new();
    for chain in reached(chains, "postrouting", "nat") {
        let translates = |rule: &&String| {
            has(rule, &["masquerade", "snat", "MASQUERADE", "SNAT"]) && is_for(rule, &sources)
        };
        if let Some(rule) = chain.rules.iter().find(translates) {
            found.push(format!(
                "{} in {}: `{}`",
                chain.name,
                chain.table,
                short(rule)
            ));
        }
    }
    (!found.is_empty()).then(|| {
        Problem::warning(
            format!("others masquerade pods, too: {}", some(&found)),
            "ours comes first, so nothing is translated twice while the loader's table is there; their exclusions have no effect",
            "remove the rule (ip-masq-agent: its DaemonSet; azure-vnet's documentation: the MASQUERADE rule) and write its \
             exclusions into nonMasqueradeCIDRs of loader.yaml",
        )
    })
}

/// Whether the rule's verdict, or its target of iptables' own, is one of these.
fn has(rule: &str, verdicts: &[&str]) -> bool {
    let mut words = rule.split_whitespace().map(|word| word.trim_matches('"'));
    words.any(|word| verdicts.contains(&word))
}

/// Whether a rule can be meant for one of these sources: it names a range that has one, or none at all.
fn is_for(rule: &str, sources: &[Ipv4Addr]) -> bool {
    let mut words = rule
        .split_whitespace()
        .skip_while(|word| *word != "saddr")
        .skip(1);
    let Some(range) = words.next() else {
        return true;
    };
    match range
        .parse::<Ipv4Net>()
        .or_else(|_| range.parse::<Ipv4Addr>().map(Ipv4Net::from))
    {
        Ok(range) => sources.iter().any(|source| range.contains(source)),
        // `!=`, a set: who knows.
        Err(_) => true,
    }
}

/// Enough to find it.
fn short(rule: &str) -> String {
    const LONG: usize = 90;
    match rule.char_indices().nth(LONG) {
        Some((at, _)) => format!("{}…", rule.get(..at).unwrap_or_default()),
        None => rule.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_for_other_sources_is_not_for_pods() {
        let pods = [Ipv4Addr::new(10, 240, 1, 10)];
        for (rule, expected) in [
            (
                "ip saddr 172.17.0.0/16 oifname != \"docker0\" masquerade",
                false,
            ),
            ("ip saddr 10.0.0.0/8 masquerade", true),
            ("ip saddr != 10.0.0.0/8 masquerade", true),
            ("oifname \"eth0\" masquerade", true),
            ("ip saddr 10.240.1.11 masquerade", false),
        ] {
            assert_eq!(is_for(rule, &pods), expected, "{rule}");
        }
    }
}
