//! The main plug-in's verbs.

mod add;
mod check;
mod connect;
mod del;

use std::io;
use std::rc::Rc;

use hooks::Pins;
use rpc::{Key, RunDirectory};
use tokio::runtime::{Builder, Runtime};

pub(crate) use add::AddError;
pub(crate) use check::CheckError;

use crate::env::{self, Command};
use crate::error::Error;
use crate::link::{LinkError, Netlink};
use crate::loader::Loader;
use crate::program::{Call, Program};
use crate::record::Records;

/// `azure-vnet`.
pub(crate) const PROGRAM: Program = Program {
    name: "azure-vnet",
    about: "CNI plug-in that connects pods to an Azure virtual network with eBPF",
    log: "/var/log/azure-vnet.log",
    add: add::add,
    check: check::check,
    del: del::del,
    required: |command| match command {
        Command::Add | Command::Check => &[env::CONTAINER_ID, env::NETNS, env::IFNAME, env::PATH],
        Command::Del => &[env::CONTAINER_ID, env::IFNAME, env::PATH],
    },
};

/// The node, as a verb sees it.
pub(crate) struct Node {
    pub(crate) runtime: Rc<Runtime>,
    pub(crate) netlink: Netlink,
    pub(crate) run: RunDirectory,
    pub(crate) records: Records,
    pub(crate) loader: Loader,
    pub(crate) pins: Pins,
}

impl Node {
    fn open() -> Result<Self, Error> {
        let runtime = runtime().map_err(|source| LinkError::Netlink {
            doing: "start the event loop".into(),
            source,
        })?;
        let run = RunDirectory::default();
        Ok(Self {
            netlink: Netlink::here(&runtime)?,
            runtime,
            records: Records::open(&run)?,
            loader: Loader::of(&run),
            run,
            pins: Pins::default(),
        })
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
