//! What does much at once, or much after each other, cost?

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

/// Does `work` with all items at the same moment, each on a thread of its own; what came of each, in order, and how long all
/// took together.
pub fn at_once<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> (Vec<R>, Duration) {
    let start = Barrier::new(items.len() + 1);
    let (start, work) = (&start, &work);
    thread::scope(|scope| {
        let threads: Vec<_> = items
            .iter()
            .map(|item| {
                scope.spawn(move || {
                    start.wait();
                    work(item)
                })
            })
            .collect();
        start.wait();
        let started = Instant::now();
        let done = threads
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
            .collect();
        (done, started.elapsed())
    })
}

/// The times below which so many percent of all are; zero of none.
pub fn percentiles<const N: usize>(
    mut times: Vec<Duration>,
    percents: [usize; N],
) -> [Duration; N] {
    times.sort_unstable();
    percents.map(|percent| {
        let last = times.len().saturating_sub(1);
        let at = (times.len() * percent / 100).min(last);
        times.get(at).copied().unwrap_or_default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_sorted_times() {
        let times = (1..=200).rev().map(Duration::from_millis).collect();
        let found = percentiles(times, [0, 50, 99, 100]).map(|time| time.as_millis());
        assert_eq!(found, [1, 101, 199, 200]);
        assert_eq!(percentiles(Vec::new(), [50]), [Duration::ZERO]);
    }

    #[test]
    fn what_came_of_all_is_in_order() {
        let (done, _) = at_once(&[3, 1, 2], |number| number * 2);
        assert_eq!(done, [6, 2, 4]);
    }
}
