//! Do other people's rules filter what passes them by, or translate what is ours to translate?

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::node::Node;
use super::ruleset::Chain;
use super::{Problem, some};

const OURS: &str = "ip azure-vnet";
/// Chains that carry out `NetworkPolicy`, by whom.
const POLICIES: [(&str, &str); 6] = [
    ("cali-", "Calico"),
    ("AZURE-NPM", "Azure Network Policy Manager"),
    ("KUBE-NWPLCY", "kube-router"),
    ("KUBE-POD-FW", "kube-router"),
    ("WEAVE-NPC", "Weave"),
    ("CILIUM_", "Cilium"),
];
/// Whose chains belong here: kube-proxy's and portmap's.
const FRIENDS: [&str; 2] = ["KUBE-", "CNI-"];
const FRIENDLY_TABLES: [&str; 2] = [OURS, "ip kube-proxy"];

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

/// Who drops forwarded packets: a policy, `NetworkPolicy`, a firewall.
pub(super) fn forward(node: &Node) -> Option<Problem> {
    let chains = node.ruleset.as_ref().ok()?;
    let mut found = BTreeSet::new();
    for chain in reached(chains, "forward", "") {
        if let Some((_, whose)) = POLICIES
            .iter()
            .find(|(prefix, _)| chain.name.starts_with(prefix))
        {
            found.insert(format!(
                "chains of {whose} ({} in {})",
                chain.name, chain.table
            ));
            continue;
        }
        let place = format!("{} in {}", chain.name, chain.table);
        if chain.drops {
            found.insert(format!("{place} has policy drop"));
        }
        let rule = chain
            .rules
            .iter()
            .find(|rule| has(rule, &["drop", "reject", "DROP", "REJECT"]));
        if let Some(rule) = rule {
            found.insert(format!("{place} has `{}`", short(rule)));
        }
    }
    let found: Vec<String> = found.into_iter().collect();
    (!found.is_empty()).then(|| {
        Problem::error(
            format!("rules filter forwarded packets: {}", some(&found)),
            "fast packets do not meet them, so they protect no pod; what takes the kernel's path (Services, host ports, \
             fragments) does meet them, and may be dropped",
            "where they must hold, do not use the fast path on this node; otherwise `iptables -P FORWARD ACCEPT`, or remove them \
             (docs/coexistence.md)",
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

/// The chains that a packet at `hook` can meet, those of friends left out.
fn reached<'a>(chains: &'a [Chain], hook: &str, kind: &str) -> Vec<&'a Chain> {
    let is_start = |chain: &&Chain| chain.hook == hook && (kind.is_empty() || chain.kind == kind);
    let mut found: Vec<&Chain> = chains
        .iter()
        .filter(is_start)
        .filter(|chain| is_foreign(chain))
        .collect();
    let mut next = 0;
    while let Some(chain) = found.get(next).copied() {
        next += 1;
        for target in chain.rules.iter().filter_map(|rule| target(rule)) {
            let mut same_table = chains.iter().filter(|other| other.table == chain.table);
            if let Some(other) = same_table.find(|other| other.name == target)
                && is_foreign(other)
                && !found.contains(&other)
            {
                found.push(other);
            }
        }
    }
    found
}

fn is_foreign(chain: &Chain) -> bool {
    let policy = POLICIES
        .iter()
        .any(|(prefix, _)| chain.name.starts_with(prefix));
    let friend = FRIENDS.iter().any(|prefix| chain.name.starts_with(prefix));
    policy || !(friend || FRIENDLY_TABLES.contains(&chain.table.as_str()))
}

/// The chain that a rule leads to.
fn target(rule: &str) -> Option<&str> {
    let mut words = rule.split_whitespace();
    words.find(|word| ["jump", "goto"].contains(word))?;
    words.next()
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

/// Without counters, which are different each time.
fn short(rule: &str) -> String {
    const LONG: usize = 90;
    let mut words = rule.split_whitespace();
    let mut kept = Vec::new();
    while let Some(word) = words.next() {
        if word == "counter" {
            // packets N bytes N
            words.nth(3);
        } else {
            kept.push(word);
        }
    }
    let text = kept.join(" ");
    match text.char_indices().nth(LONG) {
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
        None => text,
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

    #[test]
    fn a_rule_is_shown_without_its_counters() {
        assert_eq!(
            short("ip protocol tcp counter packets 1 bytes 2 drop"),
            "ip protocol tcp drop"
        );
    }
}
