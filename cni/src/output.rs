//! Standard output is the protocol: one JSON document, written here and nowhere else.

use std::io::{self, Write as _};

use serde_json::Value;

use crate::error::Error;

/// Writes one document and a newline.
pub(crate) fn print(document: &Value) -> Result<(), Error> {
    text(&format!("{document}\n"))
}

/// Writes plain text: for `--version` and `--help` only.
pub(crate) fn text(text: &str) -> Result<(), Error> {
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .map_err(|source| Error::Output { source })
}

/// One line for the runtime's own log. Nobody may read it, so failing is fine.
pub(crate) fn diagnose(line: &str) {
    drop(writeln!(io::stderr().lock(), "{line}"));
}
