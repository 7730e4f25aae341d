//! How far a call is, and how long each step took: for the log and for "failed at step".

use std::time::Instant;

/// The steps of a call.
#[derive(Debug)]
pub(crate) struct Steps {
    start: Instant,
    since: Instant,
    current: &'static str,
    done: Vec<(&'static str, u64)>,
}

impl Steps {
    /// Starts with step `first`.
    pub(crate) fn start(first: &'static str) -> Self {
        let now = Instant::now();
        Self {
            start: now,
            since: now,
            current: first,
            done: Vec::new(),
        }
    }

    /// The step before is done, `next` begins.
    pub(crate) fn begin(&mut self, next: &'static str) {
        let now = Instant::now();
        self.done.push((self.current, micros(self.since, now)));
        self.since = now;
        self.current = next;
    }

    /// The step that is under way.
    pub(crate) fn current(&self) -> &'static str {
        self.current
    }

    /// The step that failed, when something did: the one that is under way, or that is being undone.
    pub(crate) fn failed(&self) -> &'static str {
        let before = self.done.last().map_or(self.current, |(step, _)| *step);
        if self.current == "undo" {
            before
        } else {
            self.current
        }
    }

    /// Every step and how long it took, the current one up to now; microseconds.
    pub(crate) fn timings(&self) -> Vec<(&'static str, u64)> {
        let mut all = self.done.clone();
        all.push((self.current, micros(self.since, Instant::now())));
        all
    }

    /// Microseconds since the start.
    pub(crate) fn total(&self) -> u64 {
        micros(self.start, Instant::now())
    }
}

fn micros(from: Instant, to: Instant) -> u64 {
    u64::try_from(to.duration_since(from).as_micros()).unwrap_or(u64::MAX)
}
