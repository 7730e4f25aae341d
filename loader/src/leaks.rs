//! Which addresses are given to nobody that lives? Looked at by the loader and by `vnetctl ipam`, which both free them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, TryLockError};
use std::io;
use std::net::Ipv4Addr;

use nix::net::if_::if_nametoindex;
use rpc::{Endpoint, Key, Lease, RunDirectory, StateError, boot_id, leases, netns_lives, routed};
use serde::Serialize;

use crate::reconcile;
use crate::sight::{Blind, Sight};

/// The plug-in that writes an endpoint record for each attachment.
pub(crate) const MAIN: &str = netconf::MAIN_PLUGIN;

/// What becomes of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "documents", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Its pod lives, as far as can be seen.
    Used,
    /// A call works on the attachment just now.
    Busy,
    /// Nothing tells whether its pod lives.
    Unknown,
    /// Nobody uses it, and nobody will give it back.
    Leaked,
}

/// An address in somebody's hands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "documents", derive(schemars::JsonSchema))]
#[expect(
    clippy::struct_excessive_bools,
    reason = "facts that have nothing to do with each other"
)]
pub struct Holding {
    /// The address.
    pub address: Ipv4Addr,
    /// Whose; without interface name it is a pod's that Azure's plug-in made.
    #[serde(flatten)]
    pub key: Key,
    /// Kubernetes namespace and name, as far as a record tells.
    pub pod: String,
    /// The pod's network namespace.
    pub netns: String,
    /// What becomes of it.
    pub state: State,
    /// Why, unless it is used.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// Whether the main plug-in is ours.
    #[serde(skip)]
    pub is_ours: bool,
    /// Whether Azure's plug-in gave it, which knew its container at most.
    #[serde(skip)]
    pub is_taken_over: bool,
    /// Whether its pod's network namespace was looked for and is not there.
    #[serde(skip)]
    pub is_gone: bool,
    /// Whether it leaks beyond doubt: a record of our own says what its pod had, and nothing of that is there. Of whatever else
    /// looks leaked an operator decides.
    #[serde(skip)]
    pub is_proven: bool,
    /// Whether it cannot be seen from here if its pod lives.
    #[serde(skip)]
    pub is_blind: bool,
}

/// A view of the node, read in one go.
struct Node<'a> {
    sight: Sight<'a>,
    boot_id: String,
    records: BTreeMap<Key, Endpoint>,
    routed: BTreeSet<Ipv4Addr>,
}

/// What a call on an attachment has left, or does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Call {
    None,
    AtWork,
    /// It was interrupted: DEL knows what to do.
    Interrupted,
}

/// Nothing is known.
#[derive(Debug, thiserror::Error)]
pub enum LeakError {
    /// A file could not be read.
    #[error(transparent)]
    State(#[from] StateError),
    /// From here.
    #[error("nothing is known about leaked addresses: {0}")]
    Blind(#[from] Blind),
}

/// Every lease and what becomes of it.
///
/// Leases are read first: what is made meanwhile is not among them, and what an ADD has just finished has a record by then.
pub fn holdings(run: &RunDirectory) -> Result<Vec<Holding>, LeakError> {
    let boot_id = boot_id()?;
    let leases = leases(run);
    let readable = leases.iter().filter_map(|(_, lease)| lease.as_ref());
    let sight = Sight::from_here(run);
    let of_now: Vec<&Lease> = readable.filter(|lease| lease.boot_id == boot_id).collect();
    sight.require(&of_now)?;
    let mut calls = Vec::new();
    for (_, lease) in &leases {
        let key = lease.as_ref().map(|lease| &lease.key);
        calls.push(key.map_or(Ok(Call::None), |key| call_on(run, key))?);
    }
    let records = reconcile::endpoints(run).into_iter();
    let node = Node {
        records: records
            .filter(|record| record.boot_id == boot_id)
            .map(|record| (record.key.clone(), record))
            .collect(),
        routed: routed()?,
        sight,
        boot_id,
    };
    let judged = leases.into_iter().zip(calls);
    Ok(judged
        .map(|((address, lease), call)| match lease {
            Some(lease) => node.judge(run, lease, call),
            None => unreadable(address),
        })
        .collect())
}

impl Node<'_> {
    fn judge(&self, run: &RunDirectory, lease: Lease, call: Call) -> Holding {
        let record = self.records.get(&lease.key);
        let has_veth = record.is_some_and(has_veth);
        let netns = record.map_or(&lease.netns, |record| &record.netns);
        let is_ours = !lease.is_taken_over() && (lease.plugin == MAIN || record.is_some());
        let blind = self.sight.of(&lease).err();
        let lives = match &blind {
            Some(_) => None,
            None if *netns == lease.netns => lease.lives(),
            None => netns_lives(netns),
        };
        let is_routed = self.routed.contains(&lease.ip);
        let lost = || {
            // A record that cannot be read is one, and a pod with a route is served, whatever became of its record.
            let has_record = fs::exists(record_of(run, &lease.key)).unwrap_or(true);
            let is_seen = blind.is_none() && is_ours && lease.plugin == MAIN;
            is_seen && !has_record && call == Call::None && !is_routed
        };
        let (state, why) = if lease.boot_id != self.boot_id {
            (State::Leaked, "it was given before the node started".into())
        } else if call == Call::AtWork {
            (State::Busy, "a call works on it just now".into())
        } else {
            match lives {
                // Whatever else is missing: who has a namespace may use the address.
                Some(true) => (State::Used, String::new()),
                // Veth and route go with the namespace, so that lives, wherever it is bound.
                Some(false) if has_veth || is_routed => (
                    State::Used,
                    format!(
                        "its network namespace is not at {netns} any more, but its {} is there",
                        if has_veth { "veth" } else { "route" }
                    ),
                ),
                Some(false) => (
                    State::Leaked,
                    format!("its network namespace {netns} is gone"),
                ),
                None if lost() => (
                    State::Leaked,
                    "it has no endpoint record and no route, and no call works on it".into(),
                ),
                None if has_veth || is_routed => (State::Used, String::new()),
                None => (
                    State::Unknown,
                    match &blind {
                        Some(blind) => format!("it was given from elsewhere: {blind}"),
                        None => "nothing tells whether its network namespace lives".into(),
                    },
                ),
            }
        };
        let is_gone = lives == Some(false);
        let is_of_now = lease.boot_id == self.boot_id;
        let is_recorded = record.is_some_and(|record| record.address.addr() == lease.ip);
        Holding {
            is_blind: blind.is_some(),
            is_gone,
            is_proven: state == State::Leaked && is_gone && is_of_now && is_ours && is_recorded,
            address: lease.ip,
            pod: record.map_or_else(String::new, |record| {
                format!("{}/{}", record.pod_namespace, record.pod_name)
            }),
            netns: netns.clone(),
            is_taken_over: lease.is_taken_over(),
            key: lease.key,
            state,
            why,
            is_ours,
        }
    }
}

fn has_veth(record: &Endpoint) -> bool {
    if_nametoindex(record.host_ifname.as_str()).is_ok_and(|index| index == record.host_ifindex)
}

/// Whose it is nobody knows, so nobody can give it back.
fn unreadable(address: Ipv4Addr) -> Holding {
    Holding {
        address,
        key: Key {
            network: String::new(),
            container_id: String::new(),
            ifname: String::new(),
        },
        pod: String::new(),
        netns: String::new(),
        state: State::Unknown,
        why: "its lease is damaged; a reboot frees it".into(),
        is_ours: false,
        is_taken_over: false,
        is_gone: false,
        is_proven: false,
        is_blind: false,
    }
}

fn record_of(run: &RunDirectory, key: &Key) -> std::path::PathBuf {
    run.endpoints().join(format!("{}.json", key.file_name()))
}

/// Whether somebody works on an attachment, or was killed while it did. The plug-ins' lock is a kernel lock on a file that holds
/// what an interrupted call has begun.
fn call_on(run: &RunDirectory, key: &Key) -> Result<Call, StateError> {
    let path = run.locks().join(key.file_name());
    let file = match File::open(&path) {
        Err(absent) if absent.kind() == io::ErrorKind::NotFound => return Ok(Call::None),
        opened => opened.map_err(|source| StateError::io("open", &path, source))?,
    };
    // Shared, so that two who only look do not see each other; whoever works holds it alone.
    match file.try_lock_shared() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(Call::AtWork),
        Err(TryLockError::Error(source)) => return Err(StateError::io("take", &path, source)),
    }
    let length = file.metadata().map(|metadata| metadata.len());
    match length.map_err(|source| StateError::io("look at", &path, source))? {
        0 => Ok(Call::None),
        _ => Ok(Call::Interrupted),
    }
}
