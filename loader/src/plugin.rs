//! Calls a CNI plug-in, as a runtime would.

use std::io::{ErrorKind, Write as _};
use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::bounded::{NOT_FOUND, hangs, within};

/// Seconds that a plug-in may take. Ours ends by itself before that, unless it is stopped or the kernel keeps it.
const PATIENCE: u64 = 60;

/// Runs the plug-in `name` of the folder `bin`. What it printed; its own message when it fails.
pub(crate) fn call<'a>(
    bin: &Path,
    name: &str,
    environment: impl IntoIterator<Item = (&'a str, &'a str)>,
    conf: &Value,
) -> Result<Value> {
    call_within(PATIENCE, bin, name, environment, conf)
}

fn call_within<'a>(
    seconds: u64,
    bin: &Path,
    name: &str,
    environment: impl IntoIterator<Item = (&'a str, &'a str)>,
    conf: &Value,
) -> Result<Value> {
    let (plugin, began) = (bin.join(name), Instant::now());
    let mut child = within(seconds, &plugin)
        .env_clear()
        .env("CNI_PATH", bin)
        .envs(environment)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("run {}", plugin.display()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that cannot be run reads nothing, and its end tells more.
        let told = stdin.write_all(conf.to_string().as_bytes());
        if let Err(error) = told
            && error.kind() != ErrorKind::BrokenPipe
        {
            return Err(error).with_context(|| format!("talk to {}", plugin.display()));
        }
    }
    let done = child
        .wait_with_output()
        .with_context(|| format!("wait for {}", plugin.display()))?;
    let answer: Value = serde_json::from_slice(&done.stdout).unwrap_or_default();
    if done.status.success() {
        return Ok(answer);
    }
    let plugin = plugin.display();
    match (
        answer.get("msg").and_then(Value::as_str),
        done.status.code(),
    ) {
        (Some(why), _) => bail!("{plugin}: {why}"),
        (None, _) if hangs(done.status, began.elapsed(), seconds) => {
            bail!("{plugin}: it hangs, and was ended after {seconds} s")
        }
        (None, Some(NOT_FOUND)) => {
            bail!("run {plugin}: there is none; --bin-dir names the directory")
        }
        (None, _) => bail!("{plugin}: {}", done.status),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `bash` says as a plug-in with this script before it reads anything.
    fn call(script: &str) -> Result<Value> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("script");
        std::fs::write(&path, script).unwrap();
        let environment = [("BASH_ENV", path.to_str().unwrap())];
        call_within(1, Path::new("/bin"), "bash", environment, &Value::Null)
    }

    #[test]
    fn a_plug_in_that_hangs_is_ended_and_told_of() {
        let why = call("exec sleep 1000").unwrap_err().to_string();
        assert_eq!(why, "/bin/bash: it hangs, and was ended after 1 s");
        // Nor does one that hears nothing keep us.
        let why = call("trap '' TERM; while :; do sleep 1000; done").unwrap_err();
        assert_eq!(
            why.to_string(),
            "/bin/bash: it hangs, and was ended after 1 s"
        );
        // Somebody else's doing.
        let why = call("kill -9 $$").unwrap_err().to_string();
        assert!(why.contains("signal: 9"), "{why}");
    }

    #[test]
    fn what_a_plug_in_says_itself_comes_first_and_one_that_is_not_there_is_named() {
        let answer = call("echo '{\"ips\": []}'; exit 0").unwrap();
        assert!(answer.get("ips").is_some(), "{answer}");
        let why = call("echo '{\"msg\": \"no room\"}'; exit 124").unwrap_err();
        assert_eq!(why.to_string(), "/bin/bash: no room");
        let why = super::call(Path::new("/no/such"), "bash", [], &Value::Null).unwrap_err();
        let told = "run /no/such/bash: there is none; --bin-dir names the directory";
        assert_eq!(why.to_string(), told);
    }
}
