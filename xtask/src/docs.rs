//! `cargo xtask docs`: the documents that are generated from the code, so that they cannot lie.

use crate::workspace;
use abi::DropReason;
use anyhow::{Result, bail};
use std::fmt::Write as _;
use std::path::PathBuf;

/// Path in the repository, and what makes its content.
type Document = (&'static str, fn() -> String);

const DOCUMENTS: [Document; 1] = [("docs/drop-reasons.md", drop_reasons)];

pub(crate) fn run() -> Result<()> {
    for (path, content, current) in documents() {
        if !current {
            workspace::write_if_changed(&path, content.as_bytes())?;
        }
        println!(
            "docs: {}, {}",
            path.display(),
            if current { "unchanged" } else { "written" }
        );
    }
    Ok(())
}

/// An error that names the stale documents.
pub(crate) fn check() -> Result<()> {
    let stale = documents().into_iter().filter(|(.., current)| !current);
    let stale: Vec<String> = stale.map(|(path, ..)| path.display().to_string()).collect();
    if !stale.is_empty() {
        bail!(
            "stale: {}; run `cargo xtask docs` and commit the result",
            stale.join(", ")
        );
    }
    println!("{} generated documents are current", DOCUMENTS.len());
    Ok(())
}

fn documents() -> Vec<(PathBuf, String, bool)> {
    let document = |(path, make): Document| {
        let path = workspace::root().join(path);
        let content = make();
        let current = std::fs::read_to_string(&path).is_ok_and(|old| old == content);
        (path, content, current)
    };
    DOCUMENTS.into_iter().map(document).collect()
}

fn drop_reasons() -> String {
    let mut page = String::from(
        "# Drop reasons\n\n\
         <!-- Generated from abi::DropReason by `cargo xtask docs`; edit crates/abi/src/reason.rs instead. -->\n\n\
         Every packet that the data path drops is counted under one of these, per node.\n\
         The name is what `vnetctl` and the metrics show; the number is the index into the map `drops`.\n\n\
         | Number | Name | What happened, and what to do |\n|---|---|---|\n",
    );
    for reason in DropReason::ALL {
        let help = reason.help().replace('|', "\\|");
        // Writing to a string cannot fail.
        writeln!(
            page,
            "| {} | `{}` | {help} |",
            reason.index(),
            reason.name()
        )
        .unwrap_or_default();
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_row() {
        let page = drop_reasons();
        assert_eq!(
            page.lines().filter(|line| line.contains("| `")).count(),
            DropReason::ALL.len()
        );
        for (number, reason) in DropReason::ALL.into_iter().enumerate() {
            assert!(
                page.contains(&format!("| {number} | `{}` |", reason.name())),
                "{}",
                reason.name()
            );
            assert!(!reason.help().contains('\n'), "one line per row");
        }
    }
}
