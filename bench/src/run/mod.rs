//! The measurements: which sides take turns, how often, and what becomes of one that fails.

mod bindings;
mod growth;
mod memory;
mod plan;
mod pods;
mod steps;
mod traffic;
mod xdp;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use lab::Node;

use crate::names::{Measure, Path, SideName, Unit};
use crate::report::{Failure, Machine, Ratio, Report, Row, Size};
use crate::scene::{Kind, Side};
use crate::series::{STEP, Sample, Series};
pub(crate) use plan::Plan;
pub(crate) use pods::{call, median, serially};
pub(crate) use traffic::{flood_of, new_port, requests_of};
pub(crate) use xdp::GUARD;

/// What has been found so far.
#[derive(Debug)]
pub(crate) struct Book {
    pub(crate) plan: Plan,
    machine: Machine,
    /// Where the report goes, also while it is not complete.
    folder: Option<PathBuf>,
    started: Instant,
    /// Figures and not what they are of: a process that keeps a quarter of a MiB for each round takes long to fork.
    rows: Vec<Row>,
    ratios: Vec<Ratio>,
    failures: Vec<Failure>,
    sizes: Vec<Size>,
}

/// One side's turn: a figure for each measurement of the series that are taken together.
pub(crate) type Go<'a> = Box<dyn FnMut() -> Result<Vec<Sample>> + 'a>;

impl Book {
    pub(crate) fn new(plan: Plan, machine: Machine, folder: Option<PathBuf>) -> Self {
        Self {
            plan,
            machine,
            folder,
            started: Instant::now(),
            rows: Vec::new(),
            ratios: Vec::new(),
            failures: Vec::new(),
            sizes: Vec::new(),
        }
    }

    /// Everything that is wanted, or all that there is time for; what cannot be measured is noted.
    pub(crate) fn run(&mut self, only: &[Measure]) {
        let wanted = &self.plan.wanted(only);
        if self.plan.quick && only.is_empty() {
            let error =
                anyhow::anyhow!("left out of a quick run; run without --quick, or name it: --only");
            self.fail(None, "all that grows", &error);
        }
        let any = |measures: &[Measure]| measures.iter().any(|one| wanted.contains(one));
        let traffic: Vec<_> = wanted
            .iter()
            .copied()
            .filter(|one| traffic::does(*one))
            .collect();
        if !traffic.is_empty() {
            traffic::run(self, &traffic);
        }
        // A few seconds, and what shows best that a program has become slower: before what takes a quick run's last minute.
        if any(&[Measure::XdpDrop]) {
            xdp::run(self);
        }
        if any(&[Measure::Add, Measure::Del]) {
            pods::run(self);
        }
        growth::run(self, wanted);
    }

    /// What has been found so far.
    pub(crate) fn report(&self) -> Report {
        let machine = Machine {
            seconds: self.started.elapsed().as_secs_f64(),
            failures: self.failures.clone(),
            sizes: self.sizes.clone(),
            ..self.machine.clone()
        };
        let (mut rows, mut ratios) = (self.rows.clone(), self.ratios.clone());
        rows.sort_by_key(|row| row.measure);
        ratios.sort_by_key(|ratio| ratio.measure);
        Report {
            machine,
            rows,
            ratios,
        }
    }

    /// Writes what there is: whoever interrupts a run of an hour keeps the figures.
    fn save(&self) {
        let Some(folder) = &self.folder else { return };
        let mut report = self.report();
        report.machine.failures.push(Failure::unfinished());
        if let Err(error) = report.write(folder) {
            crate::say(&format!("  the report so far: {error:#}"));
        }
    }

    pub(crate) fn fail(
        &mut self,
        side: Option<SideName>,
        what: impl Into<String>,
        error: &anyhow::Error,
    ) {
        let (what, error) = (what.into(), format!("{error:#}"));
        let of = side.map_or("all sides", SideName::name);
        crate::say(&format!("  {of}: {what}: {error}"));
        self.failures.push(Failure { side, what, error });
    }

    fn note_size(&mut self, what: impl Into<String>, bytes: u64, limit: Option<u64>) {
        let what = what.into();
        self.sizes.push(Size { what, bytes, limit });
    }

    /// The sides that can be set up.
    fn scene(
        &mut self,
        what: &str,
        kind: Kind,
        names: &[SideName],
        configure: impl Fn(&Node) -> Result<()>,
    ) -> Vec<Side> {
        if self.is_late(what) {
            return Vec::new();
        }
        let mut sides = Vec::new();
        for name in names {
            match Side::build(*name, kind, None, &configure) {
                Ok(side) => sides.push(side),
                Err(error) => self.fail(Some(*name), format!("set-up for {what}"), &error),
            }
        }
        sides
    }

    fn is_over(&self) -> bool {
        let limit = self.plan.limit;
        limit.is_some_and(|limit| self.started.elapsed() > limit)
    }

    /// Whether there is no time left to begin with something, which is noted then.
    fn is_late(&mut self, what: &str) -> bool {
        let late = self.is_over();
        if late {
            let limit = self.plan.limit.unwrap_or_default();
            let error = anyhow::anyhow!("left out: the {limit:?} of a quick run are over");
            self.fail(None, what, &error);
        }
        late
    }

    /// Lets the sides take turns, A B C D A B …, and keeps the rounds of those that never failed. A round before the first is
    /// left out, for neighbours, caches and first entries.
    fn alternate(
        &mut self,
        mut series: Vec<Series>,
        rounds: usize,
        turns: Vec<(SideName, Go<'_>)>,
    ) {
        let Some(first) = series.first() else { return };
        let what = format!("{}, {}", first.measure, first.path);
        // Sides that are not there have been noted.
        if turns.is_empty() || self.is_late(&what) {
            return;
        }
        crate::say(&what);
        let mut alive: Vec<_> = turns
            .into_iter()
            .map(|(side, go)| (side, go, Vec::new()))
            .collect();
        for round in 0..=rounds {
            // With what there is: the same rounds of every side.
            if round > 1 && self.is_over() {
                let done = round - 1;
                let error = anyhow::anyhow!(
                    "cut short after {done} rounds: the time of a quick run is over"
                );
                self.fail(None, what.as_str(), &error);
                break;
            }
            alive.retain_mut(|(side, go, found)| match go() {
                Ok(samples) => {
                    if round > 0 {
                        found.push(samples);
                    }
                    true
                }
                Err(error) => {
                    self.fail(Some(*side), what.as_str(), &error);
                    false
                }
            });
        }
        for (side, _, found) in alive {
            for samples in found {
                for (series, sample) in series.iter_mut().zip(samples) {
                    series.sides.entry(side).or_default().push(sample);
                }
            }
        }
        for series in &series {
            let step = series.path.split_once(STEP).map(|(_, step)| step);
            let name = step.map_or_else(|| series.measure.to_string(), str::to_owned);
            for (side, samples) in &series.sides {
                let values = samples.iter().map(|sample| sample.value).collect();
                let found = crate::series::Spread::of(values);
                let median = found.map_or(0.0, |found| found.median);
                let unit = series.unit.name();
                crate::say(&format!("  {name:<10} {side:<8} {median:>12.2} {unit}"));
            }
        }
        for series in &series {
            self.rows.extend(series.rows());
            self.ratios.extend(series.ratios());
        }
        self.save();
    }
}

/// A label for one path.
fn on(measure: Measure, path: Path, unit: Unit) -> Vec<Series> {
    vec![Series::new(measure, path.name(), unit)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use SideName::{Host, Ours};
    use anyhow::bail;
    use std::time::Duration;

    fn book() -> Book {
        Book::new(Plan::full(), Machine::default(), None)
    }

    fn series() -> Vec<Series> {
        on(Measure::TcpRr, Path::ToVnet, Unit::PerSecond)
    }

    #[test]
    fn sides_take_turns_and_the_first_round_is_left_out() {
        let order = std::cell::RefCell::new(Vec::new());
        let go = |side: SideName| -> (SideName, Go<'_>) {
            let order = &order;
            let go = move || {
                order.borrow_mut().push(side);
                Ok(vec![Sample::of(f64::from(u32::try_from(
                    order.borrow().len(),
                )?))])
            };
            (side, Box::new(go))
        };
        let mut book = book();
        let turns = vec![go(Host), go(Ours)];
        book.alternate(series(), 2, turns);
        assert_eq!(*order.borrow(), [Host, Ours].repeat(3));
        let report = book.report();
        assert_eq!((report.rows[0].min, report.rows[0].rounds), (3.0, 2));
    }

    #[test]
    fn a_side_that_fails_once_has_no_figure_and_the_others_go_on() {
        let mut rounds = 0;
        let fails: Go<'_> = Box::new(|| {
            rounds += 1;
            if rounds == 3 {
                bail!("iperf3 -c 10.0.0.1 in node1: exit status: 1");
            }
            Ok(vec![Sample::of(1.0)])
        });
        let works: Go<'_> = Box::new(|| Ok(vec![Sample::of(2.0)]));
        let mut book = book();
        book.alternate(series(), 5, vec![(SideName::Bridge, fails), (Ours, works)]);
        assert_eq!(rounds, 3, "not asked again");
        let report = book.report();
        let sides: Vec<_> = report
            .rows
            .iter()
            .map(|row| (row.side, row.rounds))
            .collect();
        assert_eq!(sides, [(Ours, 5)]);
        assert_eq!(report.ratios, []);
        let failure = &report.machine.failures[0];
        assert_eq!(
            (failure.side, failure.what.as_str()),
            (Some(SideName::Bridge), "tcp_rr, pod→VNet")
        );
        assert!(failure.error.contains("iperf3 -c 10.0.0.1"));
    }

    #[test]
    fn what_takes_too_long_is_cut_short_after_a_whole_round() {
        let plan = Plan {
            limit: Some(Duration::from_millis(30)),
            ..Plan::quick()
        };
        let mut book = Book::new(plan, Machine::default(), None);
        let slow = || -> Go<'_> {
            Box::new(|| {
                lab::pass(Duration::from_millis(20));
                Ok(vec![Sample::of(2.0)])
            })
        };
        book.alternate(series(), 100, vec![(Host, slow()), (Ours, slow())]);
        let report = book.report();
        let rounds: Vec<_> = report.rows.iter().map(|row| row.rounds).collect();
        assert_eq!(rounds, [1, 1], "the same rounds of both");
        assert!(
            report.machine.failures[0]
                .error
                .starts_with("cut short after 1 rounds")
        );
    }

    #[test]
    fn what_there_is_no_time_for_is_said() {
        let plan = Plan {
            limit: Some(Duration::ZERO),
            ..Plan::quick()
        };
        let mut book = Book::new(plan, Machine::default(), None);
        let works: Go<'_> = Box::new(|| Ok(vec![Sample::of(2.0)]));
        book.alternate(series(), 5, vec![(Ours, works)]);
        let report = book.report();
        assert_eq!(report.rows, []);
        assert!(report.machine.failures[0].error.starts_with("left out"));
    }

    #[test]
    fn what_has_been_measured_is_kept_when_the_rest_is_interrupted() {
        let folder = tempfile::TempDir::new().unwrap();
        let kept = Some(folder.path().to_path_buf());
        let mut book = Book::new(Plan::full(), Machine::default(), kept);
        let works: Go<'_> = Box::new(|| Ok(vec![Sample::of(2.0)]));
        book.alternate(series(), 5, vec![(Ours, works)]);
        let report = Report::read(&folder.path().join("report.json")).unwrap();
        assert_eq!(report.rows[0].rounds, 5);
        assert!(report.machine.is_unfinished());
    }
}
