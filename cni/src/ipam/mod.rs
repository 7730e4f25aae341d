//! The IPAM plug-in: gives and takes back secondary addresses of the node's NICs, under any main plug-in.
//!
//! [`pools`] says which addresses there are, [`choose`] which one is next, [`allocate`] what an ADD or DEL changes, and
//! [`store`] keeps it in files. ADD waits for nobody while a free address is cached; DEL never asks anybody.

mod allocate;
mod choose;
mod error;
mod file;
mod look;
#[cfg(test)]
mod model;
mod pools;
mod store;
mod takeover;

use std::net::Ipv4Addr;
use std::time::Duration;

use rpc::{Key, Lease, Pools, RunDirectory, StateError, read_json};

use crate::clock;
use crate::deadline::Deadline;
use crate::env::{self, Command};
use crate::error::Error;
use crate::loader::Loader;
use crate::lock::Lock;
use crate::output;
use crate::program::{Call, Program};
use crate::record::make_directory;
use crate::steps::Steps;
use crate::verb::CheckError;
use allocate::Wish;
use choose::{Exhausted, Rest};
pub(crate) use error::IpamError;
use netconf::Args;
use netconf::{Address, Dns, Success};
use netconf::{Environment, Leaving, Netconf, OnlyIf};
use store::{Change, Store};

/// Azure's DNS server, which every virtual network has.
const DNS: &str = "168.63.129.16";
/// How long to wait for the lock, which is held for about a millisecond at a time.
const PATIENCE: Duration = Duration::from_secs(4);
/// How long a call may take in all: less than a main plug-in waits, which would kill us and never hear the reason.
const LIMIT: Duration = Duration::from_secs(9);

/// `azure-vnet-ipam`.
pub(crate) const PROGRAM: Program = Program {
    name: netconf::IPAM_PLUGIN,
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

fn add(call: &mut Call) -> Result<(), Error> {
    let netconf = Netconf::parse_for_ipam(&call.stdin)?;
    let args = Args::parse(&call.env.args)?;
    let wish = Wish {
        key: key(call, &netconf.name),
        address: netconf.address(&args)?,
        subnet: netconf.ipam.subnet,
        master: netconf.master.clone(),
        netns: call.env.netns.clone(),
        plugin: netconf.plugin.clone().unwrap_or_default(),
    };
    call.require_root()?;

    let ipam = Ipam::open(&call.deadline)?;
    let given = match netconf.ipam.environment {
        Environment::Azure => ipam.give_from_platform(&wish, &netconf.ipam, &mut call.steps)?,
        Environment::File => {
            call.steps.begin("file");
            ipam.give_from_file(&wish)?
        }
    };
    call.steps.begin("print");
    output::print(&result(&given.lease).to_json(netconf.version)).map_err(|error| {
        let step = call.steps.current();
        call.steps.begin("undo");
        // What the owner had before is a live pod's.
        let taken_back = if given.is_new {
            ipam.take_back(&wish.key, Going::default())
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
    call.with_stdin(|call, stdin| {
        let current = Leaving::parse(stdin)?;
        call.require_root()?;
        if let Some(complaint) = &current.complaint {
            call.warn(&format_args!("passed over at DEL: {complaint}"));
        }
        call.steps.begin("release");
        let ipam = Ipam::open(&call.deadline)?;
        let going = Going {
            address: current.address,
            only_if: call.env.only_if,
        };
        ipam.take_back(&key(call, &current.name), going)
    })
}

fn check(call: &mut Call) -> Result<(), Error> {
    let netconf = Netconf::parse_for_ipam(&call.stdin)?;
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

/// What of an owner's a DEL is to take back; all of it unless it says otherwise.
#[derive(Clone, Copy, Default)]
struct Going {
    /// Of what Azure's plug-in gave only this.
    address: Option<Ipv4Addr>,
    /// Nothing of a pod unless this is so.
    only_if: Option<OnlyIf>,
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

    fn give(&self, wish: &Wish, pools: Option<&Pools>, rest: Rest) -> Result<Given, Error> {
        self.with_store(|store| {
            takeover::take_over(&self.run, store)?;
            let is_new = store.lease_of(&wish.key)?.is_none();
            match allocate::plan_add(store, wish, pools, rest, clock::boottime_ms()) {
                Ok(Some((lease, changes))) => {
                    apply(store, &changes)?;
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

    /// Out of the loader's cache; if there is nothing, out of newer pools, and only then an address that should rest.
    fn give_from_platform(
        &self,
        wish: &Wish,
        conf: &netconf::Ipam,
        steps: &mut Steps,
    ) -> Result<Granted, Error> {
        steps.begin("cached");
        let cached = self.cached_pools();
        if let Given::Lease(given) = self.give(wish, cached.as_ref(), Rest::Full)? {
            return Ok(given);
        }
        let age = cached.as_ref().map(age);
        if let Some(age) = age
            && age < conf.query_interval
        {
            return self.give_at_last(wish, cached.as_ref(), |exhausted| {
                IpamError::ExhaustedLately {
                    exhausted,
                    age_s: age.as_secs(),
                }
            });
        }
        steps.begin("refresh");
        // Without the lock: others may have better luck meanwhile.
        match (
            Loader::of(&self.run, &self.deadline).refresh_pools(),
            cached,
        ) {
            (Ok(fresh), _) => self.give_at_last(wish, Some(&fresh), IpamError::Exhausted),
            (Err(source), Some(cached)) => self.give_at_last(wish, Some(&cached), |exhausted| {
                IpamError::StillExhausted { exhausted, source }
            }),
            (Err(source), None) => Err(IpamError::NoPools { source }.into()),
        }
    }

    /// Out of the node's file, which is read anew each time. Who has an address keeps it, whatever became of the file.
    fn give_from_file(&self, wish: &Wish) -> Result<Granted, Error> {
        match file::read(&self.boot_id) {
            Ok(pools) => self.give_at_last(wish, Some(&pools), IpamError::Exhausted),
            Err(why) => match self.give(wish, None, Rest::Full)? {
                Given::Lease(given) => Ok(given),
                Given::Nothing(_) => Err(why.into()),
            },
        }
    }

    /// When there are no newer pools to wait for: an address that should rest is better than none.
    fn give_at_last(
        &self,
        wish: &Wish,
        pools: Option<&Pools>,
        error: impl FnOnce(Exhausted) -> IpamError,
    ) -> Result<Granted, Error> {
        match self.give(wish, pools, Rest::Waived)? {
            Given::Lease(given) => Ok(given),
            Given::Nothing(exhausted) => Err(error(exhausted.unwrap_or_default()).into()),
        }
    }

    fn take_back(&self, key: &Key, going: Going) -> Result<(), Error> {
        self.with_store(|store| {
            if let Some(only_if) = going.only_if
                && going.address.is_none()
                && let Some(lease) = store.lease_of(key)?
            {
                let unknown = || Error::Unknown { key: key.clone() };
                if !only_if.allows(lease.lives()).ok_or_else(unknown)? {
                    return Ok(());
                }
            }
            // What cannot be read there keeps new addresses from being given, not old ones from being freed.
            drop(takeover::take_over(&self.run, store));
            let changes = allocate::plan_del(store, key, going.address, clock::boottime_ms())?;
            apply(store, &changes)
        })
    }
}

/// How long ago the pools were read.
fn age(pools: &Pools) -> Duration {
    Duration::from_millis(clock::boottime_ms().saturating_sub(pools.read_at_ms))
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
