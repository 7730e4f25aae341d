//! Giving an attachment's address back.

use rpc::{Key, StateError};
use serde::{Deserialize, Serialize};

use super::{AddError, Node};
use crate::delegate::Delegate;
use crate::error::Error;
use crate::lock::Lock;
use crate::program::Call;
use crate::record::Record;
use netconf::Leaving;

/// The draft of an ADD that has asked the IPAM plug-in and has no answer yet: what a record would say of it, too.
#[derive(Serialize)]
struct Begun<'a> {
    #[serde(flatten)]
    key: &'a Key,
    /// Standard input of ADD.
    netconf: &'a str,
}

/// The part of a record and of any draft that says which IPAM plug-in was asked.
#[derive(Deserialize)]
struct Asked {
    netconf: String,
}

/// What record and draft tell of an attachment that is to go.
pub(super) struct Known {
    pub(super) record: Option<Record>,
    netconf: Option<String>,
    /// An ADD has begun, whatever of it can still be read.
    pub(super) begun: bool,
}

impl Known {
    /// Of the attachment `key`, whose lock is `lock`.
    pub(super) fn of(node: &Node, key: &Key, lock: &Lock) -> Result<Self, StateError> {
        let draft = lock.draft();
        let stored = node.records.get(key)?;
        let record: Option<Record> = stored.or_else(|| serde_json::from_slice(draft).ok());
        let netconf = match &record {
            Some(record) => Some(record.netconf.clone()),
            None => serde_json::from_slice(draft)
                .ok()
                .map(|Asked { netconf }| netconf),
        };
        Ok(Self {
            record,
            netconf,
            begun: !draft.is_empty() || node.records.has(key)?,
        })
    }

    /// The draft of an ADD that is about to ask the IPAM plug-in, which may give an address that no record tells of.
    pub(super) fn begun(key: &Key, stdin: &[u8]) -> Result<Vec<u8>, AddError> {
        let netconf = &*String::from_utf8_lossy(stdin);
        serde_json::to_vec(&Begun { key, netconf }).map_err(|source| AddError::Draft { source })
    }
}

/// The IPAM plug-in that gave the address takes it back, with the configuration that it gave it by: what `ipam` says by now
/// may be of another plug-in, another range, or another directory. Only when nothing tells of that one, the current one must do.
pub(super) fn give_back(
    call: &mut Call,
    node: &Node,
    current: Option<&Leaving<'_>>,
    key: &Key,
    known: &Known,
) -> Result<(), Error> {
    let stored = known.netconf.as_ref();
    let stored = stored.and_then(|netconf| Leaving::parse(netconf.as_bytes()).ok());
    let stored = stored.as_ref().filter(|stored| stored.plugin.is_some());
    let trusted = stored.or(current.filter(|current| current.complaint.is_none()));
    let Some(conf) = trusted.or(current) else {
        return Ok(());
    };
    let Some(plugin) = &conf.plugin else {
        return Ok(());
    };
    let given_back = Delegate::find(call, plugin, &conf.stdin)
        .and_then(|delegate| delegate.of(key).del(&node.runtime));
    match given_back {
        // With this configuration there was never an ADD; were that an error, there would never be an end.
        Err(error) if trusted.is_none() && !known.begun => {
            call.warn(&format_args!("passed over at DEL: {error}"));
            Ok(())
        }
        other => other.map_err(|source| Error::Release { source }),
    }
}
