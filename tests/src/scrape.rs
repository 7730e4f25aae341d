//! What does a loader's page of metrics say?

use anyhow::{Context as _, Result, ensure};

use crate::node::Node;

/// Where the tests' loaders serve their metrics.
pub const METRICS_PORT: u16 = 9655;
/// What `loader.yaml` has to say for that.
pub const METRICS_ON: &str = "metrics: 127.0.0.1:9655\n";

/// A page of metrics.
#[derive(Clone, Debug)]
pub struct Scrape {
    pub text: String,
}

impl Node {
    /// Reads the loader's metrics.
    pub fn scrape(&self) -> Result<Scrape> {
        let answer = self.http([127, 0, 0, 1].into(), METRICS_PORT, "/metrics", &[])?;
        ensure!(answer.status == 200, "{answer:?}");
        let kind = answer.header("Content-Type").unwrap_or_default();
        ensure!(kind.starts_with("application/openmetrics-text"), "{kind}");
        ensure!(answer.body.ends_with("# EOF\n"), "{}", answer.body);
        Ok(Scrape { text: answer.body })
    }
}

impl Scrape {
    /// The value of a series: `value("x_total", &[("path", "to_pod")])`. 0 when there is none, as Prometheus' users write it.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.find(name, labels).unwrap_or(0.0)
    }

    /// The value of a series, if there is one whose labels contain these.
    pub fn find(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let lines = self.text.lines().filter(|line| {
            let rest = line.strip_prefix(name).unwrap_or_default();
            rest.starts_with('{') || rest.starts_with(' ')
        });
        let mut lines = lines.filter(|line| {
            let has = |(key, value): &(&str, &str)| line.contains(&format!("{key}=\"{value}\""));
            labels.iter().all(has)
        });
        let (_, value) = lines.next()?.rsplit_once(' ')?;
        value.parse().ok()
    }

    /// The names of all metrics, as queries have them.
    pub fn names(&self) -> Result<Vec<String>> {
        let types = self
            .text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE "));
        let name = |line: &str| {
            let (name, kind) = line.split_once(' ').context("a TYPE without a kind")?;
            let suffix = if kind == "counter" { "_total" } else { "" };
            Ok(format!("{name}{suffix}"))
        };
        types.map(name).collect()
    }
}
