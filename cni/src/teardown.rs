//! Taking an attachment away: the one way back of a failed ADD, of one that was killed, and of DEL.
//!
//! Every step is fine with nothing to do. The address is not given back here: that is the IPAM plug-in's, afterwards.

use std::time::Duration;

use rpc::{Endpoint, MacAddr};

use crate::error::Error;
use crate::link::{Link, LinkError, Netlink};
use crate::lock::{Lock, LockError};
use crate::netns::Netns;
use crate::record::Record;
use crate::verb::Node;

/// How long a call waits for another one that works on an interface of the same name.
const PATIENCE: Duration = Duration::from_secs(5);

/// What tells a host veth as ours.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mark {
    /// Recorded.
    Index(u32),
    /// Derived from the attachment's key; for one whose record was not completed or is lost.
    Mac(MacAddr),
}

impl Mark {
    /// The mark in `record`, which is a draft as long as it has no interface index.
    pub(crate) fn of(record: &Record) -> Self {
        match record.endpoint.host_ifindex {
            0 => Self::Mac(record.endpoint.host_mac),
            index => Self::Index(index),
        }
    }

    fn fits(self, link: &Link) -> bool {
        match self {
            Self::Index(index) => link.index == index,
            Self::Mac(mac) => link.mac == Some(mac),
        }
    }
}

/// Takes away what connects the pod of `record` to the node.
pub(crate) fn disconnect(node: &Node, record: &Record) -> Result<(), Error> {
    if let Some(table) = record.own_table {
        // A pod that is gone has taken its rules along.
        drop(remove_rule(node, &record.endpoint, table));
    }
    remove_veth(node, &record.endpoint.host_ifname, Mark::of(record))
}

/// All else that is in the pod goes with its interface.
fn remove_rule(node: &Node, endpoint: &Endpoint, table: u32) -> Result<(), LinkError> {
    let netns = Netns::open(&endpoint.netns)?;
    let pod = Netlink::inside(&netns, &node.runtime)?;
    pod.remove_source_rule(endpoint.address.addr(), table)
}

/// Deletes the host veth `ifname`, and with it the pod's end, the programs and every route over it.
///
/// An interface that only has the same name is another attachment's by now and is left alone.
pub(crate) fn remove_veth(node: &Node, ifname: &str, mark: Mark) -> Result<(), Error> {
    let _alone = lock_name(node, ifname)?;
    match node.netlink.find(ifname)? {
        Some(link) if mark.fits(&link) => delete_veth(node, &link),
        Some(_) | None => Ok(()),
    }
}

/// Deletes the interface, and with it its programs; the caller holds the name's lock.
///
/// The loader can do it without making us wait for the kernel's grace periods; without a loader we wait.
pub(crate) fn delete_veth(node: &Node, link: &Link) -> Result<(), Error> {
    match node.loader.remove_link(&link.name, link.index) {
        Ok(()) => Ok(()),
        Err(_unavailable) => Ok(node.netlink.delete(link)?),
    }
}

/// The lock on an interface name: names can be shared over time, and whoever looks and then acts must be alone.
pub(crate) fn lock_name(node: &Node, ifname: &str) -> Result<Lock, LockError> {
    Lock::acquire(
        &node.run.locks().join(ifname),
        node.deadline.spare(PATIENCE),
    )
}
