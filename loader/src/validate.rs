//! `vnetctl validate`: what is wrong with a conflist, without touching the node.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use netconf::conflist::{Finding, Severity, check};

/// Where runtimes look for theirs.
pub const CONFLISTS: &str = "/etc/cni/net.d";
/// Where the documented conflist lies.
pub const CONFLIST: &str = "/etc/cni/net.d/10-azure.conflist";

/// Everything that is wrong with the conflist at `path`.
pub fn read(path: &Path) -> Result<Vec<Finding>> {
    let text = fs::read_to_string(path)
        .with_context(|| format!("read the conflist {}", path.display()))?;
    Ok(check(&text))
}

/// For people: one line each, as compilers write them.
pub fn render(path: &Path, findings: &[Finding]) -> String {
    if findings.is_empty() {
        return format!("{}: nothing wrong\n", path.display());
    }
    let line = |finding: &Finding| {
        let severity = match finding.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let place = match finding.path.as_str() {
            "" => String::new(),
            key => format!("{key}: "),
        };
        let (path, line) = (path.display(), finding.line);
        format!("{path}:{line}: {severity}: {place}{}\n", finding.message)
    };
    findings.iter().map(line).collect()
}

/// What keeps pods from being added.
pub(crate) fn errors(findings: &[Finding]) -> impl Iterator<Item = &Finding> {
    findings
        .iter()
        .filter(|finding| finding.severity == Severity::Error)
}

/// An error when pods could not be added with this conflist.
pub fn verdict(path: &Path, findings: &[Finding]) -> Result<()> {
    let errors = errors(findings).count();
    ensure!(
        errors == 0,
        "{} cannot be used: {errors} of {} findings are errors; see docs/configuration.md for every key",
        path.display(),
        findings.len()
    );
    Ok(())
}
