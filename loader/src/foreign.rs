//! Who else filters what pods send through the node? A fast flow passes netfilter by, and with it network policies.
//!
//! Only looks: at the tables of nftables, which hold the rules of `iptables-nft` too, and at those of `iptables-legacy` where the
//! kernel has any. What is looked for hangs on the `forward` hook, or on a chain that jumps lead to from there.

mod rules;

use std::fs;
use std::io;
use std::process::{Command, Stdio};

use rpc::LOADER_CONFIG;
use tokio::task::spawn_blocking;
use tracing::{info, warn};

use crate::config::Datapath;
use crate::daemon::Daemon;
use rules::{Chain, filters, from_iptables, from_nft, tables_with_forward};

/// Whose rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// Calico, by its chains `cali-…`.
    Calico,
    /// Azure's network policy manager, by its chains `AZURE-NPM…`.
    Npm,
    /// A rule that drops, or a policy `drop`, of nobody that we know.
    Other,
}

impl Owner {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Calico, Self::Npm, Self::Other];

    /// As metrics call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Calico => "calico",
            Self::Npm => "npm",
            Self::Other => "other",
        }
    }

    /// As sentences call it.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Calico => "Calico",
            Self::Npm => "Azure NPM",
            Self::Other => "a firewall of this node",
        }
    }
}

/// Somebody filters what is forwarded.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Filter {
    /// Who.
    pub owner: Owner,
    /// Where: `table ip filter, chain cali-FORWARD`.
    pub place: String,
    /// The rule, or the policy.
    pub rule: String,
}

/// The rules cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    /// A program cannot be started.
    #[error("look for rules that filter pods' packets: run {program}: {source}")]
    Start {
        /// Which.
        program: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// It fails.
    #[error("look for rules that filter pods' packets: {program}: {why}")]
    Failed {
        /// Which.
        program: &'static str,
        /// What it said.
        why: String,
    },
}

/// Everybody who filters what this network namespace forwards, one place each. Changes nothing; takes some ten milliseconds.
pub fn look() -> Result<Vec<Filter>, LookError> {
    let mut found = Vec::new();
    for (family, table) in tables_with_forward(&run("nft", &["list", "chains"])?) {
        // Our own chains are not on this hook.
        let text = run("nft", &["-s", "-t", "list", "table", family, table])?;
        found.extend(filters(
            &format!("table {family} {table}"),
            &from_nft(&text),
        ));
    }
    found.extend(filters("iptables-legacy, table filter", &legacy()?));
    found.sort();
    found.dedup();
    Ok(found)
}

impl Daemon {
    /// Looks for filters; tells of each when it comes, and when it goes.
    pub(crate) async fn look_for_filters(&self) {
        let found = match spawn_blocking(look).await {
            Ok(Ok(found)) => found,
            Ok(Err(why)) => return warn!(%why, "look for rules of others"),
            Err(why) => return warn!(%why, "look for rules of others"),
        };
        let before = self.foreign.replace(found.clone());
        for filter in found.iter().filter(|filter| !before.contains(filter)) {
            let (by, place, rule) = (filter.owner.title(), &filter.place, &filter.rule);
            warn!(by, place, rule, "somebody filters what the node forwards");
        }
        for filter in before.iter().filter(|filter| !found.contains(filter)) {
            info!(
                by = filter.owner.title(),
                place = filter.place,
                "filters no more"
            );
        }
    }

    /// For `vnetctl status`, while fast flows pass these rules by.
    pub(crate) fn filtered(&self) -> Option<String> {
        if self.configuration.borrow().config.datapath == Datapath::Stack {
            return None;
        }
        let found = self.foreign.borrow();
        let first = found.first()?;
        let others = match found.len() {
            1 => String::new(),
            count => format!(" and {} more", count - 1),
        };
        Some(format!(
            "{} filters what the node forwards ({}: {}){others}, but fast flows of pods pass these rules by: if they shall be \
             enforced, write `datapath: stack` in {LOADER_CONFIG}",
            first.owner.title(),
            first.place,
            first.rule,
        ))
    }
}

/// To ask for tables that are not there would make the kernel load them.
fn legacy() -> Result<Vec<Chain>, LookError> {
    let tables = fs::read_to_string("/proc/net/ip_tables_names").unwrap_or_default();
    if !tables.lines().any(|table| table == "filter") {
        return Ok(Vec::new());
    }
    match run("iptables-legacy-save", &["-t", "filter"]) {
        Ok(text) => Ok(from_iptables(&text)),
        // Whoever made them brought their own.
        Err(LookError::Start { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Ok(Vec::new())
        }
        Err(error) => Err(error),
    }
}

fn run(program: &'static str, arguments: &[&str]) -> Result<String, LookError> {
    let done = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|source| LookError::Start { program, source })?;
    if !done.status.success() {
        let why = String::from_utf8_lossy(&done.stderr).trim().to_owned();
        return Err(LookError::Failed { program, why });
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}
