//! The runtime's configuration, which sends pods: written last, once they can be served.
//!
//! The file is the operator's; the runtime gets a copy of it under the same name. It is written only while STATUS is good,
//! and stays when that gets worse: the runtime asks STATUS, and a node that loses its network stops more than new pods.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use netconf::conflist::{Finding, check};
use rpc::{LOADER_CONFIG, StateError, replace};
use serde_json::Value;
use tracing::info;

use crate::daemon::Daemon;
use crate::trouble::Topic;
use crate::validate::{CONFLISTS, errors};

/// The runtime does not have the configuration that it should have.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConflistError {
    /// One of the two files cannot be read.
    #[error("read {path}: {source}; {LOADER_CONFIG} names it as `conflist`")]
    Read { path: PathBuf, source: io::Error },
    /// Pods could not be added with it.
    #[error(
        "{path} cannot be used: line {}: {}; `vnetctl validate {path}` tells all, and what the runtime has stays",
        first.line, first.message
    )]
    Refused { path: PathBuf, first: Box<Finding> },
    /// Somebody else's file has its name.
    #[error(
        "{path} is not ours, its first plug-in is {}: it stays; move it away, or give `conflist` another name in {LOADER_CONFIG}",
        first.as_deref().unwrap_or("none at all")
    )]
    Foreign {
        path: PathBuf,
        first: Option<String>,
    },
    /// Not yet.
    #[error("{path} waits until pods can be added: {why}")]
    Early { path: PathBuf, why: String },
    /// It cannot be written.
    #[error(transparent)]
    Write(#[from] StateError),
}

/// The setting's value as a path, or what is wrong with it.
pub(crate) fn source(text: &str) -> Result<PathBuf, &'static str> {
    let path = Path::new(text);
    if !path.is_absolute() {
        return Err("is not an absolute path");
    }
    if path.extension() != Some(OsStr::new("conflist")) {
        return Err("does not end in .conflist");
    }
    if path.parent() == Some(Path::new(CONFLISTS)) {
        return Err("is where the runtime reads it before the node is ready");
    }
    Ok(path.to_owned())
}

impl Daemon {
    /// Gives the runtime its configuration, when there is one to give, and again when somebody has taken it away.
    pub(crate) fn keep_conflist(&self) {
        let source = self.configuration.borrow().config.conflist.clone();
        let Some(source) = source.filter(|_| !self.leaving.get()) else {
            return self.judge(Topic::Conflist, None);
        };
        let target = Path::new(CONFLISTS).join(source.file_name().unwrap_or_default());
        let kept = keep(&source, &target, || self.serves());
        self.judge(Topic::Conflist, kept.err().map(|error| error.to_string()));
    }

    /// Whether STATUS is good.
    fn serves(&self) -> Result<(), String> {
        match self.troubles.borrow().limiting().as_slice() {
            [] => self.readiness(),
            limits => Err(limits.join("; ")),
        }
    }
}

fn keep(
    source: &Path,
    target: &Path,
    serves: impl FnOnce() -> Result<(), String>,
) -> Result<(), ConflistError> {
    let read = |path: &Path| {
        fs::read_to_string(path).map_err(|error| ConflistError::Read {
            path: path.to_owned(),
            source: error,
        })
    };
    let wanted = read(source)?;
    let there = match read(target) {
        Ok(there) => Some(there),
        Err(ConflistError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    if there.as_deref() == Some(&wanted) {
        return Ok(());
    }
    may_write(source, &wanted, target, there.as_deref())?;
    serves().map_err(|why| ConflistError::Early {
        path: target.to_owned(),
        why,
    })?;
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent).map_err(|error| StateError::io("create", parent, error))?;
    }
    replace(target, wanted.as_bytes())?;
    info!(path = %target.display(), replaced = there.is_some(), "wrote the runtime's configuration");
    Ok(())
}

/// Whether what is wanted can be used, and replaces nobody else's.
fn may_write(
    source: &Path,
    wanted: &str,
    target: &Path,
    there: Option<&str>,
) -> Result<(), ConflistError> {
    let findings = check(wanted);
    if let Some(first) = errors(&findings).next() {
        return Err(ConflistError::Refused {
            path: source.to_owned(),
            first: Box::new(first.clone()),
        });
    }
    let Some(there) = there else { return Ok(()) };
    let first = first_plugin(there);
    if first.as_deref() == Some(netconf::MAIN_PLUGIN) {
        return Ok(());
    }
    Err(ConflistError::Foreign {
        path: target.to_owned(),
        first,
    })
}

/// `type` of the first plug-in of a list.
fn first_plugin(text: &str) -> Option<String> {
    let list: Value = serde_json::from_str(text).ok()?;
    Some(list.pointer("/plugins/0/type")?.as_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    const OURS: &str = include_str!("../../deploy/10-azure.conflist");

    /// Keeps `target` like `source`, each with this content; what came of it and what there is then.
    fn kept(
        wanted: &str,
        there: Option<&str>,
        serves: Result<(), String>,
    ) -> (Result<(), ConflistError>, Option<String>) {
        let root = tempfile::tempdir().unwrap();
        let source = root.path().join("10-azure.conflist");
        let target = root.path().join("net.d/10-azure.conflist");
        fs::write(&source, wanted).unwrap();
        if let Some(there) = there {
            fs::create_dir(target.parent().unwrap()).unwrap();
            fs::write(&target, there).unwrap();
        }
        let done = keep(&source, &target, || serves);
        if let Ok(entries) = fs::read_dir(target.parent().unwrap()) {
            assert!(entries.count() <= 1, "something is left");
        }
        (done, fs::read_to_string(&target).ok())
    }

    #[test]
    fn it_is_written_once_pods_can_be_served_and_not_before() {
        let (done, there) = kept(OURS, None, Err("no address is left".into()));
        assert!(matches!(done, Err(ConflistError::Early { .. })), "{done:?}");
        assert_eq!(there, None);
        let (done, there) = kept(OURS, None, Ok(()));
        done.unwrap();
        assert_eq!(there.as_deref(), Some(OURS));
    }

    #[test]
    fn ours_is_replaced_by_what_can_be_used_and_nothing_else_is() {
        let older = OURS.replace("0.3.0", "0.4.0");
        let others = r#"{"name": "x", "plugins": [{"type": "calico"}, {"type": "azure-vnet"}]}"#;
        for (wanted, there, expected) in [
            (OURS, older.as_str(), None),
            (OURS, others, Some("its first plug-in is calico")),
            (OURS, "", Some("its first plug-in is none at all")),
            (others, OURS, Some("cannot be used: line 1:")),
            ("{", OURS, Some("vnetctl validate")),
        ] {
            let (done, after) = kept(wanted, Some(there), Ok(()));
            let why = done.err().map(|error| error.to_string());
            match expected {
                None => assert_eq!((why, after.as_deref()), (None, Some(wanted))),
                Some(part) => {
                    assert!(
                        why.as_ref().is_some_and(|why| why.contains(part)),
                        "{why:?}"
                    );
                    assert_eq!(after.as_deref(), Some(there));
                }
            }
        }
    }

    #[test]
    fn what_is_there_already_is_left_alone_whatever_the_node_can_do() {
        let asked = Cell::new(false);
        let root = tempfile::tempdir().unwrap();
        let same = root.path().join("10-azure.conflist");
        fs::write(&same, OURS).unwrap();
        let serves = || {
            asked.set(true);
            Err(String::new())
        };
        keep(&same, &same, serves).unwrap();
        assert!(!asked.get());
    }

    #[test]
    fn a_source_that_the_runtime_would_read_too_early_is_refused() {
        for (text, expected) in [
            ("/etc/azure-vnet/10-azure.conflist", None),
            ("10-azure.conflist", Some("absolute")),
            ("/etc/azure-vnet/10-azure.json", Some(".conflist")),
            (
                "/etc/cni/net.d/10-azure.conflist",
                Some("before the node is ready"),
            ),
        ] {
            match (source(text), expected) {
                (Ok(path), None) => assert_eq!(path, Path::new(text)),
                (Err(why), Some(part)) => assert!(why.contains(part), "{text}: {why}"),
                (other, _) => panic!("{text}: {other:?}"),
            }
        }
    }
}
