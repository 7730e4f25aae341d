//! GC: what the runtime does not know goes, as far as it is of this network and nobody is making it just now.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use netconf::{Attachments, Leaving, Netconf, code};
use rpc::{Key, StateError};

use super::Node;
use super::del::release_locked;
use crate::delegate::Delegate;
use crate::error::Error;
use crate::lock::Lock;
use crate::program::Call;

/// GC does not succeed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GcError {
    #[error(
        "collect garbage: cni.dev/valid-attachments is missing, so nothing was removed; the runtime must pass the list, an empty one if there are no attachments"
    )]
    NoList,
    #[error(
        "collect garbage: cni.dev/valid-attachments has entries without containerID or ifname: {entries}; all else was collected, the runtime must pass both"
    )]
    Malformed { entries: String },
    /// The rest was done.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Incomplete(Vec<Error>),
}

impl GcError {
    /// The CNI code; of several failures the first one's.
    pub(crate) fn code(&self) -> u32 {
        match self {
            Self::NoList | Self::Malformed { .. } => code::CONFIG,
            Self::Incomplete(failures) => failures.first().map_or(code::BUG, Error::code),
        }
    }

    /// The failures' own details.
    pub(crate) fn details(&self) -> Option<String> {
        let Self::Incomplete(failures) = self else {
            return None;
        };
        let details: Vec<String> = failures.iter().filter_map(Error::details).collect();
        Some(details.join("; ")).filter(|details| !details.is_empty())
    }

    /// Whatever could not be done, after everything else was.
    pub(crate) fn of(failures: Vec<Error>) -> Result<(), Error> {
        if failures.is_empty() {
            return Ok(());
        }
        Err(Self::Incomplete(failures).into())
    }
}

/// The list of what is to be kept.
pub(crate) fn valid(call: &Call, netconf: &Netconf) -> Result<Attachments, Error> {
    call.require_verb(netconf.version)?;
    Ok(netconf.attachments.clone().ok_or(GcError::NoList)?)
}

/// What to say of a list that is partly unreadable.
pub(crate) fn complaint(valid: &Attachments) -> Option<Error> {
    let entries = valid.malformed.join(", ");
    (!entries.is_empty()).then(|| GcError::Malformed { entries }.into())
}

/// An attachment that may go, and what was there when GC began.
struct Stale {
    key: Key,
    was: Was,
}

/// What was there of an attachment.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Was {
    /// A record with this index of the host veth; none if it is damaged.
    Recorded(Option<u32>),
    /// The lock file of a call that was killed, at most.
    Begun,
}

pub(super) fn gc(call: &mut Call) -> Result<(), Error> {
    let stdin = std::mem::take(&mut call.stdin);
    let done = gc_from(call, &stdin);
    call.stdin = stdin;
    done
}

fn gc_from(call: &mut Call, stdin: &[u8]) -> Result<(), Error> {
    let netconf = Netconf::parse(stdin)?;
    let valid = valid(call, &netconf)?;
    call.require_root()?;

    call.steps.begin("collect");
    let node = Node::open(&call.deadline)?;
    let current = Leaving::parse(stdin)?;
    let mut failures = Vec::new();
    for stale in stale(&node, &netconf.name, &valid)? {
        failures.extend(collect(call, &node, &stale, &current).err());
    }
    // Last: what has a record, because it could not be removed, keeps its address.
    call.steps.begin("ipam");
    failures.extend(delegate(call, &node, &netconf, stdin).err());
    failures.extend(complaint(&valid));
    GcError::of(failures)
}

fn delegate(call: &Call, node: &Node, netconf: &Netconf, stdin: &[u8]) -> Result<(), Error> {
    let ipam = Delegate::find(call, netconf.ipam_plugin()?, stdin)?;
    Ok(ipam.gc(&node.runtime)?)
}

/// The attachments that are there now and not in the list. What calls are at work on at this moment is none of them, and what one
/// will have begun later is not looked at: it is younger than the list.
fn stale(node: &Node, network: &str, valid: &Attachments) -> Result<Vec<Stale>, Error> {
    // In this order, and at once: a call that ends before its record is read was seen at work.
    let held = held(node)?;
    let mut found = BTreeMap::new();
    for key in node.records.keys(network)? {
        found.insert(key.clone(), was(node, &key)?);
    }
    for name in lock_files(node)? {
        let key = Key::of_file_name(&name).filter(|key| key.network == network);
        key.map(|key| found.entry(key).or_insert(Was::Begun));
    }
    found.retain(|key, _| {
        !held.contains(&key.file_name()) && !valid.keep(&key.container_id, &key.ifname)
    });
    let found = found.into_iter();
    Ok(found.map(|(key, was)| Stale { key, was }).collect())
}

/// The lock files of calls at work.
fn held(node: &Node) -> Result<BTreeSet<String>, Error> {
    let mut held = BTreeSet::new();
    for name in lock_files(node)? {
        if Lock::is_worked_under(&node.run.locks().join(&name))? {
            held.insert(name);
        }
    }
    Ok(held)
}

/// The lock files of the attachments that calls work on, or did when they were killed.
fn lock_files(node: &Node) -> Result<Vec<String>, StateError> {
    let directory = node.run.locks();
    let files =
        fs::read_dir(&directory).map_err(|source| StateError::io("list", &directory, source))?;
    Ok(files
        .filter_map(|file| file.ok()?.file_name().into_string().ok())
        .collect())
}

fn was(node: &Node, key: &Key) -> Result<Was, StateError> {
    let record = node.records.get(key)?;
    let host_ifindex = record.map(|record| record.endpoint.host_ifindex);
    Ok(Was::Recorded(host_ifindex))
}

/// Takes one away, unless somebody works on it or has made it anew meanwhile.
fn collect(
    call: &mut Call,
    node: &Node,
    stale: &Stale,
    current: &Leaving<'_>,
) -> Result<(), Error> {
    let key = &stale.key;
    let Some(lock) = Lock::try_acquire(&node.lock_of(key), &node.deadline)? else {
        return Ok(());
    };
    let is = if node.records.has(key) {
        Some(was(node, key)?)
    } else {
        (!lock.draft().is_empty()).then_some(Was::Begun)
    };
    if is != Some(stale.was) {
        return Ok(());
    }
    release_locked(call, node, key, Some(current), lock)
}
