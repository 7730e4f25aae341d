//! Which host veths of pods exist?

use abi::{IfIndex, Ip4, Pod};

use crate::nic::{Names, ifname};

/// A pod's interface in the node.
#[derive(Clone, Debug)]
pub struct PodVeth {
    /// Its index.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
}

/// These pods' host veths that exist.
pub(crate) fn host_veths(pods: &[(Ip4, Pod)]) -> Vec<PodVeth> {
    let names = Names::open();
    let existing = |(_, pod): &(Ip4, Pod)| {
        let ifindex = pod.ifindex.get();
        let name = names.of(ifindex)?;
        Some(PodVeth { ifindex, name })
    };
    pods.iter().filter_map(existing).collect()
}

/// Whether an interface with this index exists in our network namespace.
pub(crate) fn is_alive(ifindex: IfIndex) -> bool {
    ifname(ifindex.get()).is_some()
}
