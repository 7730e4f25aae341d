//! How is one plug-in executed, and what does its output say?

use std::fmt;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use serde_json::Value;

use crate::libcni::{Attachment, CNI_PATH, Verb};
use crate::namespace::Namespace;
use crate::process::{Finished, run};

/// How long one plug-in may take before the runtime kills it.
const PLUGIN_TIMEOUT: Duration = Duration::from_mins(1);
/// The error object that a plug-in printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CniError {
    pub plugin: String,
    pub code: u64,
    pub msg: String,
    pub details: String,
}

impl fmt::Display for CniError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: code {}: {}", self.plugin, self.code, self.msg)?;
        if !self.details.is_empty() {
            write!(f, " ({})", self.details)?;
        }
        Ok(())
    }
}

impl std::error::Error for CniError {}

/// Runs one plug-in in the node as a runtime does and returns everything that it left, also on failure.
pub fn exec(
    node: &Namespace,
    plugin: &str,
    environment: &[(&str, String)],
    stdin: &[u8],
) -> Result<Finished> {
    run(command(node, plugin, environment), stdin, PLUGIN_TIMEOUT).with_context(|| {
        format!(
            "{plugin} in {} (`cargo xtask build` makes the product's binaries)",
            node.name()
        )
    })
}

/// A plug-in to be run in the node.
pub(crate) fn command(node: &Namespace, plugin: &str, environment: &[(&str, String)]) -> Command {
    let mut command = node.command(&format!("{CNI_PATH}/{plugin}"));
    command.envs(environment.iter().map(|(key, value)| (key, value)));
    command
}

/// Runs one plug-in and reads its result or its error.
pub(crate) fn call(
    node: &Namespace,
    verb: Verb,
    plugin: &str,
    attachment: &Attachment,
    netconf: &Value,
) -> Result<Option<Value>> {
    ensure!(
        !plugin.is_empty(),
        "a plug-in of the conflist has no `type`"
    );
    let stdin = serde_json::to_vec(netconf)?;
    let finished = exec(node, plugin, &attachment.environment(verb), &stdin)?;
    outcome(plugin, &finished).with_context(|| format!("{} of {plugin}", verb.name()))
}

/// The result that a plug-in printed, if any, or its error as a [`CniError`] (`error.downcast_ref()`).
pub fn outcome(plugin: &str, finished: &Finished) -> Result<Option<Value>> {
    let Finished { stdout, stderr, .. } = finished;
    if finished.status.success() {
        if stdout.trim_ascii().is_empty() {
            return Ok(None);
        }
        let parsed = serde_json::from_slice(stdout);
        return parsed
            .map(Some)
            .with_context(|| format!("stdout is not JSON: {}", String::from_utf8_lossy(stdout)));
    }
    let Ok(error) = serde_json::from_slice::<Value>(stdout) else {
        let stdout = String::from_utf8_lossy(stdout);
        bail!(
            "{}, no error object: stdout {stdout}, stderr {stderr}",
            finished.status
        );
    };
    let text = |key| {
        error
            .get(key)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    Err(anyhow!(CniError {
        plugin: plugin.to_owned(),
        code: error
            .get("code")
            .and_then(Value::as_u64)
            .unwrap_or_default(),
        msg: text("msg"),
        details: text("details"),
    }))
}
