//! Asking the loader, with a limit on the whole exchange.

use std::path::PathBuf;
use std::time::Duration;

use rpc::{CallError, Endpoint, Key, NodeView, Pools, Refusal, Reply, Request, RunDirectory};

use crate::deadline::{Deadline, Patience};
use netconf::code;

/// ADD and CHECK: how long the loader may take.
const PATIENT: Duration = Duration::from_secs(5);
/// DEL: it leaves a tombstone and goes on.
const HASTY: Duration = Duration::from_secs(2);

/// The loader was not reached, or said no.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoaderError {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error(
        "ask the loader at {socket}: no answer within {patience}; see the loader's log (journalctl -u azure-vnet-loader)"
    )]
    Late { socket: PathBuf, patience: Patience },
    #[error("the loader refuses: {0}")]
    Refused(#[from] Refusal),
    #[error(
        "ask the loader at {socket}: it answered something else than what was asked; loader and plug-in must be of the same version"
    )]
    OffTopic { socket: PathBuf },
}

impl LoaderError {
    /// The CNI code.
    pub(crate) fn code(&self) -> u32 {
        match self {
            Self::Call(_) | Self::Late { .. } | Self::Refused(_) => code::TRY_AGAIN,
            Self::OffTopic { .. } => code::PLUGIN,
        }
    }
}

/// The loader, known by its socket.
#[derive(Clone, Debug)]
pub(crate) struct Loader {
    socket: PathBuf,
    deadline: Deadline,
}

impl Loader {
    /// The loader of this node, for a call that must be over at `deadline`.
    pub(crate) fn of(run: &RunDirectory, deadline: &Deadline) -> Self {
        Self {
            socket: run.socket(),
            deadline: deadline.clone(),
        }
    }

    /// Is the data path ready, and what must a pod know of the node?
    pub(crate) fn node(&self) -> Result<NodeView, LoaderError> {
        match self.ask(&Request::Node, PATIENT)? {
            Reply::Node(node) => Ok(node),
            Reply::Done
            | Reply::Pools(_)
            | Reply::Classes { .. }
            | Reply::Status(_)
            | Reply::Health { .. }
            | Reply::Refused(_) => Err(self.off_topic()),
        }
    }

    /// Why pods that are there may not be connected as they should be. A loader of an earlier version does not know.
    pub(crate) fn limits(&self) -> Result<Vec<String>, LoaderError> {
        match self.ask(&Request::Health, PATIENT) {
            Ok(Reply::Health { limits }) => Ok(limits),
            Err(LoaderError::Refused(_)) => Ok(Vec::new()),
            Ok(_) => Err(self.off_topic()),
            Err(error) => Err(error),
        }
    }

    /// Puts the endpoint into the maps.
    pub(crate) fn register(&self, endpoint: &Endpoint) -> Result<(), LoaderError> {
        self.done(&Request::Register(endpoint.clone()), PATIENT)
    }

    /// Takes it out.
    pub(crate) fn unregister(&self, endpoint: &Endpoint) -> Result<(), LoaderError> {
        self.done(&Request::Unregister(endpoint.clone()), HASTY)
    }

    /// Removes a host veth.
    pub(crate) fn remove_link(&self, name: &str, index: u32) -> Result<(), LoaderError> {
        let name = name.to_owned();
        self.done(&Request::RemoveLink { name, index }, HASTY)
    }

    /// Do maps and records agree?
    pub(crate) fn inspect(&self, key: &Key) -> Result<(), LoaderError> {
        self.done(&Request::Inspect { key: key.clone() }, PATIENT)
    }

    /// The pools, fresh from the wireserver.
    pub(crate) fn refresh_pools(&self) -> Result<Pools, LoaderError> {
        match self.ask(&Request::RefreshPools, PATIENT)? {
            Reply::Pools(pools) => Ok(pools),
            Reply::Done
            | Reply::Node(_)
            | Reply::Classes { .. }
            | Reply::Status(_)
            | Reply::Health { .. }
            | Reply::Refused(_) => Err(self.off_topic()),
        }
    }

    fn done(&self, request: &Request, most: Duration) -> Result<(), LoaderError> {
        match self.ask(request, most)? {
            Reply::Done => Ok(()),
            Reply::Node(_)
            | Reply::Pools(_)
            | Reply::Classes { .. }
            | Reply::Status(_)
            | Reply::Health { .. }
            | Reply::Refused(_) => Err(self.off_topic()),
        }
    }

    fn ask(&self, request: &Request, most: Duration) -> Result<Reply, LoaderError> {
        let patience = self.deadline.spare(most);
        let late = || LoaderError::Late {
            socket: self.socket.clone(),
            patience,
        };
        if patience.limit().is_zero() {
            // Nobody would hear the answer, but the loader would act.
            return Err(late());
        }
        match rpc::call(&self.socket, request, patience.limit()) {
            Ok(Reply::Refused(refusal)) => Err(refusal.into()),
            Ok(answer) => Ok(answer),
            Err(error) if error.is_late() => Err(late()),
            Err(error) => Err(error.into()),
        }
    }

    fn off_topic(&self) -> LoaderError {
        LoaderError::OffTopic {
            socket: self.socket.clone(),
        }
    }
}
