//! What a run found: `report.json`, and what is written from it.

mod bars;
mod changed;
mod compare;
mod costs;
mod explained;
mod growth;
mod machine;
mod markdown;
mod parts;
mod plot;
mod publish;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::names::{Measure, SideName, Unit};
use crate::series::{CPU, STEP};
pub(crate) use changed::Comparison;
pub(crate) use compare::compare;
pub(crate) use costs::Costs;
pub(crate) use machine::{Failure, LARGEST_LOADER, LARGEST_PLUGIN, Machine, Size};
pub(crate) use markdown::number;

/// All that a run found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    pub(crate) rows: Vec<Row>,
    pub(crate) ratios: Vec<Ratio>,
}

/// One side's figure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) measure: Measure,
    pub(crate) path: String,
    pub(crate) side: SideName,
    pub(crate) unit: Unit,
    pub(crate) median: f64,
    pub(crate) p50_us: Option<f64>,
    pub(crate) p99_us: Option<f64>,
    pub(crate) min: f64,
    pub(crate) max: f64,
    pub(crate) rounds: usize,
}

impl Row {
    /// Whether it says where a figure comes from, and is none to be compared.
    pub(crate) fn is_detail(&self) -> bool {
        self.path.ends_with(CPU) || self.path.contains(STEP)
    }
}

/// How ours compares with the others; more is better. `low` and `high` are the rounds' extremes of the first of the three
/// that is there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Ratio {
    pub(crate) measure: Measure,
    pub(crate) path: String,
    pub(crate) ours_over_host: Option<f64>,
    pub(crate) ours_over_bridge: Option<f64>,
    pub(crate) ours_over_ptp: Option<f64>,
    pub(crate) low: f64,
    pub(crate) high: f64,
    /// Between which each of the three would be in very many rounds, 99 times of 100. Nothing for less than five rounds.
    #[serde(default)]
    pub(crate) sure: BTreeMap<SideName, [f64; 2]>,
}

impl Ratio {
    /// With the names that the report has for them.
    pub(crate) fn named(&self) -> [(SideName, Option<f64>); 3] {
        [
            (SideName::Host, self.ours_over_host),
            (SideName::Bridge, self.ours_over_bridge),
            (SideName::Ptp, self.ours_over_ptp),
        ]
    }
}

impl Report {
    pub(crate) fn read(file: &Path) -> Result<Self> {
        let text = fs::read(file).with_context(|| format!("read {}", file.display()))?;
        serde_json::from_slice(&text)
            .with_context(|| format!("{} is no report of this benchmark", file.display()))
    }

    /// Writes `report.json`, `report.md` and the plots.
    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        let plots = plot::plots(self);
        let json = serde_json::to_string_pretty(self)?;
        let files = [
            ("report.json".to_owned(), json + "\n"),
            ("report.md".to_owned(), markdown::report(self, &plots)),
        ];
        fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
        let plots = plots.into_iter().map(|plot| (plot.file, plot.svg));
        for (name, text) in files.into_iter().chain(plots) {
            let path = folder.join(name);
            fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        }
        Ok(())
    }

    pub(crate) fn row(&self, measure: Measure, path: &str, side: SideName) -> Option<&Row> {
        let mut rows = self.rows.iter();
        rows.find(|row| row.measure == measure && row.path == path && row.side == side)
    }

    /// Whether something of ours could not be measured.
    pub(crate) fn lacks_ours(&self) -> bool {
        let mut failures = self.machine.failures.iter();
        failures.any(|failure| failure.side == Some(SideName::Ours))
    }

    /// How ours compares with a side.
    fn ratio(&self, measure: Measure, path: &str, over: SideName) -> Option<f64> {
        let mut ratios = self.ratios.iter();
        let found = ratios.find(|ratio| ratio.measure == measure && ratio.path == path)?;
        let named = found.named().into_iter().find(|(side, _)| *side == over)?;
        named.1
    }

    /// The measures that are there, with their paths, in the order of the run.
    pub(crate) fn paths(&self, measure: Measure) -> Vec<&str> {
        let mut paths: Vec<&str> = Vec::new();
        for row in self.rows.iter().filter(|row| row.measure == measure) {
            if !paths.contains(&row.path.as_str()) {
                paths.push(&row.path);
            }
        }
        paths
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_has_the_names_that_others_read() {
        let report = Report {
            machine: Machine::default(),
            rows: vec![Row {
                measure: Measure::TcpCrr,
                path: "pod→VNet".into(),
                side: SideName::Ours,
                unit: Unit::PerSecond,
                median: 9000.5,
                p50_us: Some(100.0),
                p99_us: None,
                min: 8000.0,
                max: 9500.0,
                rounds: 7,
            }],
            ratios: vec![Ratio {
                measure: Measure::GrowthServicesNft,
                path: "5000".into(),
                ours_over_host: None,
                ours_over_bridge: Some(1.25),
                ours_over_ptp: None,
                low: 1.0,
                high: 1.5,
                sure: BTreeMap::from([(SideName::Bridge, [1.1, 1.4])]),
            }],
        };
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(
            json["rows"][0],
            serde_json::json!({
                "measure": "tcp_crr", "path": "pod→VNet", "side": "ours", "unit": "1/s", "median": 9000.5,
                "p50_us": 100.0, "p99_us": null, "min": 8000.0, "max": 9500.0, "rounds": 7
            })
        );
        assert_eq!(
            json["ratios"][0],
            serde_json::json!({
                "measure": "growth_services_nft", "path": "5000", "ours_over_host": null,
                "ours_over_bridge": 1.25, "ours_over_ptp": null, "low": 1.0, "high": 1.5,
                "sure": {"bridge": [1.1, 1.4]}
            })
        );
        assert_eq!(serde_json::from_value::<Report>(json).unwrap(), report);
    }
}
