//! What the loader does about leaked addresses that it finds twice in a row: those that leak beyond doubt it frees, as `vnetctl ipam
//! gc` does, and of all others it warns.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::Path;

use rpc::Key;
use tokio::task::spawn_blocking;
use tracing::{error, info, warn};

use crate::alive::Task;
use crate::daemon::Daemon;
use crate::leaks::{self, Holding, State};
use crate::{ipam, report};

/// What earlier looks have found.
#[derive(Debug, Default)]
pub(crate) struct Reclaim {
    /// What leaked when it was last looked, and whose it was.
    leaked: BTreeSet<(Ipv4Addr, Key)>,
    /// Why some of them could not be freed.
    stuck: BTreeMap<Ipv4Addr, String>,
    /// Those of which nothing proves that their pods are gone.
    doubtful: BTreeSet<Ipv4Addr>,
    /// Why the last look found nothing out.
    blind: Option<String>,
    /// Freed since the start.
    pub(crate) freed: u64,
}

impl Reclaim {
    /// Those that leaked the last time, too, and beyond doubt: of those new here a DEL may be on its way.
    fn due(&mut self, mut found: Vec<Holding>) -> Vec<Holding> {
        let of = |holding: &Holding| (holding.address, holding.key.clone());
        found.retain(|holding| holding.state == State::Leaked);
        let now = found.iter().map(of).collect();
        let before = std::mem::replace(&mut self.leaked, now);
        self.stuck
            .retain(|address, _| found.iter().any(|holding| holding.address == *address));
        found.retain(|holding| before.contains(&of(holding)));
        let (proven, doubtful) = found.into_iter().partition(|holding| holding.is_proven);
        self.doubt(doubtful);
        proven
    }

    fn doubt(&mut self, found: Vec<Holding>) {
        let mut doubtful = BTreeSet::new();
        for Holding {
            address, key, why, ..
        } in found
        {
            if !self.doubtful.contains(&address) {
                warn!(%address, owner = %key, why, "an address looks leaked, which nothing proves: see vnetctl ipam check");
            }
            doubtful.insert(address);
        }
        self.doubtful = doubtful;
    }

    /// Nothing was seen, so nothing was seen twice in a row.
    fn saw_nothing(&mut self, why: String) {
        if self.blind.as_ref() != Some(&why) {
            error!(why, "look for leaked addresses");
        }
        *self = Self {
            blind: Some(why),
            freed: self.freed,
            ..Self::default()
        };
    }

    fn tried(&mut self, holding: &Holding, done: anyhow::Result<bool>) {
        let (address, owner, why) = (holding.address, &holding.key, &holding.why);
        match done {
            Ok(true) => {
                info!(%address, %owner, why, "freed an address that nobody would have given back; chained plug-ins such as portmap were not asked, see docs/troubleshooting.md");
                self.freed += 1;
            }
            Ok(false) => {}
            Err(error) => {
                let error = report::one_line(&error);
                if self.stuck.get(&address) != Some(&error) {
                    warn!(%address, %owner, why, error, "an address leaks and cannot be freed");
                }
                self.stuck.insert(address, error);
                return;
            }
        }
        self.stuck.remove(&address);
    }

    /// How many were not freed.
    pub(crate) fn left(&self) -> usize {
        self.stuck.len() + self.doubtful.len()
    }

    /// What the operator should know.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let mut warnings: Vec<String> = self.blind.iter().cloned().collect();
        if let Some(error) = self.stuck.values().next() {
            let addresses: Vec<String> = self.stuck.keys().map(ToString::to_string).collect();
            warnings.push(format!(
                "{} addresses are given to pods that are gone and cannot be freed ({}): {error}; see `vnetctl ipam check`, free them with `vnetctl ipam gc`",
                addresses.len(),
                addresses.join(", ")
            ));
        }
        if !self.doubtful.is_empty() {
            let addresses: Vec<String> = self.doubtful.iter().map(ToString::to_string).collect();
            warnings.push(format!(
                "{} addresses look leaked, but nothing proves that their pods are gone, so they stay ({}): see `vnetctl ipam check`, free them with `vnetctl ipam gc` or `vnetctl ipam free`",
                addresses.len(),
                addresses.join(", ")
            ));
        }
        warnings
    }
}

impl Daemon {
    /// Looks for addresses that nobody uses and nobody will give back, and frees those of which that is proven and was the last
    /// time, too.
    pub(crate) async fn reclaim_leaks(&self) {
        let run = self.run.clone();
        let looking = spawn_blocking(move || leaks::holdings(&run));
        let found = match self.alive.at_work(Task::Leaks, looking).await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => return self.reclaim.borrow_mut().saw_nothing(error.to_string()),
            Err(error) => return error!(%error, "look for leaked addresses"),
        };
        self.reclaim.borrow_mut().blind = None;
        let due = self.reclaim.borrow_mut().due(found);
        for holding in due {
            let leaked = holding.clone();
            let freeing = spawn_blocking(move || ipam::free(Path::new(ipam::BIN), &leaked));
            let done = self.alive.at_work(Task::Leaks, freeing).await;
            let done = done.map_err(Into::into).and_then(|done| done);
            self.reclaim.borrow_mut().tried(&holding, done);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holding(last: u8, owner: &str, state: State) -> Holding {
        Holding {
            address: Ipv4Addr::new(10, 240, 0, last),
            key: Key {
                network: "azure".into(),
                container_id: owner.into(),
                ifname: "eth0".into(),
            },
            pod: String::new(),
            netns: String::new(),
            state,
            why: String::new(),
            is_ours: true,
            is_taken_over: false,
            is_gone: true,
            is_proven: true,
            is_blind: false,
        }
    }

    #[test]
    fn only_what_leaks_twice_in_a_row_and_is_the_same_owners_is_freed() {
        let leaked = |last, owner| holding(last, owner, State::Leaked);
        let mut reclaim = Reclaim::default();
        let mut due = |found: &[Holding]| reclaim.due(found.to_vec());
        assert_eq!(due(&[leaked(5, "a"), leaked(6, "b")]), []);
        let busy = holding(6, "b", State::Busy);
        assert_eq!(due(&[leaked(5, "a"), busy]), [leaked(5, "a")]);
        assert_eq!(due(&[leaked(5, "other"), leaked(6, "b")]), []);
        assert_eq!(due(&[leaked(6, "b")]), [leaked(6, "b")]);
        reclaim.saw_nothing("blind".into());
        assert_eq!(reclaim.due(vec![leaked(6, "b")]), []);
    }

    #[test]
    fn what_is_not_proven_is_never_freed_and_warned_of_when_seen_twice() {
        let one = Holding {
            is_proven: false,
            ..holding(5, "a", State::Leaked)
        };
        let mut reclaim = Reclaim::default();
        for left in [0, 1, 1] {
            assert_eq!(reclaim.due(vec![one.clone()]), []);
            assert_eq!((reclaim.warnings().len(), reclaim.left()), (left, left));
        }
        let [warning] = <[String; 1]>::try_from(reclaim.warnings()).unwrap();
        for words in [
            "10.240.0.5",
            "vnetctl ipam check",
            "vnetctl ipam gc",
            "vnetctl ipam free",
        ] {
            assert!(warning.contains(words), "{warning}");
        }
        assert_eq!(reclaim.due(Vec::new()), []);
        assert_eq!((reclaim.warnings(), reclaim.left()), (Vec::new(), 0));
    }

    #[test]
    fn what_cannot_be_freed_is_warned_of_until_it_is_gone() {
        let one = holding(5, "a", State::Leaked);
        let mut reclaim = Reclaim::default();
        reclaim.tried(&one, Err(anyhow::anyhow!("no plug-in")));
        let [warning] = <[String; 1]>::try_from(reclaim.warnings()).unwrap();
        assert!(
            warning.contains("10.240.0.5") && warning.contains("no plug-in"),
            "{warning}"
        );
        reclaim.due(vec![one.clone()]);
        assert_eq!(reclaim.warnings().len(), 1);
        reclaim.tried(&one, Ok(true));
        assert_eq!((reclaim.warnings(), reclaim.freed), (Vec::new(), 1));
    }
}
