//! The IPAM plug-in: gives and takes back secondary addresses of the node's NICs, under any main plug-in.
//!
//! [`pools`] says which addresses there are, [`choose`] which one is next, [`allocate`] what an ADD or DEL changes, and
//! [`store`] keeps it in files. ADD waits for nobody while a free address is cached; DEL never asks anybody.

mod allocate;
mod choose;
mod look;
#[cfg(test)]
mod model;
mod pools;
mod store;

use std::net::Ipv4Addr;
use std::time::Duration;

use ipnet::Ipv4Net;
use rpc::{Key, Pools, RunDirectory, StateError, read_json};

use crate::clock;
use crate::deadline::Deadline;
use crate::env::{self, Command};
use crate::error::Error;
use crate::loader::{Loader, LoaderError};
use crate::lock::Lock;
use crate::output;
use crate::program::{Call, Program};
use crate::record::make_directory;
use crate::verb::CheckError;
use allocate::Wish;
use choose::Exhausted;
use netconf::Args;
use netconf::code;
use netconf::{Address, Dns, Success};
use netconf::{Leaving, Netconf};
use store::{Change, Lease, Store};

/// Azure's DNS server, which every virtual network has.
const DNS: &str = "168.63.129.16";
/// How long to wait for the lock, which is held for about a millisecond at a time.
const PATIENCE: Duration = Duration::from_secs(4);
/// How long a call may take in all: less than a main plug-in waits, which would kill us and never hear the reason.
const LIMIT: Duration = Duration::from_secs(9);

/// `azure-vnet-ipam`.
pub(crate) const PROGRAM: Program = Program {
    name: "azure-vnet-ipam",
    about: "CNI IPAM plug-in that gives pods secondary addresses of the node's NICs",
    log: "/var/log/azure-vnet-ipam.log",
    verbs: &[
        (Command::Add, add),
        (Command::Check, check),
        (Command::Del, del),
        (Command::Gc, look::gc),
        (Command::Status, look::status),
    ],
    required: |command| match command {
        Command::Add | Command::Check => &[env::CONTAINER_ID, env::NETNS, env::IFNAME],
        Command::Del => &[env::CONTAINER_ID, env::IFNAME],
        Command::Gc | Command::Status | Command::EndpointState | Command::Update => &[],
    },
    limit: |command| match command {
        // Less than what a main plug-in has left for it.
        Command::Status => Duration::from_secs(3),
        Command::Add
        | Command::Check
        | Command::Del
        | Command::Gc
        | Command::EndpointState
        | Command::Update => LIMIT,
    },
};

/// No address, or not the one that was asked for. The first words are Azure's, for tools that look for them.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IpamError {
    #[error(
        "Failed to allocate address: No available addresses: {0}; delete pods or add secondary addresses to the NIC"
    )]
    Exhausted(Exhausted),
    #[error(
        "Failed to allocate address: No available addresses: {exhausted}, and no newer pools: {source}"
    )]
    StillExhausted {
        exhausted: Exhausted,
        source: LoaderError,
    },
    #[error("Failed to allocate pool: the NIC's addresses are not known yet: {source}")]
    NoPools { source: LoaderError },
    #[error(
        "Failed to allocate address: Pool id {subnet} not found :Invalid address pool; correct ipam.subnet"
    )]
    NoSuchSubnet { subnet: Ipv4Net },
    #[error(
        "Failed to allocate pool: no available address pools: no NIC `{master}` has secondary addresses; correct master"
    )]
    NoSuchMaster { master: String },
    #[error(
        "Failed to allocate address: Address not found: {address} is no secondary address of this node; ask for another"
    )]
    NotFound { address: Ipv4Addr },
    #[error(
        "Failed to allocate address: Address already in use: {address}; ask for another or delete its owner"
    )]
    InUse { address: Ipv4Addr },
    #[error(
        "Failed to allocate address: {key} has {has} and cannot get {wanted} too; delete the attachment first"
    )]
    HasAnother {
        key: Key,
        has: Ipv4Addr,
        wanted: Ipv4Addr,
    },
    #[error(
        "check the reservation of {key}: there is none; delete the pod, so that it is made anew"
    )]
    NoLease { key: Key },
    #[error(
        "check the reservation of {key}: {address} is not in prevResult; delete the pod, so that it is made anew"
    )]
    NotInResult { key: Key, address: Ipv4Addr },
}

impl IpamError {
    /// The CNI code.
    pub(crate) fn code(&self) -> u32 {
        match self {
            Self::NoPools { source } => source.code(),
            Self::NoLease { .. } | Self::NotInResult { .. } => code::CHECK,
            Self::Exhausted(_)
            | Self::StillExhausted { .. }
            | Self::NoSuchSubnet { .. }
            | Self::NoSuchMaster { .. }
            | Self::NotFound { .. }
            | Self::InUse { .. }
            | Self::HasAnother { .. } => code::PLUGIN,
        }
    }
}

fn add(call: &mut Call) -> Result<(), Error> {
    let netconf = Netconf::parse(&call.stdin)?;
    let args = Args::parse(&call.env.args)?;
    let wish = Wish {
        key: key(call, &netconf.name),
        address: netconf.address(&args)?,
        subnet: netconf.ipam.subnet,
        master: netconf.master.clone(),
    };
    call.require_root()?;

    let ipam = Ipam::open(&call.deadline)?;
    call.steps.begin("cached");
    let given = match ipam.give(&wish, ipam.cached_pools().as_ref())? {
        Given::Lease(given) => given,
        Given::Nothing(exhausted) => {
            call.steps.begin("refresh");
            ipam.give_from_fresh(&wish, exhausted)?
        }
    };
    call.steps.begin("print");
    output::print(&result(&given.lease).to_json(netconf.version)).map_err(|error| {
        let step = call.steps.current();
        call.steps.begin("undo");
        // What the owner had before is a live pod's.
        let taken_back = if given.is_new {
            ipam.take_back(&wish.key)
        } else {
            Ok(())
        };
        Error::At {
            step,
            source: Box::new(error),
            left: taken_back.err().into_iter().collect(),
        }
    })
}

fn del(call: &mut Call) -> Result<(), Error> {
    let stdin = std::mem::take(&mut call.stdin);
    let done = Leaving::parse(&stdin)
        .map_err(Error::from)
        .and_then(|current| {
            call.require_root()?;
            if let Some(complaint) = &current.complaint {
                call.warn(&format_args!("passed over at DEL: {complaint}"));
            }
            call.steps.begin("release");
            Ipam::open(&call.deadline)?.take_back(&key(call, &current.name))
        });
    call.stdin = stdin;
    done
}

fn check(call: &mut Call) -> Result<(), Error> {
    let netconf = Netconf::parse(&call.stdin)?;
    call.require_verb(netconf.version)?;
    let previous = netconf.prev_result()?.ok_or(CheckError::NoPrevResult)?;
    call.require_root()?;
    let key = key(call, &netconf.name);
    let Some(lease) = Ipam::open(&call.deadline)?.with_store(|store| Ok(store.lease_of(&key)?))?
    else {
        return Err(IpamError::NoLease { key }.into());
    };
    if previous
        .addresses
        .iter()
        .all(|entry| entry.address.addr() != lease.ip)
    {
        return Err(IpamError::NotInResult {
            key,
            address: lease.ip,
        }
        .into());
    }
    Ok(())
}

/// What the cache can give.
enum Given {
    Lease(Granted),
    /// No pools, or nothing left in them.
    Nothing(Option<Exhausted>),
}

/// A lease, and whether this call made it.
struct Granted {
    lease: Lease,
    is_new: bool,
}

/// The plug-in on this node.
struct Ipam {
    run: RunDirectory,
    boot_id: String,
    deadline: Deadline,
}

impl Ipam {
    fn open(deadline: &Deadline) -> Result<Self, StateError> {
        let run = RunDirectory::default();
        make_directory(&run.ipam())?;
        Ok(Self {
            run,
            boot_id: rpc::boot_id()?,
            deadline: deadline.clone(),
        })
    }

    /// Runs `work` under the lock.
    fn with_store<T>(&self, work: impl FnOnce(&Store) -> Result<T, Error>) -> Result<T, Error> {
        let path = self.run.ipam().join("lock");
        let _alone = Lock::acquire_permanent(&path, self.deadline.spare(PATIENCE))?;
        work(&Store::open(&self.run.ipam(), &self.boot_id)?)
    }

    /// The loader's cache; one of another boot, or one that cannot be read, is none.
    fn cached_pools(&self) -> Option<Pools> {
        read_json(&self.run.pools())
            .ok()
            .filter(|pools: &Pools| pools.boot_id == self.boot_id)
    }

    fn give(&self, wish: &Wish, pools: Option<&Pools>) -> Result<Given, Error> {
        self.with_store(|store| {
            match allocate::plan_add(store, wish, pools, clock::boottime_ms()) {
                Ok(Some((lease, changes))) => {
                    apply(store, &changes)?;
                    let is_new = !changes.is_empty();
                    Ok(Given::Lease(Granted { lease, is_new }))
                }
                Ok(None) => Ok(Given::Nothing(None)),
                Err(Error::Ipam(IpamError::Exhausted(exhausted))) => {
                    Ok(Given::Nothing(Some(exhausted)))
                }
                Err(error) => Err(error),
            }
        })
    }

    /// Asks the loader for newer pools, without the lock: others may have better luck meanwhile.
    fn give_from_fresh(&self, wish: &Wish, exhausted: Option<Exhausted>) -> Result<Granted, Error> {
        let loader = Loader::of(&self.run, &self.deadline);
        let pools = match (loader.refresh_pools(), exhausted) {
            (Ok(pools), _) => pools,
            (Err(source), None) => return Err(IpamError::NoPools { source }.into()),
            (Err(source), Some(exhausted)) => {
                return Err(IpamError::StillExhausted { exhausted, source }.into());
            }
        };
        match self.give(wish, Some(&pools))? {
            Given::Lease(given) => Ok(given),
            Given::Nothing(exhausted) => {
                Err(IpamError::Exhausted(exhausted.unwrap_or_default()).into())
            }
        }
    }

    fn take_back(&self, key: &Key) -> Result<(), Error> {
        self.with_store(|store| {
            let changes = allocate::plan_del(store, key, clock::boottime_ms())?;
            apply(store, &changes)
        })
    }
}

fn apply(store: &Store, changes: &[Change]) -> Result<(), Error> {
    for change in changes {
        store.apply(change)?;
    }
    Ok(())
}

fn result(lease: &Lease) -> Success {
    Success {
        interfaces: Vec::new(),
        addresses: vec![Address {
            address: lease.address(),
            gateway: Some(lease.gateway),
        }],
        dns: Dns {
            nameservers: vec![DNS.to_owned()],
            ..Dns::default()
        },
    }
}

fn key(call: &Call, network: &str) -> Key {
    Key {
        network: network.to_owned(),
        container_id: call.env.container_id.clone(),
        ifname: call.env.ifname.clone(),
    }
}
