//! The table: what was checked, what was expected, what was seen.

use std::fmt::Display;
use std::time::Duration;

use anyhow::{Result, bail};

/// Widths of the first two columns.
const WHAT: usize = 60;
const EXPECTED: usize = 26;

/// Rows are printed as they come.
#[derive(Debug)]
pub(crate) struct Table {
    passed: u32,
    failed: u32,
}

impl Table {
    pub(crate) fn new() -> Self {
        println!("\n   # {:<WHAT$} {:<EXPECTED$} SEEN", "CHECK", "EXPECTED");
        Self {
            passed: 0,
            failed: 0,
        }
    }

    /// Passes when what was seen is what was expected, word for word.
    pub(crate) fn equal(&mut self, what: &str, expected: impl Display, seen: Result<impl Display>) {
        let expected = expected.to_string();
        let seen = seen.map(|seen| seen.to_string());
        let holds = seen.as_ref().is_ok_and(|seen| *seen == expected);
        self.row(what, &expected, &seen, holds);
    }

    /// Passes when `seen` says so; `expected` is for people.
    pub(crate) fn holds(&mut self, what: &str, expected: &str, seen: Result<(bool, String)>) {
        let holds = seen.as_ref().is_ok_and(|(holds, _)| *holds);
        self.row(what, expected, &seen.map(|(_, text)| text), holds);
    }

    fn row(&mut self, what: &str, expected: &str, seen: &Result<String>, holds: bool) {
        let count = if holds {
            &mut self.passed
        } else {
            &mut self.failed
        };
        *count += 1;
        let number = self.passed + self.failed;
        let mark = if holds { "ok  " } else { "FAIL" };
        let seen = match seen {
            Ok(seen) => seen.clone(),
            Err(error) => format!("{error:#}"),
        };
        println!("{mark}{number:>2} {what:<WHAT$} {expected:<EXPECTED$} {seen}");
    }

    /// The closing line, and an error when something failed.
    pub(crate) fn finish(&self, time: Duration) -> Result<()> {
        println!("\nin {:.1} s", time.as_secs_f32());
        println!("{} passed, {} failed", self.passed, self.failed);
        if self.failed > 0 {
            bail!("the demo failed");
        }
        Ok(())
    }
}
