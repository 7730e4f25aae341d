//! GC: what the runtime does not know goes, as far as it is of this network and nobody is making it just now.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;

use netconf::{Attachments, IPAM_PLUGIN, Leaving, Netconf, NetconfError, code, list_also};
use rpc::{Key, RunDirectory, StateError};

use super::Node;
use super::del::release_locked;
use crate::delegate::{Delegate, DelegateError};
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
        "the IPAM plug-in was not run: nothing tells yet whose {} is, and it might free that pod's address; call GC again when that pod's ADD or DEL is done", path.display()
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
    let there = attachments(&node)?;
    let mut failures = Vec::new();
    for key in there.unlisted(&netconf.name, &valid) {
        failures.extend(collect(call, &node, key, &mut ended, &current).err());
    }
    failures.splice(..0, there.unreadable);
    // Last: what is still there keeps its address.
    call.steps.begin("ipam");
    let delegated = delegate(call, &node, &netconf, &valid, stdin).err();
    // A plug-in that is not there may have been missed before.
    let is_missing =
        |error: &Error| matches!(error, Error::Delegate(DelegateError::Missing { .. }));
    let news = delegated.filter(|error| !(is_missing(error) && is_told(&failures, error)));
    failures.extend(news);
    // Of the list the IPAM plug-in may have said the same already.
    let own = complaint(&valid).filter(|own| !is_told(&failures, own));
    failures.extend(own);
    GcError::of(failures)
}

fn is_told(failures: &[Error], error: &Error) -> bool {
    let words = error.to_string();
    failures
        .iter()
        .any(|told| told.to_string().contains(&words))
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
    let there = attachments(node)?;
    // Ours looks for the record and the lock of each lease itself.
    if plugin != IPAM_PLUGIN
        && let Some(path) = there.of_nobody(&netconf.name, valid)
    {
        return Err(GcError::OwnerUnknown { path }.into());
    }
    let kept: Vec<(&str, &str)> = there
        .unlisted(&netconf.name, valid)
        .map(|key| (key.container_id.as_str(), key.ifname.as_str()))
        .collect();
    let longer = list_also(stdin, &kept).map_err(|source| NetconfError::Json { source })?;
    let stdin = if kept.is_empty() { stdin } else { &longer };
    let ipam = Delegate::find(call, plugin, stdin)?;
    Ok(ipam.gc(&node.runtime)?)
}

/// What there is of attachments.
#[derive(Default)]
pub(super) struct There {
    /// All that have a record or a lock file.
    pub(super) keys: BTreeSet<Key>,
    /// What keeps others from being known: of long names, which are only in the files.
    pub(super) unreadable: Vec<Error>,
    /// The files that this is about, and those of calls that have written nothing yet.
    nameless: Vec<PathBuf>,
}

impl There {
    /// The attachments of the network that are not in the list.
    fn unlisted<'a>(
        &'a self,
        network: &'a str,
        valid: &'a Attachments,
    ) -> impl Iterator<Item = &'a Key> {
        let keys = self.keys.iter();
        keys.filter(move |key| {
            key.network == network && !valid.keep(&key.container_id, &key.ifname)
        })
    }

    /// A file of an attachment that is neither listed nor known by another file: nobody can say whose it is, so nobody can list it.
    fn of_nobody(&self, network: &str, valid: &Attachments) -> Option<PathBuf> {
        let listed = valid.listed().map(|(container_id, ifname)| Key {
            network: network.to_owned(),
            container_id: container_id.to_owned(),
            ifname: ifname.to_owned(),
        });
        let listed: Vec<Key> = listed.collect();
        let known = self.keys.iter().chain(&listed);
        let names: BTreeSet<String> = known.map(Key::file_name).collect();
        let is_known = |path: &&PathBuf| {
            let name = path.file_stem().and_then(OsStr::to_str);
            name.is_some_and(|name| names.contains(name))
        };
        let unknown = self.nameless.iter().find(|path| !is_known(path));
        unknown.cloned()
    }

    /// The attachment of a lock file is in its draft. An empty one is that of a call that has made nothing yet, or litter.
    fn look_into(&mut self, path: PathBuf, name: &str) {
        // First: who writes a draft only now is still at work.
        let works = Lock::is_worked_under(&path);
        let draft = match Lock::read_draft(&path) {
            Ok(Some(draft)) => draft,
            Ok(None) => return,
            Err(error) => return self.unknown(path, error),
        };
        let key = serde_json::from_slice::<Key>(&draft).ok();
        match (key.filter(|key| key.file_name() == name), works) {
            (Some(key), _) => drop(self.keys.insert(key)),
            (None, Ok(true)) => self.nameless.push(path),
            (None, Ok(false)) if draft.is_empty() => {}
            (None, Ok(false)) => {
                let why = "no attachment of this name is in it".to_owned();
                let damaged = StateError::Damaged {
                    path: path.clone(),
                    why,
                };
                self.unknown(path, damaged);
            }
            (None, Err(error)) => self.unknown(path, error),
        }
    }

    fn unknown(&mut self, path: PathBuf, error: impl Into<Error>) {
        self.nameless.push(path);
        self.unreadable.push(error.into());
    }
}

/// Locks come first: an ADD has written its record before it lets go of its lock. Nothing but this order lets none slip through.
pub(super) fn attachments(node: &Node) -> Result<There, StateError> {
    let mut there = There::default();
    for name in lock_files(node)? {
        if let Some(key) = Key::of_file_name(&name) {
            there.keys.insert(key);
        } else if Key::is_digest(&name) {
            there.look_into(node.run.locks().join(&name), &name);
        }
    }
    let (keys, unreadable) = node.records.keys()?;
    there.keys.extend(keys);
    for error in unreadable {
        there.unknown(error.path().to_owned(), error);
    }
    Ok(there)
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
