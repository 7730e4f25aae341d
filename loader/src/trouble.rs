//! What is wrong and cannot be mended from here? Told in the log when it begins and when it ends, in the status while it
//! lasts, and to STATUS when pods that are there may not be connected as they should be.

use std::collections::BTreeMap;

use tracing::{info, warn};

use crate::daemon::Daemon;

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
pub(crate) struct Troubles(BTreeMap<Topic, String>);

impl Troubles {
    /// Everything.
    pub(crate) fn all(&self) -> impl Iterator<Item = &String> {
        self.0.values()
    }

    /// What limits pods.
    pub(crate) fn limiting(&self) -> Vec<String> {
        let limiting = self.0.iter().filter(|(topic, _)| topic.limits());
        limiting.map(|(_, wrong)| wrong.clone()).collect()
    }
}

impl Daemon {
    /// Says what is wrong with something; `None`: nothing is, or nothing any more.
    pub(crate) fn judge(&self, topic: Topic, wrong: Option<String>) {
        let troubles = &mut self.troubles.borrow_mut().0;
        match wrong {
            Some(wrong) if troubles.get(&topic) == Some(&wrong) => {}
            Some(wrong) => {
                warn!(?topic, wrong, "trouble");
                troubles.insert(topic, wrong);
            }
            None => {
                if troubles.remove(&topic).is_some() {
                    info!(?topic, "the trouble is over");
                }
            }
        }
    }
}
