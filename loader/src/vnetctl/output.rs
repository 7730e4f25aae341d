//! How an answer is printed: for people or for programs.

use std::io::{self, ErrorKind, Write as _};

use anyhow::Context as _;
use clap::ValueEnum;
use serde::Serialize;

/// For whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Table,
    /// The same with every column and every row.
    Wide,
    /// For programs; docs/schema has the schemas.
    Json,
}

impl Output {
    pub(crate) fn is_wide(self) -> bool {
        self == Self::Wide
    }

    /// Prints what is told.
    pub(crate) fn print<T: Serialize + ?Sized>(
        self,
        told: &T,
        render: impl FnOnce(&T) -> String,
    ) -> anyhow::Result<()> {
        let text = match self {
            Self::Table | Self::Wide => render(told),
            Self::Json => serde_json::to_string_pretty(told)? + "\n",
        };
        write(text.as_bytes())
    }
}

/// Writes to standard output. A reader that has seen enough (`| head`) is no error.
pub(crate) fn write(bytes: &[u8]) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.context("write to standard output"),
    }
}

/// Writes a line to standard error; when nobody reads that, nobody is to be told.
pub(crate) fn complain(line: &str) {
    let _nobody_reads = writeln!(io::stderr().lock(), "{line}");
}

/// Columns as wide as their widest cell; the last one is as long as it is.
pub(crate) fn table<const N: usize>(heads: [&str; N], rows: &[[String; N]]) -> String {
    let heads = heads.map(str::to_owned);
    let lines = || std::iter::once(&heads).chain(rows);
    let mut widths = [0; N];
    for line in lines() {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for line in lines() {
        let cells = line.iter().zip(widths);
        let cells: Vec<String> = cells
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        text += cells.join("  ").trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_lines_have_no_tail() {
        let row = |cells: [&str; 2]| cells.map(str::to_owned);
        let text = table(["A", "LONG"], &[row(["wider", ""]), row(["x", "y"])]);
        assert_eq!(text, "A      LONG\nwider\nx      y\n");
    }
}
