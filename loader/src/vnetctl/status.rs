//! `vnetctl status`: everything on one screen, one line for scripts, or waiting until all is well.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use rpc::{Reply, Request, Status};
use serde::Serialize;

use super::ask;
use super::output::Output;

/// How often it is asked while it is waited for.
const INTERVAL: Duration = Duration::from_millis(200);

#[derive(Clone, Debug, clap::Args)]
pub(super) struct Arguments {
    /// One line, and exit status 1 unless pods can be added and are connected.
    #[arg(long)]
    brief: bool,
    /// Waits until pods can be added and are connected; ends with 1 when they cannot after so many seconds.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "60")]
    wait: Option<u32>,
}

/// Whether pods can be added and are connected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "documents", derive(schemars::JsonSchema))]
pub(crate) struct Brief {
    /// Whether there are no problems.
    pub ok: bool,
    /// Why pods cannot be added, or are not connected.
    pub problems: Vec<String>,
    /// What does not keep pods from working.
    pub warnings: Vec<String>,
    /// Pods.
    pub pods: usize,
}

pub(super) fn run(output: Output, arguments: &Arguments) -> anyhow::Result<()> {
    let status = match arguments.wait {
        Some(seconds) => wait(Duration::from_secs(seconds.into()))?,
        None => get()?,
    };
    if !arguments.brief {
        return output.print(&status, |status| {
            crate::status::render(status, output.is_wide())
        });
    }
    let brief = Brief::of(&status);
    output.print(&brief, Brief::render)?;
    ensure!(
        brief.ok,
        "pods cannot be added, or are not connected; `vnetctl doctor` says what to do"
    );
    Ok(())
}

pub(super) fn get() -> anyhow::Result<Status> {
    let reply = ask(&Request::Status)?;
    let Reply::Status(status) = reply else {
        bail!("the loader answered something else: {reply:?}");
    };
    Ok(*status)
}

/// Asks until all is well.
#[expect(
    clippy::disallowed_methods,
    reason = "nothing announces that all is well, and the loader may not even run yet"
)]
fn wait(limit: Duration) -> anyhow::Result<Status> {
    let begun = Instant::now();
    loop {
        let problem = match get() {
            Ok(status) => match Brief::of(&status).problems.join("; ") {
                none if none.is_empty() => return Ok(status),
                problems => problems,
            },
            Err(error) => crate::report::one_line(&error),
        };
        if begun.elapsed() >= limit {
            bail!("not well after {} s: {problem}", limit.as_secs());
        }
        sleep(INTERVAL);
    }
}

impl Brief {
    fn of(status: &Status) -> Self {
        let mut problems: Vec<String> = status.unready.iter().cloned().collect();
        let limits = status.limits.iter();
        problems.extend(
            limits
                .filter(|one| status.unready.as_ref() != Some(one))
                .cloned(),
        );
        let warnings = status.config.rejected.iter().chain(&status.warnings);
        let warnings = warnings.filter(|one| !problems.contains(one)).cloned();
        Self {
            ok: problems.is_empty(),
            warnings: warnings.collect(),
            problems,
            pods: status.pods.len(),
        }
    }

    fn render(&self) -> String {
        let state = if self.ok { "ok" } else { "NOT OK" };
        let (pods, warnings) = (self.pods, self.warnings.len());
        let problems = self.problems.join("; ");
        let colon = if self.ok { "" } else { ": " };
        format!("{state}, {pods} pods, {warnings} warnings{colon}{problems}\n")
    }
}
