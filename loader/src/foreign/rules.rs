//! What rules say, as far as it matters whether they filter what is forwarded.

use std::collections::BTreeSet;

use super::{Filter, Owner};

/// A chain of one table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Chain {
    pub(super) name: String,
    /// Whether the kernel starts here with what is forwarded.
    pub(super) is_forward: bool,
    pub(super) drops_by_default: bool,
    pub(super) rules: Vec<String>,
}

/// Families and names of nft's tables that have a chain on the `forward` hook, from `nft list chains`.
pub(super) fn tables_with_forward(listing: &str) -> BTreeSet<(&str, &str)> {
    let mut table = None;
    let mut found = BTreeSet::new();
    for line in listing.lines() {
        let mut words = line.split_whitespace();
        match (words.next(), words.next(), words.next()) {
            (Some("table"), Some(family @ ("ip" | "inet")), Some(name)) => {
                table = Some((family, name));
            }
            (Some("table"), ..) => table = None,
            _ if is_forward(line) => found.extend(table),
            _ => {}
        }
    }
    found
}

/// `type filter hook forward priority filter; policy accept;`
fn is_forward(line: &str) -> bool {
    line.trim_start().starts_with("type filter hook forward ")
}

/// The chains of `nft list table`.
pub(super) fn from_nft(text: &str) -> Vec<Chain> {
    let mut chains: Vec<Chain> = Vec::new();
    let mut is_inside = false;
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("chain ") {
            let name = name.trim_end_matches('{').trim().to_owned();
            chains.push(Chain {
                name,
                ..Chain::default()
            });
            is_inside = true;
        } else if line == "}" {
            is_inside = false;
        } else if let Some(chain) = chains.last_mut().filter(|_| is_inside) {
            if line.starts_with("type ") {
                chain.is_forward = is_forward(line);
                chain.drops_by_default = line.contains("policy drop");
            } else if !line.is_empty() {
                chain.rules.push(line.to_owned());
            }
        }
    }
    chains
}

/// The chains of `iptables-save -t filter`: `:FORWARD DROP [0:0]`, `-A FORWARD -j cali-FORWARD`.
pub(super) fn from_iptables(text: &str) -> Vec<Chain> {
    let mut chains: Vec<Chain> = Vec::new();
    for line in text.lines() {
        if let Some(declared) = line.strip_prefix(':') {
            let mut words = declared.split_whitespace();
            let name = words.next().unwrap_or_default().to_owned();
            chains.push(Chain {
                is_forward: name == "FORWARD",
                drops_by_default: words.next() == Some("DROP"),
                name,
                rules: Vec::new(),
            });
        } else if let Some(rule) = line.strip_prefix("-A ")
            && let Some((name, rule)) = rule.split_once(' ')
            && let Some(chain) = chains.iter_mut().find(|chain| chain.name == name)
        {
            chain.rules.push(rule.to_owned());
        }
    }
    chains
}

/// Who filters what is forwarded, by the chains of one table.
pub(super) fn filters(table: &str, chains: &[Chain]) -> Vec<Filter> {
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    let starts = chains.iter().filter(|chain| chain.is_forward);
    let mut ahead: Vec<&Chain> = starts.collect();
    while let Some(chain) = ahead.pop() {
        if !seen.insert(chain.name.as_str()) || is_harmless(&chain.name) {
            continue;
        }
        if let Some((owner, rule)) = filter_of(chain) {
            found.push(Filter {
                owner,
                place: format!("{table}, chain {}", chain.name),
                rule,
            });
            // One place tells of Calico and NPM; they have hundreds.
            if owner != Owner::Other {
                continue;
            }
        }
        let targets = chain.rules.iter().filter_map(|rule| target(rule));
        ahead.extend(targets.filter_map(|name| chains.iter().find(|chain| chain.name == name)));
    }
    found
}

fn filter_of(chain: &Chain) -> Option<(Owner, String)> {
    let whole = || chain.rules.first().cloned().unwrap_or_default();
    if chain.name.contains("cali-") {
        return Some((Owner::Calico, whole()));
    }
    if chain.name.starts_with("AZURE-NPM") {
        return Some((Owner::Npm, whole()));
    }
    if chain.drops_by_default {
        return Some((Owner::Other, "policy drop".into()));
    }
    let mut rules = chain.rules.iter();
    let rule = rules.find(|rule| drops(rule) && !is_about_others(rule))?;
    Some((Owner::Other, rule.clone()))
}

/// Chains that every node with kube-proxy, portmap or Docker has. They drop what no policy is about: packets that connection
/// tracking calls invalid, Services without endpoints, containers of Docker.
fn is_harmless(chain: &str) -> bool {
    ["KUBE-", "DOCKER", "CNI-"]
        .iter()
        .any(|prefix| chain.starts_with(prefix))
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
    let is_verdict = |word: &str| matches!(word, "drop" | "reject" | "DROP" | "REJECT");
    // Of `iptables-nft`, as an nft without its extensions prints it.
    words(rule).any(is_verdict) || rule.contains("xt target \"REJECT\"")
}

/// The chain that a rule leads to.
fn target(rule: &str) -> Option<&str> {
    let mut words = words(rule).skip_while(|word| !matches!(*word, "jump" | "goto" | "-j" | "-g"));
    words.nth(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_nft(rules: &str) -> Vec<(Owner, String)> {
        let text = format!("table ip filter {{\n{rules}\n}}\n");
        let found = filters("table ip filter", &from_nft(&text)).into_iter();
        found.map(|filter| (filter.owner, filter.rule)).collect()
    }

    fn forward(policy: &str, rules: &str) -> String {
        format!(
            "chain FORWARD {{\ntype filter hook forward priority filter; policy {policy};\n{rules}\n}}"
        )
    }

    #[test]
    fn tables_are_found_by_their_hook() {
        let listing = "table ip filter {\n\tchain FORWARD {\n\t\ttype filter hook forward priority filter; policy accept;\n\t}\n}\n\
                       table ip nat {\n\tchain X {\n\t\ttype nat hook postrouting priority srcnat; policy accept;\n\t}\n}\n\
                       table ip6 filter {\n\tchain FORWARD {\n\t\ttype filter hook forward priority filter; policy accept;\n\t}\n}\n\
                       table inet fw {\n\tchain f {\n\t\ttype filter hook forward priority 0; policy drop;\n\t}\n}\n";
        let found = tables_with_forward(listing);
        assert_eq!(found, [("inet", "fw"), ("ip", "filter")].into());
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
            [(Owner::Other, "tcp dport 22 counter reject".to_owned())]
        );
        let xt = "counter packets 0 bytes 0 xt target \"REJECT\"";
        assert_eq!(
            of_nft(&forward("accept", xt)),
            [(Owner::Other, xt.to_owned())]
        );
    }

    #[test]
    fn calico_and_npm_are_known_by_their_chains_and_told_once() {
        let rules = forward(
            "accept",
            "counter jump cali-FORWARD\ncounter jump AZURE-NPM",
        ) + "\nchain cali-FORWARD {\njump cali-from-wl\n}\nchain cali-from-wl {\ndrop\n}\nchain AZURE-NPM {\njump AZURE-NPM-INGRESS\n}\n\
               chain AZURE-NPM-INGRESS {\ndrop\n}";
        let owners: Vec<_> = of_nft(&rules).into_iter().map(|(owner, _)| owner).collect();
        assert_eq!(owners, [Owner::Npm, Owner::Calico]);
        let save = "*filter\n:INPUT DROP [0:0]\n:FORWARD ACCEPT [0:0]\n:cali-FORWARD - [0:0]\n\
                    -A FORWARD -m comment --comment \"cali:x\" -j cali-FORWARD\n-A INPUT -j DROP\nCOMMIT\n";
        let found = filters("legacy", &from_iptables(save));
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].owner, Owner::Calico);
        let save = save
            .replace("cali-FORWARD", "mine")
            .replace("-A INPUT", "-A mine -s 10.0.0.1/32");
        let found = filters("legacy", &from_iptables(&save));
        assert_eq!(found[0].owner, Owner::Other);
        assert_eq!(found[0].rule, "-s 10.0.0.1/32 -j DROP");
    }
}
