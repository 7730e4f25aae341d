//! What two reports say of each other.

use std::fmt::{Display, Formatter};

/// What may be lost before it is told.
pub(super) const SLACK: f64 = 0.9;

/// A figure that is not what it was.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Changed {
    pub(crate) measure: String,
    pub(crate) path: String,
    /// What the figure is of.
    pub(crate) of: String,
    pub(crate) before: f64,
    pub(crate) now: f64,
    /// What is left of it: better is higher.
    pub(crate) left: f64,
}

impl Display for Changed {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let Self {
            measure,
            path,
            of,
            before,
            now,
            left,
        } = self;
        write!(
            f,
            "{measure}, {path}, {of}: {before:.3} before, {now:.3} now, {:.0} % of it left",
            left * 100.0
        )
    }
}

/// What two reports say of each other.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Comparison {
    /// How many figures both have.
    pub(crate) compared: usize,
    /// Of them, how many differ by no more than a tenth.
    pub(crate) alike: usize,
    pub(crate) worse: Vec<Changed>,
    /// What differs by more than a tenth, either way, without being worse: its rounds differ as much, or it is better.
    pub(crate) apart: Vec<Changed>,
    /// What was compared with others before, and is not now.
    pub(crate) gone: Vec<String>,
    /// What neither could measure, or had the time for.
    pub(crate) lacking: Vec<String>,
}

impl Comparison {
    pub(super) fn look_at(&mut self, figure: Changed, sure: bool, slack: f64) {
        self.compared += 1;
        let alike = (SLACK..=1.0 / SLACK).contains(&figure.left);
        self.alike += usize::from(alike);
        if sure && figure.left < slack {
            self.worse.push(figure);
        } else if !alike {
            self.apart.push(figure);
        }
    }
}
