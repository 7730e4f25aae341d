//! `vnetctl doctor`: what is wrong with this node, why that matters, and what to do. Looks only; needs no loader.
//!
//! | Question | Module |
//! |---|---|
//! | What do the checks look at? | `node` |
//! | Can the kernel do what is needed? | `kernel` |
//! | Will the runtime call us, and find what it calls? | `cni` |
//! | Does the loader do its work? | `loader` |
//! | Are there addresses for pods? | `addresses` |
//! | Does the node's network get in the way? | `network` |
//! | Do udev or systemd-networkd? | `systemd` |
//! | Do other people's rules? | `rules`, judged by [`crate::foreign`] |

mod addresses;
mod cni;
mod kernel;
mod loader;
mod network;
mod node;
mod rules;
mod systemd;

use std::thread::sleep;
use std::time::Duration;

use serde::Serialize;

use super::output::Output;
use crate::words::some;
pub(super) use node::{Conflist, Node};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[cfg_attr(feature = "documents", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub(crate) enum Severity {
    /// Pods cannot be added, or are not connected as they should be.
    Error,
    /// It will be, or it is not what the operator believes.
    Warning,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "documents", derive(schemars::JsonSchema))]
pub(crate) struct Finding {
    /// Name of the check.
    pub name: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What was seen.
    pub what: String,
    /// Why it matters.
    pub why: String,
    /// What to do.
    pub remedy: String,
}

/// What all checks found.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "documents", derive(schemars::JsonSchema))]
pub(crate) struct Report {
    /// How many checks there are.
    pub checks: usize,
    /// What is wrong, the worst first.
    pub findings: Vec<Finding>,
}

/// What a check tells; the table of checks has its name.
struct Problem {
    severity: Severity,
    what: String,
    why: String,
    remedy: String,
}

impl Problem {
    fn error(what: impl Into<String>, why: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            what: what.into(),
            why: why.into(),
            remedy: remedy.into(),
        }
    }

    fn warning(what: impl Into<String>, why: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(what, why, remedy)
        }
    }
}

/// One question to the node.
type Check = (&'static str, fn(&Node) -> Option<Problem>);

/// An ADD or DEL takes less.
const A_WHILE: Duration = Duration::from_secs(1);

/// In the order in which a node would be set up: the first finding is often the cause of later ones.
const CHECKS: [Check; 34] = [
    ("kernel-config", kernel::config),
    ("btf", kernel::btf),
    ("bpffs", kernel::bpffs),
    ("clock", kernel::clock),
    ("default-route", network::default_route),
    ("conflist", cni::present),
    ("conflist-first", cni::first),
    ("conflist-valid", cni::valid),
    ("plugin-order", cni::order),
    ("plugin-missing", cni::missing),
    ("plugin-permissions", cni::permissions),
    ("loader", loader::runs),
    ("loader-capabilities", loader::capabilities),
    ("loader-config", loader::configuration),
    ("loader-warnings", loader::warnings),
    ("run-directory", loader::run_directory),
    ("records", loader::records),
    ("stale-pins", loader::stale_pins),
    ("nic-programs", loader::nic_programs),
    ("pods", loader::pods),
    ("tables", loader::tables),
    ("kernel-rules", rules::ours),
    ("address-source", addresses::source),
    ("addresses-used-up", addresses::used_up),
    ("addresses-leaked", addresses::leaked),
    ("ip-forward", network::ip_forward),
    ("rp-filter", network::rp_filter),
    ("port-range", network::port_range),
    ("pod-routes", network::pod_routes),
    ("pod-links", network::pod_links),
    ("udev", systemd::udev),
    ("networkd", systemd::networkd),
    ("forward-rules", rules::forward),
    ("duplicate-snat", rules::snat),
];

pub(super) fn run(output: Output) -> anyhow::Result<()> {
    let report = examine(&Node::look());
    output.print(&report, render)?;
    anyhow::ensure!(
        report.findings.is_empty(),
        "{} problems were found",
        report.findings.len()
    );
    Ok(())
}

pub(super) fn examine(node: &Node) -> Report {
    let found = CHECKS
        .iter()
        .filter_map(|(name, check)| Some((*name, check(node)?)));
    let mut findings: Vec<Finding> = found
        .map(|(name, problem)| Finding {
            name,
            severity: problem.severity,
            what: problem.what,
            why: problem.why,
            remedy: problem.remedy,
        })
        .collect();
    findings.sort_by_key(|finding| finding.severity);
    Report {
        checks: CHECKS.len(),
        findings,
    }
}

pub(super) fn render(report: &Report) -> String {
    let finding = |one: &Finding| {
        let severity = match one.severity {
            Severity::Error => "ERROR  ",
            Severity::Warning => "WARNING",
        };
        format!(
            "{severity}  {}: {}\n  why  {}\n  do   {}\n\n",
            one.name, one.what, one.why, one.remedy
        )
    };
    let findings: String = report.findings.iter().map(finding).collect();
    let (found, checks) = (report.findings.len(), report.checks);
    format!("{findings}{found} problems, {checks} checks\n")
}

/// What is wrong with pods and stays so: they come and go while we look.
#[expect(
    clippy::disallowed_methods,
    reason = "nothing announces that an ADD or DEL is over"
)]
fn lasting(look: impl Fn() -> Vec<String>) -> Vec<String> {
    let first = look();
    if first.is_empty() {
        return first;
    }
    sleep(A_WHILE);
    let again = look();
    let stayed = first.into_iter().filter(|one| again.contains(one));
    stayed.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_check_has_its_own_name() {
        let mut names: Vec<&str> = CHECKS.iter().map(|(name, _)| *name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), CHECKS.len());
    }

    #[test]
    fn every_check_is_documented() {
        let page = include_str!("../../../../docs/vnetctl.md");
        for (name, _) in CHECKS {
            assert!(page.contains(&format!("`{name}`")), "{name}");
        }
    }

    #[test]
    fn what_is_right_at_the_second_look_was_never_wrong() {
        let looks = std::cell::Cell::new(0);
        let look = || {
            looks.set(looks.get() + 1);
            let seen: &[&str] = if looks.get() == 1 {
                &["a", "b"]
            } else {
                &["b", "c"]
            };
            seen.iter().map(ToString::to_string).collect()
        };
        assert_eq!(lasting(look), ["b"]);
        assert_eq!(looks.get(), 2);
    }
}
