//! An error and its causes as one line.

/// The error, then every cause that the line does not already contain: our own errors name their cause in their text,
/// contexts do not.
pub fn one_line(error: &anyhow::Error) -> String {
    let mut line = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !line.contains(&cause) {
            line.push_str(": ");
            line.push_str(&cause);
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use std::io;

    use anyhow::Context as _;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("read x: {source}")]
    struct Read {
        source: io::Error,
    }

    #[test]
    fn a_cause_is_named_once() {
        let source = io::Error::other("no luck");
        assert_eq!(one_line(&Read { source }.into()), "read x: no luck");
        let context = Err::<(), _>(io::Error::other("no luck"))
            .context("read x")
            .unwrap_err();
        assert_eq!(one_line(&context), "read x: no luck");
    }
}
