//! How an answer is printed: for people or for programs.

use std::error::Error;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd as _;

use anyhow::Context as _;
use clap::ValueEnum;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
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

/// Writes all that there is to be said to standard output.
pub(crate) fn write(bytes: &[u8]) -> anyhow::Result<()> {
    let written = Out.write_all(bytes).and_then(|()| Out.flush());
    let written = written.context("write to standard output");
    // What was found is the answer, also when nobody reads to its end.
    written.or_else(|error| {
        if is_enough(&error) {
            Ok(())
        } else {
            Err(error)
        }
    })
}

/// Standard output. A reader that has seen enough (`| head`) is noticed when something is written, and at each flush, too.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Out;

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        io::stdout().write(bytes).map_err(enough)
    }

    fn flush(&mut self) -> io::Result<()> {
        let out = io::stdout();
        out.lock().flush().map_err(enough)?;
        let mut reader = [PollFd::new(out.as_fd(), PollFlags::empty())];
        let told = poll(&mut reader, PollTimeout::ZERO).map(|_| reader[0].revents());
        match told {
            Ok(Some(told)) if told.contains(PollFlags::POLLERR) => {
                Err(enough(ErrorKind::BrokenPipe.into()))
            }
            _ => Ok(()),
        }
    }
}

/// Standard output has no reader any more, which is no error: unlike a broken pipe elsewhere.
#[derive(Debug, thiserror::Error)]
#[error("nobody reads standard output any more")]
struct Enough;

fn enough(error: io::Error) -> io::Error {
    if error.kind() == ErrorKind::BrokenPipe {
        return io::Error::new(ErrorKind::BrokenPipe, Enough);
    }
    error
}

/// Whether a command ended because nobody reads what it says.
pub(crate) fn is_enough(error: &anyhow::Error) -> bool {
    let mut causes = error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>());
    causes.any(|cause| {
        cause
            .get_ref()
            .is_some_and(<dyn Error + Send + Sync>::is::<Enough>)
    })
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
