//! What the rounds of one measurement say: medians, their spread, and ratios of rounds that belong together.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::names::{Measure, SideName, Unit};
use crate::report::{Ratio, Row};

/// What one round of one side gave.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) value: f64,
    /// Of single requests, nanoseconds.
    pub(crate) latency: Option<Histogram<u64>>,
    /// CPU time of the machine, and for how many packets or transactions.
    pub(crate) cpu: Option<(Duration, f64)>,
}

impl Sample {
    pub(crate) fn of(value: f64) -> Self {
        Self {
            value,
            latency: None,
            cpu: None,
        }
    }

    /// Of datagrams at a fixed rate, microseconds. Their client waits for its moments without sleeping: its CPU time is that of
    /// waiting.
    pub(crate) fn median_latency(self) -> Self {
        let latency = self.latency.as_ref();
        let nanos = latency.map_or(0, |latency| latency.value_at_quantile(0.5));
        Self {
            value: Duration::from_nanos(nanos).as_secs_f64() * 1e6,
            cpu: None,
            ..self
        }
    }
}

/// One measurement on one path: every side's rounds, in order.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    pub(crate) measure: Measure,
    pub(crate) path: String,
    pub(crate) unit: Unit,
    pub(crate) sides: BTreeMap<SideName, Vec<Sample>>,
}

impl Series {
    pub(crate) fn new(measure: Measure, path: impl Into<String>, unit: Unit) -> Self {
        Self {
            measure,
            path: path.into(),
            unit,
            sides: BTreeMap::new(),
        }
    }

    /// A row for each side, and where CPU time was taken another one for it.
    pub(crate) fn rows(&self) -> Vec<Row> {
        let figures = self.sides.iter().filter_map(|(side, samples)| {
            let mut row = self.row(*side, self.unit, samples.iter().map(|s| s.value).collect())?;
            let found = percentiles(samples);
            (row.p50_us, row.p99_us) = (found.map(|[p50, _]| p50), found.map(|[_, p99]| p99));
            Some(row)
        });
        let cpu = self.sides.iter().filter_map(|(side, samples)| {
            let each = samples.iter().filter_map(|sample| {
                let (time, work) = sample.cpu.filter(|(_, work)| *work > 0.0)?;
                Some(time.as_secs_f64() * 1e6 / work)
            });
            let mut row = self.row(*side, Unit::Microseconds, each.collect())?;
            row.path = format!("{}, {CPU}", self.path);
            Some(row)
        });
        figures.chain(cpu).collect()
    }

    fn row(&self, side: SideName, unit: Unit, values: Vec<f64>) -> Option<Row> {
        let rounds = values.len();
        let Spread {
            low, median, high, ..
        } = Spread::of(values)?;
        Some(Row {
            measure: self.measure,
            path: self.path.clone(),
            side,
            unit,
            median,
            p50_us: None,
            p99_us: None,
            min: low,
            max: high,
            rounds,
        })
    }

    /// How ours compares with each other side: the figure, and the CPU time where there is some. Nothing when ours was not
    /// measured, or nobody else was.
    pub(crate) fn ratios(&self) -> Vec<Ratio> {
        let less_is_better = self.unit.less_is_better();
        let value = |sample: &Sample| {
            Some(if less_is_better {
                1.0 / sample.value
            } else {
                sample.value
            })
        };
        let cpu = |sample: &Sample| {
            let (time, work) = sample.cpu.filter(|(time, _)| *time >= ENOUGH_CPU)?;
            Some(work / time.as_secs_f64())
        };
        let figures = self.ratio(self.path.clone(), value);
        let cpu = self.ratio(format!("{}, {CPU}", self.path), cpu);
        figures.into_iter().chain(cpu).collect()
    }

    fn ratio(&self, path: String, good: impl Fn(&Sample) -> Option<f64>) -> Option<Ratio> {
        let [host, bridge, ptp] = [SideName::Host, SideName::Bridge, SideName::Ptp]
            .map(|side| self.ours_over(side, &good).map(|spread| (side, spread)));
        let all = [host, bridge, ptp];
        let (_, first) = all.into_iter().flatten().next()?;
        let median = |of: Option<(SideName, Spread)>| of.map(|(_, spread)| spread.median);
        let sure = all.into_iter().flatten();
        let sure = sure.filter_map(|(side, spread)| Some((side, spread.sure?)));
        Some(Ratio {
            measure: self.measure,
            path,
            low: first.low,
            high: first.high,
            ours_over_host: median(host),
            ours_over_bridge: median(bridge),
            ours_over_ptp: median(ptp),
            sure: sure.collect(),
        })
    }

    /// Of each round, so that what slows the whole machine for a round does not count.
    fn ours_over(&self, side: SideName, good: impl Fn(&Sample) -> Option<f64>) -> Option<Spread> {
        let (ours, theirs) = (self.sides.get(&SideName::Ours)?, self.sides.get(&side)?);
        let rounds = ours.iter().zip(theirs);
        let rounds = rounds.filter_map(|(ours, theirs)| Some(good(ours)? / good(theirs)?));
        Spread::of(rounds.filter(|ratio| ratio.is_finite()).collect())
    }
}

/// Less CPU time than ten ticks of most kernels is not compared.
const ENOUGH_CPU: Duration = Duration::from_millis(100);

/// What the path of a row about CPU time ends with.
pub(crate) const CPU: &str = "CPU each";

/// In the path of a row about one step of a call, before the step's name.
pub(crate) const STEP: &str = ", step ";

/// The 50th and the 99th percentile of all rounds' requests together, microseconds.
pub(crate) fn percentiles(samples: &[Sample]) -> Option<[f64; 2]> {
    let latency = merged(samples)?;
    Some([50.0, 99.0].map(|percent| {
        let found = Duration::from_nanos(latency.value_at_percentile(percent));
        found.as_secs_f64() * 1e6
    }))
}

/// All rounds' requests together.
fn merged(samples: &[Sample]) -> Option<Histogram<u64>> {
    let mut all: Option<Histogram<u64>> = None;
    for latency in samples.iter().filter_map(|sample| sample.latency.as_ref()) {
        match &mut all {
            // Fails for a value beyond the bounds only, and all have the same.
            Some(all) => all.add(latency).unwrap_or_default(),
            None => all = Some(latency.clone()),
        }
    }
    all.filter(|all| !all.is_empty())
}

/// The least, the middle and the greatest of some values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) low: f64,
    pub(crate) median: f64,
    pub(crate) high: f64,
    /// Between which the median of very many such values is, 99 times of 100; of less than eight values all of them, which is
    /// so 15 times of 16 at least, and of less than five nobody knows.
    pub(crate) sure: Option<[f64; 2]>,
}

impl Spread {
    /// `None` of no values.
    pub(crate) fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let upper = *values.get(middle)?;
        let lower = if values.len().is_multiple_of(2) {
            *values.get(middle - 1)?
        } else {
            upper
        };
        let edge = outside(values.len());
        let sure = edge.and_then(|edge| {
            let last = values.len().checked_sub(edge + 1)?;
            Some([*values.get(edge)?, *values.get(last)?])
        });
        Some(Self {
            low: *values.first()?,
            median: f64::midpoint(lower, upper),
            high: *values.last()?,
            sure,
        })
    }
}

/// How many of so many sorted values may be left out at either end, so that the true median is outside of the rest at most once
/// in a hundred times, because nearly a hundred figures are compared: each value is above it or below it like a coin. That
/// needs no shape of the noise.
fn outside(count: usize) -> Option<usize> {
    const ONE_SIDE: f64 = 0.005;
    const FEW: usize = 5;
    let all = i32::try_from(count).ok().filter(|_| count >= FEW)?;
    let mut exactly = 0.5_f64.powi(all);
    let mut at_most = exactly;
    let mut left_out = 0;
    for below in 0..all {
        if at_most > ONE_SIDE {
            break;
        }
        left_out = usize::try_from(below).ok()?;
        exactly *= f64::from(all - below) / f64::from(below + 1);
        at_most += exactly;
    }
    Some(left_out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(values: &[f64]) -> Vec<Sample> {
        values.iter().copied().map(Sample::of).collect()
    }

    fn series(unit: Unit) -> Series {
        let mut series = Series::new(Measure::TcpCrr, "pod→VNet", unit);
        series
            .sides
            .insert(SideName::Host, samples(&[10.0, 20.0, 40.0]));
        series
            .sides
            .insert(SideName::Ours, samples(&[9.0, 20.0, 30.0]));
        series
    }

    #[test]
    fn the_middle_value_counts_and_of_an_even_number_the_mean_of_two() {
        let odd = Spread::of(vec![3.0, 1.0, 2.0]).unwrap();
        let wanted = Spread {
            low: 1.0,
            median: 2.0,
            high: 3.0,
            sure: None,
        };
        assert_eq!(odd, wanted);
        assert!((Spread::of(vec![4.0, 1.0, 2.0, 3.0]).unwrap().median - 2.5).abs() < 1e-9);
        assert_eq!(Spread::of(Vec::new()), None);
    }

    #[test]
    fn a_ratio_is_the_median_of_the_rounds_own_ratios() {
        let ratio = &series(Unit::PerSecond).ratios()[0];
        assert_eq!(ratio.ours_over_host, Some(0.9));
        assert_eq!((ratio.low, ratio.high), (0.75, 1.0));
        assert_eq!(ratio.ours_over_bridge, None, "not measured, so no figure");
    }

    #[test]
    fn the_median_is_surely_between_fewer_of_the_values_the_more_there_are() {
        let of = |count: u32| {
            Spread::of((1..=count).map(f64::from).collect())
                .unwrap()
                .sure
        };
        assert_eq!(of(4), None);
        assert_eq!(of(5), Some([1.0, 5.0]));
        assert_eq!(of(9), Some([1.0, 9.0]));
        assert_eq!(of(15), Some([3.0, 13.0]));
    }

    #[test]
    fn cpu_time_is_compared_if_there_is_enough_of_it_to_be_seen() {
        let of = |millis: [u64; 2]| {
            let mut series = series(Unit::PerSecond);
            for (samples, millis) in series.sides.values_mut().zip(millis) {
                for sample in samples {
                    sample.cpu = Some((Duration::from_millis(millis), 1000.0));
                }
            }
            series.ratios().get(1).cloned()
        };
        // Ours needs twice as much.
        let ratio = of([200, 400]).unwrap();
        assert_eq!(ratio.path, "pod→VNet, CPU each");
        assert!((ratio.ours_over_host.unwrap() - 0.5).abs() < 1e-9);
        assert_eq!(of([20, 40]), None);
    }

    #[test]
    fn of_times_less_is_better() {
        let ratio = &series(Unit::Milliseconds).ratios()[0];
        assert!(ratio.ours_over_host.unwrap() > 1.1);
    }

    #[test]
    fn without_ours_or_without_anybody_else_there_is_no_ratio() {
        let mut alone = series(Unit::PerSecond);
        alone.sides.remove(&SideName::Host);
        assert_eq!(alone.ratios(), []);
        let mut theirs = series(Unit::PerSecond);
        theirs.sides.remove(&SideName::Ours);
        assert_eq!(theirs.ratios(), []);
        assert_eq!(theirs.rows().len(), 1);
    }

    #[test]
    fn percentiles_are_of_all_rounds_and_cpu_time_has_its_own_row() {
        let mut series = Series::new(Measure::TcpRr, "pod→VNet", Unit::PerSecond);
        let round = |micros: u64| {
            let mut latency = Histogram::new_with_bounds(1, 1 << 40, 3).unwrap();
            latency.record_n(micros * 1000, 99).unwrap();
            Sample {
                value: 1.0,
                latency: Some(latency),
                cpu: Some((Duration::from_micros(500), 100.0)),
            }
        };
        series
            .sides
            .insert(SideName::Ours, vec![round(10), round(10), round(500)]);
        let rows = series.rows();
        assert!((rows[0].p50_us.unwrap() - 10.0).abs() < 0.1);
        assert!((rows[0].p99_us.unwrap() - 500.0).abs() < 1.0);
        assert_eq!(rows[1].path, "pod→VNet, CPU each");
        assert!((rows[1].median - 5.0).abs() < 1e-9);
    }
}
