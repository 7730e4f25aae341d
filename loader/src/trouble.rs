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
    /// Another loader.
    Rival,
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
    /// The kernel's check of sources, which nobody needs while ours are there.
    Sources,
    /// The runtime's configuration.
    Conflist,
}

impl Topic {
    /// Whether pods may be connected badly now. Strangers are asked for, more often than not; a clash of ports is rare.
    fn limits(self) -> bool {
        !matches!(
            self,
            Self::Strangers | Self::Ports | Self::Sources | Self::Conflist
        )
    }
}

/// What is wrong now.
#[derive(Debug, Default)]
pub(crate) struct Troubles(BTreeMap<Topic, Trouble>);

#[derive(Debug)]
struct Trouble {
    /// As it was judged.
    wrong: String,
    /// The same, and which pods are meant.
    told: String,
}

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
}

impl Daemon {
    /// Says what is wrong with something; `None`: nothing is, or nothing any more.
    pub(crate) fn judge(&self, topic: Topic, wrong: Option<String>) {
        let troubles = &mut self.troubles.borrow_mut().0;
        match wrong {
            Some(wrong)
                if troubles
                    .get(&topic)
                    .is_some_and(|known| known.wrong == wrong) => {}
            Some(wrong) => {
                let told = of_pods(&wrong, &reconcile::endpoints(&self.run));
                warn!(?topic, wrong = told, "trouble");
                troubles.insert(topic, Trouble { wrong, told });
            }
            None => {
                if troubles.remove(&topic).is_some() {
                    info!(?topic, "the trouble is over");
                }
            }
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
}
