//! What Prometheus may read, and where each number comes from.
//!
//! A scrape costs a millisecond or two: it reads counters and listings, never the tables of flows and bindings, whose fill is
//! that of the last sweep. Every name is described in `docs/metrics.md`.

mod addresses;
mod calls;
mod expose;
mod page;
mod process;
mod state;

use std::fmt;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use rpc::CallReport;

pub(crate) use addresses::Addresses;
use calls::Calls;
use page::{Labels, Page, labels};
use state::State;

use crate::daemon::Daemon;
use crate::gc::Swept;

/// Upper bounds of a sweep, seconds.
const SWEEPS: [f64; 9] = [0.0005, 0.002, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// What is counted as it happens.
#[derive(Debug)]
pub(crate) struct Metrics {
    calls: Calls,
    sweeps: Histogram,
    swept_away: Family<Labels, Counter>,
    failed_sweeps: Counter,
    failed_reads: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            calls: Calls::default(),
            sweeps: Histogram::new(SWEEPS),
            swept_away: Family::default(),
            failed_sweeps: Counter::default(),
            failed_reads: Counter::default(),
        }
    }
}

impl Metrics {
    /// A call of a plug-in is over.
    pub(crate) fn call(&self, report: &CallReport) {
        self.calls.record(report);
    }

    /// A sweep over the tables is over.
    pub(crate) fn swept(&self, swept: &Swept) {
        self.sweeps.observe(swept.took.as_secs_f64());
        for (table, removed) in [
            (abi::pins::map::FLOWS, swept.flows_removed),
            (abi::pins::map::SNAT, swept.bindings_removed),
        ] {
            let of = labels(["map"], [table.to_owned()]);
            self.swept_away.get_or_create(&of).inc_by(removed.into());
        }
    }

    /// A sweep did not work.
    pub(crate) fn sweep_failed(&self) {
        self.failed_sweeps.inc();
    }

    /// Neither source told the address pools.
    pub(crate) fn pools_not_read(&self) {
        self.failed_reads.inc();
    }

    fn write(&self, page: &mut Page) {
        self.calls.write(page);
        page.add(
            "azure_vnet_gc_sweep_duration_seconds",
            "How long sweeps over the tables of flows and bindings took",
            self.sweeps.clone(),
        );
        page.add(
            "azure_vnet_gc_removed_entries",
            "Entries that sweeps have removed because they were dead",
            self.swept_away.clone(),
        );
        page.add(
            "azure_vnet_gc_failures",
            "Sweeps that failed; see the loader's log",
            self.failed_sweeps.clone(),
        );
        page.add(
            "azure_vnet_pool_read_failures",
            "Times that neither the wireserver nor IMDS told the address pools",
            self.failed_reads.clone(),
        );
    }
}

impl Daemon {
    /// All metrics as text.
    pub(crate) fn exposition(&self) -> anyhow::Result<String> {
        Ok(text(&self.metrics, &State::gather(self)?)?)
    }
}

fn text(metrics: &Metrics, state: &State) -> Result<String, fmt::Error> {
    let mut page = Page::default();
    state.write(&mut page);
    metrics.write(&mut page);
    page.text()
}

#[cfg(test)]
mod tests;
