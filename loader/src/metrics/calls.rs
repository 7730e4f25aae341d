//! What the plug-ins tell of their calls: how long they took, and how they failed.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::Duration;

use netconf::MAIN_PLUGIN;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use rpc::CallReport;

use crate::ipam::IPAM;

use super::page::{Labels, Page, labels};

/// Upper bounds, seconds: an ADD takes five milliseconds, and may take 20 s.
const BUCKETS: [f64; 13] = [
    0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 20.0,
];
/// Whatever else somebody may tell, the number of series stays small.
const OTHER: &str = "other";
const PLUGINS: [&str; 2] = [MAIN_PLUGIN, IPAM];
const VERBS: [&str; 7] = [
    "ADD",
    "DEL",
    "CHECK",
    "GC",
    "STATUS",
    "GET_ENDPOINT_STATE",
    "UPDATE",
];
/// Different errors that are told apart: codes and steps are a handful each.
const MOST_ERRORS: usize = 200;

/// Calls since the loader started.
#[derive(Debug)]
pub(super) struct Calls {
    durations: Family<Labels, Histogram, fn() -> Histogram>,
    errors: Family<Labels, Counter>,
    /// The series of `errors`.
    known: RefCell<BTreeSet<Labels>>,
}

impl Default for Calls {
    fn default() -> Self {
        Self {
            durations: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
            errors: Family::default(),
            known: RefCell::default(),
        }
    }
}

impl Calls {
    /// A call is over.
    pub(super) fn record(&self, report: &CallReport) {
        let plugin = one_of(&PLUGINS, &report.plugin);
        let verb = one_of(&VERBS, &report.verb);
        let call = labels(["plugin", "verb"], [plugin.into(), verb.into()]);
        let seconds = Duration::from_micros(report.total_us).as_secs_f64();
        self.durations.get_or_create(&call).observe(seconds);
        let Some(error) = &report.error else { return };
        let named = |code: String, step: &str| {
            let values = [plugin.into(), verb.into(), code, step.into()];
            labels(["plugin", "verb", "code", "step"], values)
        };
        let mut error = named(error.code.to_string(), &error.step);
        let mut known = self.known.borrow_mut();
        if known.len() >= MOST_ERRORS && !known.contains(&error) {
            error = named(OTHER.into(), OTHER);
        }
        known.insert(error.clone());
        self.errors.get_or_create(&error).inc();
    }

    pub(super) fn write(&self, page: &mut Page) {
        page.add(
            "azure_vnet_cni_call_duration_seconds",
            "How long calls of the plug-ins took, failed ones included, as they told the loader",
            self.durations.clone(),
        );
        page.add(
            "azure_vnet_cni_call_errors",
            "Calls that failed, by the CNI code and the step at which they did; a call that no loader heard of is in the plug-in's log only",
            self.errors.clone(),
        );
    }
}

fn one_of(known: &[&'static str], word: &str) -> &'static str {
    let found = known.iter().find(|known| **known == word);
    found.copied().unwrap_or(OTHER)
}

#[cfg(test)]
mod tests {
    use rpc::CallFailure;

    use super::*;

    #[test]
    fn nobody_can_make_more_series_than_a_few_hundred() {
        let calls = Calls::default();
        for number in 0..1000 {
            calls.record(&CallReport {
                plugin: format!("plugin{number}"),
                verb: format!("verb{number}"),
                total_us: 1,
                error: Some(CallFailure {
                    code: number,
                    step: format!("step{number}"),
                }),
            });
        }
        let mut page = Page::default();
        calls.write(&mut page);
        let text = page.text().unwrap();
        let series = |name: &str| text.lines().filter(|line| line.starts_with(name)).count();
        assert_eq!(series("azure_vnet_cni_call_duration_seconds_count"), 1);
        assert_eq!(series("azure_vnet_cni_call_errors_total"), MOST_ERRORS + 1);
    }
}
