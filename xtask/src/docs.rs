//! `cargo xtask docs`: the documents that are generated from the code, so that they cannot lie.

use crate::{command, workspace};
use abi::DropReason;
use anyhow::{Context as _, Result, bail};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

/// Where nothing but generated documents is.
const FOLDERS: [&str; 2] = ["docs/man", "docs/schema"];

/// A document as it is to be.
struct Document {
    path: PathBuf,
    /// `None`: it is not to be.
    content: Option<String>,
}

impl Document {
    fn is_current(&self) -> bool {
        std::fs::read_to_string(&self.path).ok() == self.content
    }
}

pub(crate) fn run() -> Result<()> {
    for document in documents()? {
        let path = &document.path;
        let done = match &document.content {
            _ if document.is_current() => "unchanged",
            Some(content) => {
                workspace::write_if_changed(path, content.as_bytes())?;
                "written"
            }
            None => {
                std::fs::remove_file(path).with_context(|| format!("remove {}", path.display()))?;
                "removed"
            }
        };
        println!("docs: {}, {done}", path.display());
    }
    Ok(())
}

/// An error that names the stale documents.
pub(crate) fn check() -> Result<()> {
    let documents = documents()?;
    let stale = documents.iter().filter(|document| !document.is_current());
    let stale: Vec<String> = stale
        .map(|document| document.path.display().to_string())
        .collect();
    if !stale.is_empty() {
        bail!(
            "stale: {}; run `cargo xtask docs` and commit the result",
            stale.join(", ")
        );
    }
    println!("{} generated documents are current", documents.len());
    Ok(())
}

fn documents() -> Result<Vec<Document>> {
    let mut contents = of_vnetctl()?;
    contents.insert("docs/drop-reasons.md".to_owned(), drop_reasons());
    let wanted: Vec<PathBuf> = contents
        .keys()
        .map(|path| workspace::root().join(path))
        .collect();
    let mut documents = Vec::new();
    for folder in FOLDERS {
        let there = std::fs::read_dir(workspace::root().join(folder))
            .into_iter()
            .flatten();
        for path in there.filter_map(|entry| Some(entry.ok()?.path())) {
            if !wanted.contains(&path) {
                documents.push(Document {
                    path,
                    content: None,
                });
            }
        }
    }
    documents.extend(
        wanted
            .into_iter()
            .zip(contents.into_values())
            .map(|(path, content)| Document {
                path,
                content: Some(content),
            }),
    );
    Ok(documents)
}

/// What is made from `vnetctl`'s commands, by path: the loader knows them, and prints it.
fn of_vnetctl() -> Result<BTreeMap<String, String>> {
    let mut cargo = command::cargo();
    cargo.args("run --quiet --package loader --features documents --example documents".split(' '));
    let printed = command::output(&mut cargo)?;
    serde_json::from_str(&printed).context("read what the example `documents` printed")
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
