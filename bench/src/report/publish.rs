//! The latest full report in docs/performance.md, between two marks.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use super::Report;
use super::{markdown, plot};

const BEGIN: &str = "<!-- report: begin; written by `cargo xtask bench publish` -->";
const END: &str = "<!-- report: end -->";
/// Where the plots go, beside the document.
const PLOTS: &str = "performance";

impl Report {
    /// Whether the report may stand for the product: in its own document, or in another one, where a draft may be, too.
    pub(crate) fn may_be_published(&self, elsewhere: bool) -> Result<()> {
        let machine = &self.machine;
        ensure!(
            !machine.is_unfinished(),
            "the run was not finished: its report would pass for all that there is"
        );
        ensure!(
            elsewhere || !machine.quick,
            "a quick run lacks what grows; run without --quick, or name another document: --into"
        );
        ensure!(
            elsewhere || machine.is_of_a_commit(),
            "measured beside what no commit has ({:?}); commit first, or name another document: --into",
            machine.commit
        );
        Ok(())
    }

    /// Puts the report into `document`, and its plots beside it.
    pub(crate) fn publish(&self, document: &Path) -> Result<()> {
        let text =
            fs::read_to_string(document).with_context(|| format!("read {}", document.display()))?;
        let mut plots = plot::plots(self);
        for plot in &mut plots {
            plot.file = format!("{PLOTS}/{}", plot.file);
        }
        let new = between(&text, &markdown::body(self, &plots))
            .with_context(|| format!("{} has not both marks: {BEGIN} {END}", document.display()))?;
        let folder = document.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder.join(PLOTS))?;
        for plot in plots {
            fs::write(folder.join(&plot.file), plot.svg)?;
        }
        fs::write(document, new).with_context(|| format!("write {}", document.display()))
    }
}

/// The document with something else between its marks.
fn between(text: &str, report: &str) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!(
        "{before}{BEGIN}\n\n{}\n\n{END}{after}",
        report.trim()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Failure, Machine};

    #[test]
    fn only_what_is_between_the_marks_changes() {
        let text = format!("one\n{BEGIN}\nold\n{END}\ntwo\n");
        let new = between(&text, "new\n").unwrap();
        assert_eq!(new, format!("one\n{BEGIN}\n\nnew\n\n{END}\ntwo\n"));
        assert_eq!(between(&new, "new").unwrap(), new);
        assert_eq!(between("no marks", "new"), None);
    }

    fn refused(machine: Machine) -> [bool; 2] {
        let report = Report {
            machine,
            ..Report::default()
        };
        [false, true].map(|elsewhere| report.may_be_published(elsewhere).is_err())
    }

    #[test]
    fn only_a_whole_full_run_of_a_commit_is_published_and_elsewhere_a_quick_or_dirty_one_too() {
        let full = Machine {
            commit: "30885d6".into(),
            ..Machine::default()
        };
        let of = |commit: &str| Machine {
            commit: commit.into(),
            ..full.clone()
        };
        assert_eq!(refused(full.clone()), [false, false]);
        assert_eq!(refused(of("30885d6-dirty")), [true, false]);
        assert_eq!(refused(of("")), [true, false]);
        let quick = Machine {
            quick: true,
            ..full.clone()
        };
        assert_eq!(refused(quick), [true, false]);
        let mut interrupted = full;
        interrupted.failures.push(Failure::unfinished());
        assert_eq!(refused(interrupted), [true, true]);
    }

    #[test]
    fn the_document_has_its_marks() {
        let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/performance.md");
        let text = fs::read_to_string(document).unwrap();
        assert!(between(&text, "").is_some());
    }
}
