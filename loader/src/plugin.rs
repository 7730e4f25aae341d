//! Calls a CNI plug-in, as a runtime would.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

/// Runs the plug-in `name` of the folder `bin`. What it printed; its own message when it fails.
pub(crate) fn call<'a>(
    bin: &Path,
    name: &str,
    environment: impl IntoIterator<Item = (&'a str, &'a str)>,
    conf: &Value,
) -> Result<Value> {
    let plugin = bin.join(name);
    let mut child = Command::new(&plugin)
        .env_clear()
        .env("CNI_PATH", bin)
        .envs(environment)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("run {}; --bin-dir names the directory", plugin.display()))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin
            .write_all(conf.to_string().as_bytes())
            .with_context(|| format!("talk to {}", plugin.display()))?;
    }
    let done = child
        .wait_with_output()
        .with_context(|| format!("wait for {}", plugin.display()))?;
    let answer: Value = serde_json::from_slice(&done.stdout).unwrap_or_default();
    if done.status.success() {
        return Ok(answer);
    }
    match answer.get("msg").and_then(Value::as_str) {
        Some(why) => bail!("{}: {why}", plugin.display()),
        None => bail!("{}: {}", plugin.display(), done.status),
    }
}
