//! The time that one call may take in all: locks, the loader, the IPAM plug-in and the carrier draw from it.
//!
//! A runtime that loses patience kills us without a word; before that, whoever waits for something must have told what it
//! waited for. What only the kernel does, such as netlink, cannot be given a limit and is not counted on to take long.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// When a call must be over. Clones share the same end.
#[derive(Clone, Debug)]
pub(crate) struct Deadline {
    end: Rc<Cell<Instant>>,
}

impl Deadline {
    /// `limit` from now.
    pub(crate) fn after(limit: Duration) -> Self {
        Self {
            end: Rc::new(Cell::new(Instant::now() + limit)),
        }
    }

    /// Moves the end, for taking back what could not be finished.
    pub(crate) fn extend(&self, by: Duration) {
        self.end.set(self.end.get() + by);
    }

    /// What may be spent on one thing: `most`, or the rest where that is less.
    pub(crate) fn spare(&self, most: Duration) -> Patience {
        let rest = self.end.get().saturating_duration_since(Instant::now());
        Patience {
            limit: most.min(rest),
            is_rest: rest < most,
        }
    }
}

/// How long to wait for one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Patience {
    limit: Duration,
    is_rest: bool,
}

impl Patience {
    /// As a duration; zero when the call's time is over.
    pub(crate) fn limit(self) -> Duration {
        self.limit
    }
}

impl fmt::Display for Patience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_rest {
            let limit = self.limit.as_secs_f32();
            write!(f, "{limit:.1} s, all that was left of this call's time")
        } else {
            write!(f, "{} s", self.limit.as_secs())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn everything_draws_from_the_same_rest_and_says_so() {
        let deadline = Deadline::after(3 * SECOND);
        assert_eq!(deadline.spare(2 * SECOND).to_string(), "2 s");
        let rest = deadline.spare(9 * SECOND);
        assert!(rest.limit() <= 3 * SECOND && rest.limit() > 2 * SECOND);
        assert!(
            rest.to_string().contains("left of this call's time"),
            "{rest}"
        );
    }

    #[test]
    fn a_call_whose_time_is_over_waits_for_nothing_until_it_is_extended() {
        let deadline = Deadline::after(Duration::ZERO);
        let shared = deadline.clone();
        assert_eq!(deadline.spare(SECOND).limit(), Duration::ZERO);
        shared.extend(5 * SECOND);
        assert_eq!(deadline.spare(SECOND).limit(), SECOND);
    }
}
