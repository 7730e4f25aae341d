//! Before anything else goes: nobody adds a pod any more, and nobody starts the loader. Unless all of that can be had, it comes back.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, anyhow, ensure};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rpc::{Request, RunDirectory, lock_within};

use super::super::doctor::{Conflist, Node};
use super::unit::Unit;
use super::{Refusal, held, remove};
use crate::leaks::Holding;
use crate::report::one_line;

/// How long the loader may take to end.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long it may take to hear what is coming.
const ANSWER: Duration = Duration::from_secs(5);

/// No conflist, no loader, no pod that may not be cut off.
pub(super) struct Silence {
    /// What there is now.
    pub(super) node: Node,
    pub(super) held: Vec<Holding>,
    /// What is gone for it.
    pub(super) removed: Vec<String>,
    /// Keeps a loader from starting.
    pub(super) _lock: Option<File>,
}

/// What goes, and comes back if that was in vain.
struct Parts<'a> {
    before: &'a Node,
    conflists: Vec<&'a Conflist>,
    unit: Unit,
}

impl Silence {
    pub(super) fn over(before: &Node, force: bool) -> anyhow::Result<Self> {
        let conflists = before.conflists.iter();
        let parts = Parts {
            before,
            conflists: conflists.filter(|conflist| conflist.is_ours()).collect(),
            unit: Unit::look(),
        };
        let silence = parts.take_away(force);
        silence.map_err(|why| anyhow!("{}; {}", one_line(&why), parts.put_back()))
    }
}

impl Parts<'_> {
    /// The runtime's reason to call us first, then the loader.
    fn take_away(&self, force: bool) -> anyhow::Result<Silence> {
        let run = &self.before.run;
        if self.before.loader.is_some() {
            // An earlier one does not know the question, and puts no conflist back.
            let _whatever = rpc::call(&run.socket(), &Request::Leave, ANSWER);
        }
        let mut removed = Vec::new();
        for conflist in &self.conflists {
            remove(&conflist.path, &mut removed)?;
        }
        Unit::disable()?;
        let lock = stop(self.before)?;
        // A runtime had read the conflist, and the loader has served it until now. Only from here on can no ADD succeed.
        let node = Node::look();
        let held = held(&node, force).map_err(|why| {
            let what = match why {
                Refusal::Living(_) => "a pod came meanwhile",
                Refusal::Unknown(_) => "nobody can tell whether a pod came meanwhile",
            };
            anyhow::Error::from(why).context(what)
        })?;
        Ok(Silence {
            node,
            held,
            removed,
            _lock: lock,
        })
    }

    /// Puts back whatever can be, and says what the operator has to do yet.
    fn put_back(&self) -> String {
        let runs = self.before.loader.is_some() && has_loader(&self.before.run);
        let is_there =
            |one: &Conflist| fs::read(&one.path).is_ok_and(|text| text == one.text.as_bytes());
        let gone = self.conflists.iter().filter(|one| !is_there(one));
        let mut failed: Vec<String> = gone
            .filter_map(|one| rpc::replace(&one.path, one.text.as_bytes()).err())
            .map(|error| error.to_string())
            .collect();
        let (is_started, unrestored) = self.unit.restore();
        failed.extend(unrestored);
        let conflist = if failed.is_empty() {
            "the conflist is back".to_owned()
        } else {
            format!("could not put back: {}", failed.join("; "))
        };
        match self.before.loader {
            Some(pid) if runs => format!(
                "{conflist}, but the loader, process {pid}, still runs and was told to leave: end it, and start it again"
            ),
            Some(pid) if !is_started => {
                format!("{conflist}, but the loader, process {pid}, has ended: start it again")
            }
            _ if failed.is_empty() => format!("{conflist}, and the loader as it was"),
            _ => conflist,
        }
    }
}

fn lock_of_the_loader(run: &RunDirectory) -> PathBuf {
    run.root().join("loader.lock")
}

/// Whether a loader has the lock.
fn has_loader(run: &RunDirectory) -> bool {
    let lock = File::open(lock_of_the_loader(run));
    lock.is_ok_and(|lock| matches!(lock_within(&lock, Duration::ZERO), Ok(false)))
}

/// As systemd would. Ends when nobody holds the loader's lock, and holds it then.
fn stop(node: &Node) -> anyhow::Result<Option<File>> {
    if let Some(pid) = node.loader {
        match kill(Pid::from_raw(pid), Signal::SIGTERM) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => {
                return Err(error).with_context(|| format!("end the loader, process {pid}"));
            }
        }
    }
    let path = lock_of_the_loader(&node.run);
    let lock = match File::open(&path) {
        Err(absent) if absent.kind() == ErrorKind::NotFound => return Ok(None),
        opened => opened.with_context(|| format!("open {}", path.display()))?,
    };
    let ended = lock_within(&lock, PATIENCE).context("wait for the loader's end")?;
    ensure!(
        ended,
        "the loader, which holds {}, has not ended after {} s: end it, and try again",
        path.display(),
        PATIENCE.as_secs()
    );
    Ok(Some(lock))
}
