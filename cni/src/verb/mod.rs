//! The main plug-in's verbs.

mod add;
mod address;
mod check;
mod connect;
mod del;
mod gc;
mod state;
mod status;
mod update;

use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use hooks::Pins;
use rpc::{Key, RunDirectory};
use tokio::runtime::{Builder, Runtime};

pub(crate) use add::AddError;
pub(crate) use check::CheckError;
pub(crate) use gc::{GcError, complaint as gc_complaint, valid as valid_attachments};
pub(crate) use status::StatusError;
pub(crate) use update::AzureError;

use crate::deadline::Deadline;
use crate::env::{self, Command};
use crate::error::Error;
use crate::link::{LinkError, Netlink};
use crate::loader::Loader;
use crate::program::{Call, Program};
use crate::record::Records;

/// How long an ADD or CHECK may work. With what undoing adds, an ADD answers within 20 s (contract §1.6).
const ADD_LIMIT: Duration = Duration::from_secs(15);
/// How much longer an ADD that fails may take to undo what it did.
const UNDO: Duration = Duration::from_millis(4500);
/// How long a DEL may work. Runtimes give it a minute.
const DEL_LIMIT: Duration = Duration::from_secs(45);
/// How long a GC may work. CRI-O gives it 30 s.
const GC_LIMIT: Duration = Duration::from_secs(25);
/// How long the others may work. containerd waits for STATUS without any limit, and for nothing else meanwhile.
const LOOK_LIMIT: Duration = Duration::from_secs(4);

/// `azure-vnet`.
pub(crate) const PROGRAM: Program = Program {
    name: "azure-vnet",
    about: "CNI plug-in that connects pods to an Azure virtual network with eBPF",
    log: "/var/log/azure-vnet.log",
    verbs: &[
        (Command::Add, |call| located(call, add::add)),
        (Command::Check, |call| located(call, check::check)),
        (Command::Del, |call| located(call, del::del)),
        (Command::Gc, |call| located(call, gc::gc)),
        (Command::Status, |call| located(call, status::status)),
        (Command::EndpointState, |call| located(call, state::print)),
        (Command::Update, |call| located(call, update::update)),
    ],
    required: |command| match command {
        Command::Add | Command::Check => &[env::CONTAINER_ID, env::NETNS, env::IFNAME, env::PATH],
        Command::Del => &[env::CONTAINER_ID, env::IFNAME, env::PATH],
        Command::Gc | Command::Status => &[env::PATH],
        Command::EndpointState | Command::Update => &[],
    },
    limit: |command| match command {
        Command::Add | Command::Check => ADD_LIMIT,
        Command::Del => DEL_LIMIT,
        Command::Gc => GC_LIMIT,
        Command::Status | Command::EndpointState | Command::Update => LOOK_LIMIT,
    },
};

/// Does `work`, whose error then names the step that failed.
fn located(
    call: &mut Call,
    work: impl FnOnce(&mut Call) -> Result<(), Error>,
) -> Result<(), Error> {
    work(call).map_err(|error| {
        if matches!(error, Error::At { .. }) {
            return error;
        }
        Error::At {
            step: call.steps.current(),
            source: Box::new(error),
            left: Vec::new(),
        }
    })
}

/// The node, as a verb sees it.
pub(crate) struct Node {
    pub(crate) runtime: Rc<Runtime>,
    pub(crate) netlink: Netlink,
    pub(crate) run: RunDirectory,
    pub(crate) records: Records,
    pub(crate) loader: Loader,
    pub(crate) pins: Pins,
    pub(crate) deadline: Deadline,
}

impl Node {
    fn open(deadline: &Deadline) -> Result<Self, Error> {
        let runtime = runtime().map_err(|source| LinkError::Netlink {
            doing: "start the event loop".into(),
            source,
        })?;
        let run = RunDirectory::default();
        Ok(Self {
            netlink: Netlink::here(&runtime)?,
            runtime,
            records: Records::open(&run)?,
            loader: Loader::of(&run, deadline),
            run,
            deadline: deadline.clone(),
            pins: Pins::default(),
        })
    }

    /// Where the lock of an attachment is.
    fn lock_of(&self, key: &Key) -> PathBuf {
        self.run.locks().join(key.file_name())
    }
}

fn runtime() -> io::Result<Rc<Runtime>> {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .map(Rc::new)
}

fn key(call: &Call, network: &str) -> Key {
    Key {
        network: network.to_owned(),
        container_id: call.env.container_id.clone(),
        ifname: call.env.ifname.clone(),
    }
}
