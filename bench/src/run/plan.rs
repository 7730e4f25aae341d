//! How much is measured, and what of all that there is?

use std::time::Duration;

use clap::ValueEnum as _;

use crate::names::{Measure, Path};

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) quick: bool,
    pub(super) rounds: usize,
    /// Of what starts programs or changes a whole node, and takes its time however short it measures.
    pub(super) rounds_of_programs: usize,
    /// Of each load.
    pub(super) time: Duration,
    /// When nothing more is begun.
    pub(super) limit: Option<Duration>,
}

impl Plan {
    pub(crate) fn full() -> Self {
        Self {
            quick: false,
            rounds: 9,
            rounds_of_programs: 9,
            time: Duration::from_secs(1),
            limit: None,
        }
    }

    /// Three minutes, what has begun included.
    pub(crate) fn quick() -> Self {
        Self {
            quick: true,
            // Many short rounds agree better than few long ones: what disturbs the machine hits one of them.
            rounds: 21,
            rounds_of_programs: 9,
            time: Duration::from_millis(40),
            limit: Some(Duration::from_secs(168)),
        }
    }

    pub(crate) fn set_rounds(&mut self, rounds: usize) {
        (self.rounds, self.rounds_of_programs) = (rounds, rounds);
    }

    /// Where streams go: they take longest and say least.
    pub(super) fn streams(self) -> &'static [Path] {
        if self.quick {
            &[Path::ToVnet]
        } else {
            &Path::ALL
        }
    }

    /// The points of something that grows: all, or those up to the nearest one that is compared with another.
    pub(super) fn points(self, measure: Measure) -> &'static [u32] {
        let all = measure.points();
        if self.quick {
            let compared = all.iter().position(|point| *point > measure.base());
            compared.map_or(all, |last| all.get(..=last).unwrap_or(all))
        } else {
            all
        }
    }

    /// What was asked for. Otherwise everything, but in a quick run nothing of what grows: each point is another set of nodes.
    pub(super) fn wanted(self, only: &[Measure]) -> Vec<Measure> {
        if !only.is_empty() {
            return only.to_vec();
        }
        let all = Measure::value_variants().iter().copied();
        all.filter(|measure| !self.quick || !measure.grows())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quick_run_has_streams_of_one_path_so_that_thirty_two_pods_at_once_are_in_time() {
        assert_eq!(Plan::quick().streams(), [Path::ToVnet]);
        assert_eq!(Plan::full().streams(), Path::ALL);
    }

    #[test]
    fn what_a_quick_run_begins_last_has_ten_seconds_until_three_minutes_are_over() {
        let limit = Plan::quick().limit.unwrap();
        assert!(limit + Duration::from_secs(10) <= Duration::from_mins(3));
    }

    #[test]
    fn a_quick_run_has_a_point_that_is_compared_and_those_before_it() {
        let points = |measure| Plan::quick().points(measure);
        assert_eq!(points(Measure::GrowthPods), [10, 50]);
        assert_eq!(points(Measure::GrowthAdd), [0, 10, 50]);
        assert_eq!(points(Measure::GrowthExclusions), [0, 250]);
    }

    #[test]
    fn a_quick_run_has_the_flood_but_nothing_that_grows_unless_it_is_named() {
        let wanted = Plan::quick().wanted(&[]);
        assert!(wanted.contains(&Measure::XdpDrop));
        assert!(!wanted.iter().any(|measure| measure.grows()));
        let named = [Measure::GrowthPods];
        assert_eq!(Plan::quick().wanted(&named), named);
        assert_eq!(Plan::full().wanted(&[]), Measure::value_variants());
    }
}
