//! Netfilter's chains as they are, nft's and iptables', in one shape.
//!
//! `nft list ruleset` has the tables of nftables and of iptables-nft; those of iptables-legacy only `iptables-legacy-save` has.

use std::fs;

use anyhow::{Context as _, ensure};

use crate::vnetctl::bounded;

/// A chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Chain {
    /// `ip filter`, or `legacy filter`.
    pub(super) table: String,
    pub(super) name: String,
    /// `nat`, `filter`; empty for a chain that is only jumped to.
    pub(super) kind: String,
    /// `forward`, `postrouting`, …; empty for a chain that is only jumped to.
    pub(super) hook: String,
    /// Whether what no rule decides is dropped.
    pub(super) drops: bool,
    /// As nft writes them, shortened.
    pub(super) rules: Vec<String>,
}

/// All of them, or why they cannot be had.
pub(super) fn read_ruleset() -> Result<Vec<Chain>, String> {
    let all = || {
        let mut chains = parse_nft(&output("nft", &["list", "ruleset"])?);
        // To ask iptables-legacy would load its modules.
        let legacy =
            fs::read_to_string("/proc/thread-self/net/ip_tables_names").unwrap_or_default();
        if !legacy.trim().is_empty() {
            chains.extend(parse_legacy(&output("iptables-legacy-save", &[])?));
        }
        anyhow::Ok(chains)
    };
    all().map_err(|error| crate::report::one_line(&error))
}

fn output(program: &str, args: &[&str]) -> anyhow::Result<String> {
    let run = bounded(program).args(args).output();
    let run = run.with_context(|| format!("run {program}"))?;
    // As `timeout` tells it.
    ensure!(run.status.code() != Some(124), "{program} hangs");
    ensure!(
        run.status.success(),
        "{program}: {}",
        String::from_utf8_lossy(&run.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&run.stdout).into_owned())
}

/// nft writes a line per rule, and a line per brace that closes.
fn parse_nft(text: &str) -> Vec<Chain> {
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
            return self.rules.push(line.to_owned());
        };
        let mut words = base.split_whitespace();
        words.next().unwrap_or_default().clone_into(&mut self.kind);
        words.nth(1).unwrap_or_default().clone_into(&mut self.hook);
        self.drops = base.contains("policy drop");
    }
}

/// `iptables-save`'s lines, in nft's words.
fn parse_legacy(text: &str) -> Vec<Chain> {
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
        let chains = parse_nft(
            "table ip filter {\n\tset s {\n\t\ttype ipv4_addr\n\t\telements = { 1.2.3.4 }\n\t}\n\n\tchain FORWARD {\n\
             \t\ttype filter hook forward priority filter; policy drop;\n\t\tcounter packets 0 bytes 0 jump KUBE-FORWARD\n\t}\n\n\
             \tchain KUBE-FORWARD {\n\t}\n}\n",
        );
        let [forward, kube] = chains.as_slice() else {
            panic!("{chains:?}");
        };
        assert_eq!((forward.hook.as_str(), forward.drops), ("forward", true));
        assert_eq!(
            forward.rules,
            ["counter packets 0 bytes 0 jump KUBE-FORWARD"]
        );
        assert_eq!((kube.table.as_str(), kube.hook.as_str()), ("ip filter", ""));
    }

    #[test]
    fn chains_of_iptables_legacy_look_the_same() {
        let chains = parse_legacy(
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
