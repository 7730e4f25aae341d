//! GC: what the runtime does not know goes, as far as it is of this network and nobody is making it just now.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use netconf::{Attachments, IPAM_PLUGIN, Leaving, Netconf, NetconfError, code, list_also};
use rpc::{Key, RunDirectory, StateError};

use super::Node;
use super::del::release_locked;
use crate::delegate::Delegate;
use crate::ended::Ended;
use crate::error::Error;
use crate::lock::Lock;
use crate::program::Call;
use crate::record::make_directory;

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
    #[error(
        "the IPAM plug-in was not run: nothing tells which pod's file {} is, whose address it might free; run GC again when that file is gone", path.display()
    )]
    OwnerUnknown { path: PathBuf },
    /// The rest was done.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Incomplete(Vec<Error>),
}

impl GcError {
    /// The CNI code; of several failures the first one's.
    pub(crate) fn code(&self) -> u32 {
        match self {
            Self::NoList | Self::Malformed { .. } => code::CONFIG,
            Self::OwnerUnknown { .. } => code::TRY_AGAIN,
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

pub(super) fn gc(call: &mut Call) -> Result<(), Error> {
    call.with_stdin(gc_from)
}

fn gc_from(call: &mut Call, stdin: &[u8]) -> Result<(), Error> {
    let netconf = Netconf::parse(stdin)?;
    let valid = valid(call, &netconf)?;
    call.require_root()?;

    call.steps.begin("collect");
    // Before all else: what a call has made that ends from now on is younger than the list.
    let locks = RunDirectory::default().locks();
    make_directory(&locks)?;
    // Blind, nobody knows what is stale; nor does an IPAM plug-in that knows none of our records.
    let mut ended = Ended::watch(&locks)?;
    let node = Node::open(&call.deadline)?;
    let current = Leaving::parse(stdin)?;
    let (unlisted, unreadable) = unlisted(&node, &netconf.name, &valid)?;
    let mut failures: Vec<Error> = unreadable.into_iter().map(Error::from).collect();
    for key in unlisted {
        failures.extend(collect(call, &node, &key, &mut ended, &current).err());
    }
    // Last: what is still there keeps its address.
    call.steps.begin("ipam");
    let delegated = delegate(call, &node, &netconf, &valid, stdin).err();
    // Who did not find the IPAM plug-in has said so already, and the plug-in of the list.
    for last in [delegated, complaint(&valid)].into_iter().flatten() {
        let words = last.to_string();
        if !failures
            .iter()
            .any(|told| told.to_string().contains(&words))
        {
            failures.push(last);
        }
    }
    GcError::of(failures)
}

/// An IPAM plug-in knows neither our records nor our locks: what could not be removed, is being made or has been since GC began is
/// in its list, too. What begins only now is not: the specification has the runtime hold it off.
fn delegate(
    call: &Call,
    node: &Node,
    netconf: &Netconf,
    valid: &Attachments,
    stdin: &[u8],
) -> Result<(), Error> {
    let plugin = netconf.ipam_plugin()?;
    let (kept, unreadable) = unlisted(node, &netconf.name, valid)?;
    // Ours looks for the record and the lock of each lease itself.
    if plugin != IPAM_PLUGIN
        && let Some(path) = of_nobody(node, &netconf.name, valid, &unreadable)?
    {
        return Err(GcError::OwnerUnknown { path }.into());
    }
    let kept: Vec<(&str, &str)> = kept
        .iter()
        .map(|key| (key.container_id.as_str(), key.ifname.as_str()))
        .collect();
    let longer = list_also(stdin, &kept).map_err(|source| NetconfError::Json { source })?;
    let stdin = if kept.is_empty() { stdin } else { &longer };
    let ipam = Delegate::find(call, plugin, stdin)?;
    Ok(ipam.gc(&node.runtime)?)
}

/// A record or a lock file that is named by a digest, of no attachment that is listed or has a record that can be read: nobody can
/// say whose it is, so nobody can list it.
fn of_nobody(
    node: &Node,
    network: &str,
    valid: &Attachments,
    unreadable: &[StateError],
) -> Result<Option<PathBuf>, StateError> {
    let (known, _) = attachments(node)?;
    let listed = valid.listed().map(|(container_id, ifname)| Key {
        network: network.to_owned(),
        container_id: container_id.to_owned(),
        ifname: ifname.to_owned(),
    });
    let known = known.into_iter().chain(listed);
    let names: BTreeSet<String> = known.map(|key| key.file_name()).collect();
    let records = unreadable.iter().map(StateError::path).map(Path::to_owned);
    let locks = lock_files(node)?.into_iter();
    let locks = locks.filter(|name| Key::is_digest(name));
    let locks = locks.map(|name| node.run.locks().join(name));
    let is_known = |path: &PathBuf| {
        let name = path.file_stem().and_then(OsStr::to_str);
        name.is_some_and(|name| names.contains(name))
    };
    Ok(records.chain(locks).find(|path| !is_known(path)))
}

/// The attachments of the network that are not in the list.
fn unlisted(node: &Node, network: &str, valid: &Attachments) -> Result<Found, StateError> {
    let (mut found, unreadable) = attachments(node)?;
    found.retain(|key| key.network == network && !valid.keep(&key.container_id, &key.ifname));
    Ok((found, unreadable))
}

/// Attachments, and what keeps others from being known.
type Found = (BTreeSet<Key>, Vec<StateError>);

/// All that have a record or a lock file.
pub(super) fn attachments(node: &Node) -> Result<Found, StateError> {
    let (mut found, unreadable) = node.records.keys()?;
    let begun = lock_files(node)?.into_iter();
    found.extend(begun.filter_map(|name| Key::of_file_name(&name)));
    Ok((found, unreadable))
}

/// The names of the files of locks that calls work under, or did when they were killed.
fn lock_files(node: &Node) -> Result<Vec<String>, StateError> {
    let directory = node.run.locks();
    let failed = |source| StateError::io("list", &directory, source);
    let mut names = Vec::new();
    for file in fs::read_dir(&directory).map_err(failed)? {
        names.extend(file.map_err(failed)?.file_name().into_string());
    }
    Ok(names)
}

/// Takes one away, unless somebody works on it or has since GC began.
fn collect(
    call: &mut Call,
    node: &Node,
    key: &Key,
    ended: &mut Ended,
    current: &Leaving<'_>,
) -> Result<(), Error> {
    let Some(lock) = Lock::try_acquire(&node.lock_of(key), &node.deadline)? else {
        return Ok(());
    };
    let is_there = !lock.draft().is_empty() || node.records.has(key)?;
    if !is_there || ended.includes(&key.file_name()) {
        return Ok(());
    }
    release_locked(call, node, key, Some(current), lock)
}
