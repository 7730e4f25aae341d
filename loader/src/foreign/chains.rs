//! Netfilter's chains as they are, nft's and iptables', in one shape.
//!
//! `nft` has the tables of nftables and of iptables-nft; those of iptables-legacy only `iptables-legacy-save` has.

use std::collections::BTreeSet;
use std::fs;
use std::io;

use super::LookError;
use crate::bounded::{RunError, run};

/// A chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Chain {
    /// `ip filter`, or `legacy filter`.
    pub(crate) table: String,
    pub(crate) name: String,
    /// `nat`, `filter`; empty for a chain that is only jumped to.
    pub(crate) kind: String,
    /// `forward`, `postrouting`, …; empty for a chain that is only jumped to.
    pub(crate) hook: String,
    /// Whether what no rule decides is dropped.
    pub(crate) drops: bool,
    /// As nft writes them, without counters.
    pub(crate) rules: Vec<String>,
}

/// All of them.
pub(crate) fn everything() -> Result<Vec<Chain>, LookError> {
    let mut chains = from_nft(&run("nft", &["-s", "-t", "list", "ruleset"])?);
    chains.extend(legacy(&[])?);
    Ok(chains)
}

/// Those of the tables that see what is forwarded, and what keeps those of iptables-legacy from being read: it wants `CAP_NET_RAW`, which the
/// loader's unit has not. With kube-proxy's and others' thousands of rules that is much less.
pub(super) fn of_forward() -> Result<(Vec<Chain>, Option<LookError>), LookError> {
    let mut chains = Vec::new();
    for table in tables_with_forward(&run("nft", &["list", "chains"])?) {
        let list = ["-s", "-t", "list", "table"];
        let line: Vec<&str> = list.into_iter().chain(table.split(' ')).collect();
        chains.extend(from_nft(&run("nft", &line)?));
    }
    let unread = match legacy(&["-t", "filter"]) {
        Ok(found) => {
            chains.extend(found);
            None
        }
        Err(error) => Some(error),
    };
    Ok((chains, unread))
}

/// Of `nft list chains`, which says nothing of rules.
fn tables_with_forward(listing: &str) -> BTreeSet<String> {
    let chains = from_nft(listing).into_iter();
    let forward = chains.filter(|chain| chain.hook == "forward");
    forward.map(|chain| chain.table).collect()
}

/// To ask for tables that are not there would make the kernel load them.
fn legacy(which: &[&str]) -> Result<Vec<Chain>, LookError> {
    let tables = fs::read_to_string("/proc/thread-self/net/ip_tables_names").unwrap_or_default();
    let wanted = which.last();
    if !tables
        .lines()
        .any(|table| wanted.is_none_or(|wanted| table == *wanted))
    {
        return Ok(Vec::new());
    }
    match run("iptables-legacy-save", which) {
        Ok(text) => Ok(from_legacy(&text)),
        // Whoever made them brought their own.
        Err(RunError::Start { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Ok(Vec::new())
        }
        Err(error) => Err(error.into()),
    }
}

/// nft writes a line per rule, and a line per brace that closes.
pub(super) fn from_nft(text: &str) -> Vec<Chain> {
    let (mut chains, mut table): (Vec<Chain>, _) = (Vec::new(), String::new());
    let mut open: Option<Chain> = None;
    for line in text.lines().map(str::trim) {
        let named = |kind: &str| {
            line.strip_prefix(kind)?
                .strip_suffix(" {")
                .map(str::to_owned)
        };
        if let Some(name) = named("table ") {
            table = name;
        } else if let Some(name) = named("chain ") {
            open = Some(Chain {
                table: table.clone(),
                name,
                ..Chain::default()
            });
        } else if line == "}" {
            chains.extend(open.take());
        } else if let Some(chain) = &mut open {
            chain.line(line);
        }
    }
    chains
}

impl Chain {
    fn line(&mut self, line: &str) {
        let Some(base) = line.strip_prefix("type ") else {
            return self.rules.push(without_counters(line));
        };
        let mut words = base.split_whitespace();
        words.next().unwrap_or_default().clone_into(&mut self.kind);
        words.nth(1).unwrap_or_default().clone_into(&mut self.hook);
        self.drops = base.contains("policy drop");
    }
}

/// They are different each time.
fn without_counters(rule: &str) -> String {
    let mut words = rule.split(' ').peekable();
    let mut kept = Vec::new();
    while let Some(word) = words.next() {
        if word != "counter" {
            kept.push(word);
        } else if words.peek() == Some(&"packets") {
            // packets N bytes N
            words.nth(3);
        }
    }
    kept.join(" ")
}

/// `iptables-save`'s lines, in nft's words.
pub(super) fn from_legacy(text: &str) -> Vec<Chain> {
    let (mut chains, mut table): (Vec<Chain>, _) = (Vec::new(), String::new());
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            [name] if name.starts_with('*') => {
                table = format!("legacy {}", name.trim_start_matches('*'));
            }
            [name, policy, ..] if name.starts_with(':') => {
                let name = name.trim_start_matches(':').to_owned();
                let is_base = *policy != "-";
                let kind = table.trim_start_matches("legacy ").to_owned();
                chains.push(Chain {
                    table: table.clone(),
                    kind: if is_base { kind } else { String::new() },
                    hook: if is_base {
                        name.to_lowercase()
                    } else {
                        String::new()
                    },
                    drops: *policy == "DROP",
                    name,
                    rules: Vec::new(),
                });
            }
            ["-A", name, rule @ ..] => {
                let chain = chains
                    .iter_mut()
                    .find(|chain| chain.table == table && chain.name == *name);
                if let Some(chain) = chain {
                    chain.rules.push(legacy_rule(rule));
                }
            }
            _ => {}
        }
    }
    chains
}

/// `-s 10.0.0.0/8 -j MASQUERADE` as `ip saddr 10.0.0.0/8 masquerade`.
fn legacy_rule(words: &[&str]) -> String {
    let mut rule = Vec::new();
    let mut words = words.iter().peekable();
    while let Some(word) = words.next() {
        match *word {
            "-s" => rule.push("ip saddr".to_owned()),
            "-j" | "-g" => match words.next().copied().unwrap_or_default() {
                target @ ("DROP" | "REJECT" | "MASQUERADE" | "SNAT" | "ACCEPT" | "RETURN") => {
                    rule.push(target.to_lowercase());
                }
                chain => rule.push(format!("jump {chain}")),
            },
            other => rule.push(other.to_owned()),
        }
    }
    rule.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_of_nft_have_their_hook_policy_and_rules() {
        let chains = from_nft(
            "table ip filter {\n\tset s {\n\t\ttype ipv4_addr\n\t\telements = { 1.2.3.4 }\n\t}\n\n\tchain FORWARD {\n\
             \t\ttype filter hook forward priority filter; policy drop;\n\t\tcounter packets 0 bytes 0 jump KUBE-FORWARD\n\t}\n\n\
             \tchain KUBE-FORWARD {\n\t}\n}\n",
        );
        let [forward, kube] = chains.as_slice() else {
            panic!("{chains:?}");
        };
        assert_eq!((forward.hook.as_str(), forward.drops), ("forward", true));
        assert_eq!(forward.rules, ["jump KUBE-FORWARD"]);
        assert_eq!((kube.table.as_str(), kube.hook.as_str()), ("ip filter", ""));
    }

    #[test]
    fn a_rule_is_the_same_whatever_it_has_counted() {
        for (rule, expected) in [
            (
                "ip protocol tcp counter packets 1 bytes 2 drop",
                "ip protocol tcp drop",
            ),
            ("counter jump KUBE-FORWARD", "jump KUBE-FORWARD"),
        ] {
            assert_eq!(without_counters(rule), expected);
        }
    }

    #[test]
    fn tables_are_found_by_their_hook() {
        let listing = "table ip filter {\n\tchain FORWARD {\n\t\ttype filter hook forward priority filter; policy accept;\n\t}\n}\n\
                       table ip nat {\n\tchain X {\n\t\ttype nat hook postrouting priority srcnat; policy accept;\n\t}\n}\n\
                       table inet fw {\n\tchain f {\n\t\ttype filter hook forward priority 0; policy drop;\n\t}\n}\n";
        let found = tables_with_forward(listing);
        assert_eq!(found, ["inet fw".to_owned(), "ip filter".to_owned()].into());
    }

    #[test]
    fn chains_of_iptables_legacy_look_the_same() {
        let chains = from_legacy(
            "*nat\n:POSTROUTING ACCEPT [0:0]\n:MASQ - [0:0]\n-A POSTROUTING -s 10.0.0.0/8 -j MASQ\n-A MASQ -j MASQUERADE\nCOMMIT\n",
        );
        let [base, masq] = chains.as_slice() else {
            panic!("{chains:?}");
        };
        assert_eq!(
            (base.kind.as_str(), base.hook.as_str()),
            ("nat", "postrouting")
        );
        assert_eq!(base.rules, ["ip saddr 10.0.0.0/8 jump MASQ"]);
        assert_eq!(
            (masq.hook.as_str(), masq.rules.as_slice()),
            ("", &["masquerade".to_owned()][..])
        );
    }
}
