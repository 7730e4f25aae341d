//! What libtest prints at the end of each test program.

/// Sums over test programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }

    /// Reads `test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.00s`.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let counts = line
            .trim_end()
            .strip_prefix("test result: ")?
            .split_once(". ")?
            .1;
        let count = |what| {
            let part = counts
                .split("; ")
                .find_map(|part| part.strip_suffix(what))?;
            part.trim().parse().ok()
        };
        Some(Self {
            passed: count("passed")?,
            failed: count("failed")?,
            skipped: count("ignored")?,
        })
    }
}

/// The plain closing line.
impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
        if self.skipped > 0 {
            write!(f, ", {} skipped", self.skipped)
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_line_is_read() {
        let ok = "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.03s\n";
        assert_eq!(
            Tally::parse(ok),
            Some(Tally {
                passed: 12,
                failed: 0,
                skipped: 1
            })
        );
        let failed =
            "test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out";
        assert_eq!(
            Tally::parse(failed),
            Some(Tally {
                passed: 3,
                failed: 2,
                skipped: 0
            })
        );
    }

    #[test]
    fn other_lines_are_not() {
        for line in [
            "",
            "test a ... ok",
            "test result: ",
            "test result: ok. many passed; 0 failed; 0 ignored",
        ] {
            assert_eq!(Tally::parse(line), None, "{line}");
        }
    }

    #[test]
    fn the_closing_line_is_plain() {
        let mut sum = Tally {
            passed: 3,
            failed: 0,
            skipped: 0,
        };
        assert_eq!(sum.to_string(), "3 passed, 0 failed");
        sum.add(Tally {
            passed: 1,
            failed: 2,
            skipped: 4,
        });
        assert_eq!(sum.to_string(), "4 passed, 2 failed, 4 skipped");
    }
}
