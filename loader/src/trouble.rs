//! What is wrong and cannot be mended from here? Told in the log when it begins and when it ends, in the status while it
//! lasts, and to STATUS when pods that are there may not be connected as they should be.

use std::collections::{BTreeMap, BTreeSet};

use tracing::{info, warn};

use crate::daemon::Daemon;

/// What it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Topic {
    /// The lock that keeps other loaders away.
    Lock,
    /// The file system for pins, and the pins.
    Pins,
    /// The NIC.
    Nic,
    /// Programs on interfaces, records and maps.
    Programs,
    /// Sysctls.
    Settings,
    /// The node's own ports.
    Ports,
    /// Links, routes and neighbours.
    Stack,
    /// Others' programs in front of ours.
    Strangers,
    /// Somebody who undoes what is repaired.
    Fight,
    /// The kernel's check of sources, which nobody needs while ours are there.
    Sources,
}

impl Topic {
    /// Every one.
    pub(crate) const ALL: [Self; 10] = [
        Self::Lock,
        Self::Pins,
        Self::Nic,
        Self::Programs,
        Self::Settings,
        Self::Ports,
        Self::Stack,
        Self::Strangers,
        Self::Fight,
        Self::Sources,
    ];

    /// As metrics call it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Lock => "lock",
            Self::Pins => "pins",
            Self::Nic => "nic",
            Self::Programs => "programs",
            Self::Settings => "settings",
            Self::Ports => "ports",
            Self::Stack => "stack",
            Self::Strangers => "strangers",
            Self::Fight => "fight",
            Self::Sources => "sources",
        }
    }

    /// Whether pods may be connected badly now. Strangers are asked for, more often than not; a clash of ports is rare;
    /// what is fought about is whole most of the time.
    fn limits(self) -> bool {
        !matches!(
            self,
            Self::Strangers | Self::Ports | Self::Fight | Self::Sources
        )
    }
}

/// Interfaces, by index, and what is wrong with each. None has the index 0: it stands for the node.
pub(crate) type WrongLinks = BTreeMap<u32, String>;

/// Of so many interfaces it is told what is wrong with them.
const TOLD: usize = 3;

#[derive(Debug, Default)]
struct Trouble {
    wrong: String,
    /// On which interfaces.
    links: BTreeSet<u32>,
}

/// What is wrong now.
#[derive(Debug, Default)]
pub(crate) struct Troubles(BTreeMap<Topic, Trouble>);

impl Troubles {
    /// Everything.
    pub(crate) fn all(&self) -> impl Iterator<Item = &String> {
        self.0.values().map(|trouble| &trouble.wrong)
    }

    /// What limits pods.
    pub(crate) fn limiting(&self) -> Vec<String> {
        let limiting = self.0.iter().filter(|(topic, _)| topic.limits());
        limiting.map(|(_, trouble)| trouble.wrong.clone()).collect()
    }

    /// Whether something is wrong.
    pub(crate) fn has(&self, topic: Topic) -> bool {
        self.0.contains_key(&topic)
    }

    /// The interfaces with which something is wrong.
    pub(crate) fn links(&self, topic: Topic) -> BTreeSet<u32> {
        let trouble = self.0.get(&topic);
        trouble.map_or_else(BTreeSet::new, |trouble| trouble.links.clone())
    }
}

/// The same reason is told once, and of many the first few.
fn summary(wrong: &WrongLinks) -> Option<String> {
    let reasons: BTreeSet<&str> = wrong.values().map(String::as_str).collect();
    let told: Vec<&str> = reasons.iter().copied().take(TOLD).collect();
    let more = match reasons.len().saturating_sub(TOLD) {
        0 => String::new(),
        more => format!("; and {more} more, see the loader's log"),
    };
    (!told.is_empty()).then(|| told.join("; ") + &more)
}

impl Daemon {
    /// Says what is wrong with something; `None`: nothing is, or nothing any more.
    pub(crate) fn judge(&self, topic: Topic, wrong: Option<String>) {
        self.judge_all(topic, wrong, BTreeSet::new());
    }

    /// The same after a look at interfaces, among which were all of [`Troubles::links`]: a look that leaves one of those out
    /// says nothing of it.
    pub(crate) fn judge_links(&self, topic: Topic, wrong: &WrongLinks) {
        self.judge_all(topic, summary(wrong), wrong.keys().copied().collect());
    }

    fn judge_all(&self, topic: Topic, wrong: Option<String>, links: BTreeSet<u32>) {
        let troubles = &mut self.troubles.borrow_mut().0;
        let Some(wrong) = wrong else {
            if troubles.remove(&topic).is_some() {
                info!(?topic, "the trouble is over");
            }
            return;
        };
        let known = troubles.entry(topic).or_default();
        if known.wrong != wrong {
            warn!(?topic, wrong, "trouble");
        }
        *known = Trouble { wrong, links };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_many_interfaces_is_told_in_a_few_words() {
        assert_eq!(summary(&WrongLinks::new()), None);
        let same = WrongLinks::from([(1, "no".into()), (2, "no".into())]);
        assert_eq!(summary(&same).as_deref(), Some("no"));
        let many = (0..9).map(|ifindex| (ifindex, ifindex.to_string()));
        let told = summary(&many.collect()).unwrap();
        assert_eq!(told, "0; 1; 2; and 6 more, see the loader's log");
    }
}
