//! Who else filters what pods send through the node? A fast flow passes netfilter by, and with it network policies.
//!
//! Only looks: at the tables of nftables, which hold the rules of `iptables-nft` too, and at those of `iptables-legacy` where the
//! kernel has any. What is looked for hangs on the `forward` hook, or on a chain that jumps lead to from there.

mod chains;
mod rules;

use std::fmt;

use rpc::LOADER_CONFIG;
use tokio::task::spawn_blocking;
use tracing::{info, warn};

use crate::bounded::RunError;
use crate::config::Datapath;
use crate::daemon::Daemon;
use chains::of_forward;
pub(crate) use chains::{Chain, everything};
pub(crate) use rules::{OURS, filters, reached};

/// Whose rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// Calico, by its chains `cali-…`.
    Calico,
    /// Azure's network policy manager, by its chains `AZURE-NPM…`.
    Npm,
    /// kube-router, by its chains `KUBE-ROUTER…`, `KUBE-NWPLCY…` and `KUBE-POD-FW…`.
    KubeRouter,
    /// Weave, by its chains `WEAVE-NPC…`.
    Weave,
    /// Cilium, by its chains `CILIUM_…`.
    Cilium,
    /// A rule that drops, or a policy `drop`, of nobody that we know.
    Other,
}

impl Owner {
    /// Every kind.
    pub const ALL: [Self; 6] = [
        Self::Calico,
        Self::Npm,
        Self::KubeRouter,
        Self::Weave,
        Self::Cilium,
        Self::Other,
    ];

    /// As metrics call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Calico => "calico",
            Self::Npm => "npm",
            Self::KubeRouter => "kube-router",
            Self::Weave => "weave",
            Self::Cilium => "cilium",
            Self::Other => "other",
        }
    }

    /// As sentences call it.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Calico => "Calico",
            Self::Npm => "Azure NPM",
            Self::KubeRouter => "kube-router",
            Self::Weave => "Weave",
            Self::Cilium => "Cilium",
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

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { owner, place, rule } = self;
        write!(
            f,
            "{} filters what the node forwards ({place}: {rule})",
            owner.title()
        )
    }
}

impl Filter {
    /// Whether only `iptables-legacy-save` sees it.
    fn is_legacy(&self) -> bool {
        self.place.starts_with("table legacy ")
    }
}

/// Of a node where iptables-legacy has rules and the loader may not read them.
pub(crate) const UNSEEN: &str =
    "rules of iptables-legacy that filter what the node forwards would not be noticed";

/// The rules cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("look for rules that filter pods' packets: {0}")]
pub struct LookError(#[from] RunError);

/// Everybody who filters what this network namespace forwards, one place each, and what kept others from being seen. Changes nothing;
/// takes some ten milliseconds.
pub fn look() -> Result<(Vec<Filter>, Option<LookError>), LookError> {
    let (chains, unread) = of_forward()?;
    Ok((filters(&chains), unread))
}

impl Daemon {
    /// Looks for filters; tells of each when it comes, and when it goes.
    pub(crate) async fn look_for_filters(&self) {
        let (mut found, unread) = match spawn_blocking(look).await {
            Ok(Ok(looked)) => looked,
            Ok(Err(why)) => return warn!(%why, "look for rules of others"),
            Err(why) => return warn!(%why, "look for rules of others"),
        };
        if unread.is_some() {
            // Who was there may still be.
            let before = self.foreign.borrow();
            let legacy = before.iter().filter(|filter| filter.is_legacy());
            found.extend(legacy.cloned());
        }
        let unread = unread.map(|why| why.to_string());
        let before = self.unread.replace(unread.clone());
        match unread {
            Some(why) if before.is_none() => warn!(why, "{UNSEEN}"),
            None if before.is_some() => info!("rules of iptables-legacy are seen again"),
            Some(_) | None => {}
        }
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

    /// For `vnetctl status`, while fast flows pass by rules that nobody sees.
    pub(crate) fn unseen(&self) -> Option<String> {
        if self.configuration.borrow().config.datapath == Datapath::Stack {
            return None;
        }
        let unread = self.unread.borrow();
        let why = unread.as_ref()?;
        Some(format!("{why}: {UNSEEN}; `vnetctl doctor` sees them"))
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
            "{first}{others}, but fast flows of pods pass these rules by: if they shall be enforced, write `datapath: stack` in \
             {LOADER_CONFIG}",
        ))
    }
}
