//! The judge: which rules filter what is forwarded, and whose are they?

use std::collections::BTreeSet;

use super::{Chain, Filter, Owner};

/// What chains that carry out policies have in their names, and whose they are.
const POLICIES: [(&str, Owner); 7] = [
    ("cali-", Owner::Calico),
    ("AZURE-NPM", Owner::Npm),
    ("KUBE-NWPLCY", Owner::KubeRouter),
    ("KUBE-POD-FW", Owner::KubeRouter),
    ("KUBE-ROUTER", Owner::KubeRouter),
    ("WEAVE-NPC", Owner::Weave),
    ("CILIUM_", Owner::Cilium),
];
/// Chains that every node with kube-proxy, portmap or Docker has. They drop what no policy is about: packets that connection
/// tracking calls invalid, Services without endpoints, containers of Docker.
const HARMLESS: [&str; 3] = ["KUBE-", "DOCKER", "CNI-"];
/// Ours, and kube-proxy's own.
const HARMLESS_TABLES: [&str; 2] = [OURS, "ip kube-proxy"];
/// Our masquerading.
pub(crate) const OURS: &str = "ip azure-vnet";

/// Who filters what is forwarded.
pub(crate) fn filters(chains: &[Chain]) -> Vec<Filter> {
    let mut told = BTreeSet::new();
    let mut found = Vec::new();
    for chain in reached(chains, "forward", "") {
        let Some((owner, rule)) = filter_of(chain) else {
            continue;
        };
        // One place tells of a policy; they have hundreds.
        if owner == Owner::Other || told.insert((owner, &chain.table)) {
            found.push(Filter {
                owner,
                place: format!("table {}, chain {}", chain.table, chain.name),
                rule,
            });
        }
    }
    found.sort();
    found.dedup();
    found
}

/// The chains that an IPv4 packet at `hook` can meet, of this kind or of any; not those that every node has.
pub(crate) fn reached<'a>(chains: &'a [Chain], hook: &str, kind: &str) -> Vec<&'a Chain> {
    let is_start = |chain: &&Chain| chain.hook == hook && (kind.is_empty() || chain.kind == kind);
    let starts = chains.iter().filter(is_start);
    let mut found: Vec<&Chain> = starts.filter(|chain| counts(chain)).collect();
    let mut next = 0;
    while let Some(chain) = found.get(next).copied() {
        next += 1;
        for target in chain.rules.iter().filter_map(|rule| target(rule)) {
            let mut same_table = chains.iter().filter(|other| other.table == chain.table);
            if let Some(other) = same_table.find(|other| other.name == target)
                && counts(other)
                && !found.contains(&other)
            {
                found.push(other);
            }
        }
    }
    found
}

fn counts(chain: &Chain) -> bool {
    let family = chain.table.split(' ').next().unwrap_or_default();
    if !["ip", "inet", "legacy"].contains(&family) {
        return false;
    }
    let is_harmless = HARMLESS.iter().any(|start| chain.name.starts_with(start))
        || HARMLESS_TABLES.contains(&chain.table.as_str());
    policy(chain).is_some() || !is_harmless
}

/// Whose policies it carries out.
fn policy(chain: &Chain) -> Option<Owner> {
    let mut known = POLICIES.iter();
    let (_, owner) = known.find(|(part, _)| chain.name.contains(part))?;
    Some(*owner)
}

fn filter_of(chain: &Chain) -> Option<(Owner, String)> {
    if let Some(owner) = policy(chain) {
        return Some((owner, chain.rules.first().cloned().unwrap_or_default()));
    }
    if chain.drops {
        return Some((Owner::Other, "policy drop".into()));
    }
    let mut rules = chain.rules.iter();
    let rule = rules.find(|rule| drops(rule) && !is_about_others(rule))?;
    Some((Owner::Other, rule.clone()))
}

/// Rules that cannot be about pods that fast flows are of: what connection tracking calls invalid is not fast, and bridges are
/// not the pods'.
fn is_about_others(rule: &str) -> bool {
    let invalid = ["ct state invalid", "--ctstate INVALID "];
    let bridges = [
        "name \"docker",
        "name \"br-",
        "-i docker",
        "-o docker",
        "-i br-",
        "-o br-",
    ];
    invalid
        .iter()
        .chain(&bridges)
        .any(|part| rule.contains(part))
}

/// The words of a rule outside of comments.
fn words(rule: &str) -> impl Iterator<Item = &str> {
    rule.split('"').step_by(2).flat_map(str::split_whitespace)
}

fn drops(rule: &str) -> bool {
    let is_verdict = |word: &str| matches!(word, "drop" | "reject");
    // Of `iptables-nft`, as an nft without its extensions prints it.
    words(rule).any(is_verdict) || rule.contains("xt target \"REJECT\"")
}

/// The chain that a rule leads to.
fn target(rule: &str) -> Option<&str> {
    let mut words = words(rule).skip_while(|word| !matches!(*word, "jump" | "goto"));
    words.nth(1)
}

#[cfg(test)]
mod tests {
    use super::super::chains::{from_legacy, from_nft};
    use super::*;

    fn of_nft(rules: &str) -> Vec<(Owner, String)> {
        let text = format!("table ip filter {{\n{rules}\n}}\n");
        let found = filters(&from_nft(&text)).into_iter();
        found.map(|filter| (filter.owner, filter.rule)).collect()
    }

    fn forward(policy: &str, rules: &str) -> String {
        format!(
            "chain FORWARD {{\ntype filter hook forward priority filter; policy {policy};\n{rules}\n}}"
        )
    }

    #[test]
    fn what_kube_proxy_portmap_and_docker_do_is_no_filter() {
        for rules in [
            forward("accept", ""),
            forward(
                "accept",
                "counter jump KUBE-FORWARD\ncounter jump DOCKER-USER",
            ) + "\nchain KUBE-FORWARD {\nct state invalid counter drop\n}\nchain DOCKER-USER {\ncounter drop\n}",
            forward("accept", "iifname \"docker0\" oifname != \"docker0\" drop"),
            forward("accept", "ct state invalid counter drop"),
            forward("accept", "ip saddr 10.0.0.1 accept comment \"do not drop\""),
            // Nothing leads there.
            forward("accept", "") + "\nchain unused {\ncounter drop\n}",
            "chain INPUT {\ntype filter hook input priority filter; policy drop;\n}".to_owned(),
        ] {
            assert_eq!(of_nft(&rules), [], "{rules}");
        }
    }

    #[test]
    fn policies_and_rules_that_drop_are_found_behind_jumps_too() {
        let policy = (Owner::Other, "policy drop".to_owned());
        assert_eq!(of_nft(&forward("drop", "")), [policy]);
        let rules = forward("accept", "counter jump first")
            + "\nchain first {\nip daddr 10.0.0.0/8 goto second\njump first\n}\nchain second {\ntcp dport 22 counter reject\n}";
        assert_eq!(
            of_nft(&rules),
            [(Owner::Other, "tcp dport 22 reject".to_owned())]
        );
        let xt = "counter packets 0 bytes 0 xt target \"REJECT\"";
        assert_eq!(
            of_nft(&forward("accept", xt)),
            [(Owner::Other, "xt target \"REJECT\"".to_owned())]
        );
    }

    #[test]
    fn the_policies_of_kube_router_are_not_taken_for_kube_proxys() {
        let rules = forward("accept", "jump KUBE-ROUTER-FORWARD\njump KUBE-FORWARD")
            + "\nchain KUBE-ROUTER-FORWARD {\njump KUBE-POD-FW-1\n}\nchain KUBE-POD-FW-1 {\ndrop\n}\nchain KUBE-FORWARD {\ndrop\n}";
        let owners: Vec<_> = of_nft(&rules).into_iter().map(|(owner, _)| owner).collect();
        assert_eq!(owners, [Owner::KubeRouter]);
    }

    #[test]
    fn what_is_not_ipv4s_or_kube_proxys_own_is_no_filter() {
        let rules = forward("drop", "");
        for (table, expected) in [
            ("ip6 filter", 0),
            ("ip kube-proxy", 0),
            ("bridge x", 0),
            ("inet x", 1),
        ] {
            let text = format!("table {table} {{\n{rules}\n}}\n");
            assert_eq!(filters(&from_nft(&text)).len(), expected, "{table}");
        }
    }

    #[test]
    fn calico_and_npm_are_known_by_their_chains_and_told_once() {
        let rules = forward(
            "accept",
            "counter jump cali-FORWARD\ncounter jump AZURE-NPM",
        ) + "\nchain cali-FORWARD {\njump cali-from-wl\n}\nchain cali-from-wl {\ndrop\n}\nchain AZURE-NPM {\njump AZURE-NPM-INGRESS\n}\n\
               chain AZURE-NPM-INGRESS {\ndrop\n}";
        let owners: Vec<_> = of_nft(&rules).into_iter().map(|(owner, _)| owner).collect();
        assert_eq!(owners, [Owner::Calico, Owner::Npm]);
        let save = "*filter\n:INPUT DROP [0:0]\n:FORWARD ACCEPT [0:0]\n:cali-FORWARD - [0:0]\n\
                    -A FORWARD -m comment --comment \"cali:x\" -j cali-FORWARD\n-A INPUT -j DROP\nCOMMIT\n";
        let found = filters(&from_legacy(save));
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].owner, Owner::Calico);
        let save = save
            .replace("cali-FORWARD", "mine")
            .replace("-A INPUT", "-A mine -s 10.0.0.1/32");
        let found = filters(&from_legacy(&save));
        assert_eq!(found[0].owner, Owner::Other);
        assert_eq!(found[0].rule, "ip saddr 10.0.0.1/32 drop");
    }
}
