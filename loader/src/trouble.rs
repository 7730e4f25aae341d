//! What is wrong and cannot be mended from here? Told in the log when it begins and when it ends, in the status while it
//! lasts, and to STATUS when pods that are there may not be connected as they should be.

use std::collections::{BTreeMap, BTreeSet};

use rpc::Endpoint;
use tracing::{info, warn};

use crate::daemon::Daemon;
use crate::words::some;
use crate::{podname, reconcile};

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
    /// The kernel's fallback is missing, or not as it should be.
    Fallback,
    /// It is there, and nft takes its time to look at it or to change it.
    Nft,
    /// Maps that cannot be read or written.
    Maps,
    /// The way out of pods in a tunnel mode.
    Tunnel,
    /// The kernel's check of sources, which nobody needs while ours are there.
    Sources,
    /// The runtime's configuration.
    Conflist,
}

impl Topic {
    /// Every one.
    pub(crate) const ALL: [Self; 15] = [
        Self::Lock,
        Self::Pins,
        Self::Nic,
        Self::Programs,
        Self::Settings,
        Self::Ports,
        Self::Stack,
        Self::Strangers,
        Self::Fight,
        Self::Fallback,
        Self::Nft,
        Self::Maps,
        Self::Tunnel,
        Self::Sources,
        Self::Conflist,
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
            Self::Fallback => "fallback",
            Self::Nft => "nft",
            Self::Maps => "maps",
            Self::Tunnel => "tunnel",
            Self::Sources => "sources",
            Self::Conflist => "conflist",
        }
    }

    /// Whether pods may be connected badly now. Strangers are asked for, more often than not; a clash of ports is rare;
    /// what is fought about is whole most of the time, and so is a table that nft takes its time to look at.
    fn limits(self) -> bool {
        !matches!(
            self,
            Self::Strangers
                | Self::Ports
                | Self::Fight
                | Self::Nft
                | Self::Sources
                | Self::Conflist
        )
    }
}

/// Interfaces, by index, and what is wrong with each. None has the index 0: it stands for the node.
pub(crate) type WrongLinks = BTreeMap<u32, String>;

/// Of so many interfaces it is told what is wrong with them.
const TOLD: usize = 3;

#[derive(Debug, Default)]
struct Trouble {
    /// As it was judged.
    wrong: String,
    /// The same, and which pods are meant.
    told: String,
    /// On which interfaces.
    links: BTreeSet<u32>,
}

/// What is wrong now.
#[derive(Debug, Default)]
pub(crate) struct Troubles(BTreeMap<Topic, Trouble>);

impl Troubles {
    /// Everything.
    pub(crate) fn all(&self) -> impl Iterator<Item = &String> {
        self.0.values().map(|trouble| &trouble.told)
    }

    /// What limits pods.
    pub(crate) fn limiting(&self) -> Vec<String> {
        let limiting = self.0.iter().filter(|(topic, _)| topic.limits());
        limiting.map(|(_, trouble)| trouble.told.clone()).collect()
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
        known.links = links;
        if known.wrong != wrong {
            known.told = of_pods(&wrong, &reconcile::endpoints(&self.run));
            warn!(?topic, wrong = known.told, "trouble");
            known.wrong = wrong;
        }
    }
}

/// The kernel tells of interfaces and addresses; operators know pods.
fn of_pods(wrong: &str, endpoints: &[Endpoint]) -> String {
    let is_part = |letter: char| letter.is_alphanumeric() || "._-".contains(letter);
    let words: BTreeSet<&str> = wrong
        .split(|letter| !is_part(letter))
        .map(|word| word.trim_end_matches('.'))
        .collect();
    let is_meant = |pod: &&Endpoint| {
        let address = pod.address.addr().to_string();
        words.contains(pod.host_ifname.as_str()) || words.contains(address.as_str())
    };
    let pods = endpoints.iter().filter(is_meant);
    let pods: Vec<String> = pods.map(podname::name).collect();
    if pods.is_empty() {
        return wrong.to_owned();
    }
    format!(
        "{wrong} (of {}: if this stays, delete the pod, so that it is made anew)",
        some(&pods)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::podname::tests::endpoint;

    #[test]
    fn whoever_is_told_of_an_interface_or_an_address_is_told_of_the_pod() {
        let pods = [endpoint("default", "web", 10), endpoint("test", "db", 1)];
        for (wrong, expected) in [
            ("attach from_pod to azv10: no", Some("of default/web:")),
            (
                "set /proc/sys/net/ipv4/conf/azv1/forwarding to 1: no",
                Some("of test/db:"),
            ),
            (
                "add the route to 10.240.1.10: no; azv1 is down.",
                Some("of default/web, test/db:"),
            ),
            // Others' names begin with these.
            ("attach from_pod to azv101: no, 10.240.1.100", None),
            ("no default route", None),
        ] {
            let told = of_pods(wrong, &pods);
            match expected {
                Some(part) => assert!(told.contains(part) && told.starts_with(wrong), "{told}"),
                None => assert_eq!(told, wrong),
            }
        }
    }

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
