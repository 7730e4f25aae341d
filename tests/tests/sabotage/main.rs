//! Somebody takes away, changes or puts in the way of what the loader has made. Each row is one way of doing it: within five
//! seconds all is as it was, or the loader says in its status, in its log and by STATUS 51 what it cannot mend; pods'
//! connections live or are cut as the row says, and no packet with another's source ever gets through.
//!
//! The loader is stopped while it is done to it, so that the damage can be seen, and the time runs from when it goes on.
#![cfg(test)]

mod entries;
mod files;
mod kernel;
mod lies;
mod nic;
mod pins;
mod programs;
mod repairs;
mod sabotage;
mod scene;

use scene::Scene;

/// One way of sabotage. Scripts are the node's shell's; VETH, ADDR, MAC and the like are those of the pod that suffers.
pub(crate) struct Row {
    /// What is done.
    pub(crate) name: &'static str,
    /// By whom.
    pub(crate) deed: Deed,
    /// Succeeds when all is as it shall be; fails right after the deed, unless that is [`Outcome::Harmless`].
    pub(crate) whole: &'static str,
    /// And both of the NIC's programs run on this interface.
    pub(crate) runs_on: Option<&'static str>,
    /// What comes of it.
    pub(crate) outcome: Outcome,
    /// What becomes of a TCP connection of the pod.
    pub(crate) stream: Stream,
    /// What the loader mends though it can only tell of the rest.
    pub(crate) meanwhile: Option<&'static str>,
    /// It is done again as soon as it is mended.
    pub(crate) again: bool,
    /// Undoes what the loader only tells of; then `whole` must hold.
    pub(crate) undo: Option<&'static str>,
}

pub(crate) enum Deed {
    Shell(&'static str),
    Call(fn(&Scene) -> anyhow::Result<()>),
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is as before.
    Mended,
    /// The loader takes the change over: `whole` says so.
    Followed,
    /// The status warns, with these words; STATUS succeeds.
    Warned(&'static str),
    /// The status warns, with these words, and STATUS fails with code 51, for as long as it lasts.
    Limited(&'static str),
    /// Nothing happens.
    Harmless,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    /// Lives, and never waits for as long as a second.
    Flows,
    /// Lives.
    Stalls,
    /// The node may break it.
    MayBreak,
}

impl Row {
    /// Mended, and no connection notices.
    pub(crate) const fn mended(
        name: &'static str,
        deed: &'static str,
        whole: &'static str,
    ) -> Self {
        Self {
            name,
            deed: Deed::Shell(deed),
            whole,
            runs_on: None,
            outcome: Outcome::Mended,
            stream: Stream::Flows,
            meanwhile: None,
            again: false,
            undo: None,
        }
    }

    pub(crate) const fn runs_on(mut self, nic: &'static str) -> Self {
        self.runs_on = Some(nic);
        self
    }

    pub(crate) const fn outcome(mut self, outcome: Outcome) -> Self {
        self.outcome = outcome;
        self
    }

    pub(crate) const fn stream(mut self, stream: Stream) -> Self {
        self.stream = stream;
        self
    }

    pub(crate) const fn meanwhile(mut self, meanwhile: &'static str) -> Self {
        self.meanwhile = Some(meanwhile);
        self
    }

    pub(crate) const fn again(mut self) -> Self {
        self.again = true;
        self
    }

    pub(crate) const fn undo(mut self, undo: &'static str) -> Self {
        self.undo = Some(undo);
        self
    }

    pub(crate) const fn by(mut self, call: fn(&Scene) -> anyhow::Result<()>) -> Self {
        self.deed = Deed::Call(call);
        self
    }
}
