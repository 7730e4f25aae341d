//! Two ways of doing the same, measured in turns, so that what else the machine does hits both.

use std::fmt::{Display, Formatter};

use anyhow::Result;

/// How the second way compares with the first.
#[derive(Clone, Copy, Debug)]
pub struct Ratio {
    /// Median rate of the first way.
    pub base: f64,
    /// Median rate of the second way.
    pub ours: f64,
    /// Median of the rounds' ratios, second by first.
    pub median: f64,
    /// Smallest and greatest of the rounds' ratios.
    pub spread: (f64, f64),
}

impl Ratio {
    /// Measures `base`, `ours`, `base`, `ours`, … for `rounds` rounds; a first round of each is left out, for
    /// neighbours, caches and first entries.
    pub fn measure(
        rounds: usize,
        mut base: impl FnMut() -> Result<f64>,
        mut ours: impl FnMut() -> Result<f64>,
    ) -> Result<Self> {
        base()?;
        ours()?;
        let (mut bases, mut others, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..rounds {
            let (a, b) = (base()?, ours()?);
            bases.push(a);
            others.push(b);
            ratios.push(b / a);
        }
        ratios.sort_by(f64::total_cmp);
        let at = |ratio: Option<&f64>| ratio.copied().unwrap_or(0.0);
        Ok(Self {
            base: median(bases),
            ours: median(others),
            spread: (at(ratios.first()), at(ratios.last())),
            median: median(ratios),
        })
    }
}

impl Display for Ratio {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:>8.0} {:>8.0} {:>7.3} {:>7.3}-{:.3}",
            self.base, self.ours, self.median, self.spread.0, self.spread.1
        )
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_the_rounds_counts_and_the_first_round_does_not() {
        let mut ours = [100.0, 9.0, 1.0, 2.0].into_iter();
        let ratio = Ratio::measure(3, || Ok(2.0), || Ok(ours.next().unwrap_or(0.0)));
        let ratio = ratio.unwrap();
        assert!((ratio.median - 1.0).abs() < 1e-9, "{ratio}");
        assert!((ratio.spread.1 - 4.5).abs() < 1e-9, "{ratio}");
    }
}
