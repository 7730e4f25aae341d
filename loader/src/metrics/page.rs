//! A page of metrics in the making.

use std::fmt;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Metric, Registry};

/// Names and values.
pub(super) type Labels = Vec<(&'static str, String)>;

pub(super) fn labels<const N: usize>(names: [&'static str; N], values: [String; N]) -> Labels {
    names.into_iter().zip(values).collect()
}

/// What is exposed, in the order of its making.
#[derive(Debug, Default)]
pub(super) struct Page {
    registry: Registry,
}

impl Page {
    /// Something that keeps itself.
    pub(super) fn add(&mut self, name: &str, help: &str, metric: impl Metric) {
        self.registry.register(name, help, metric);
    }

    /// What only grows. `_total` is added to the name.
    pub(super) fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.add(name, help, counter(value));
    }

    /// The same, for each of several things.
    pub(super) fn counters<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        names: [&'static str; N],
        values: impl IntoIterator<Item = ([String; N], u64)>,
    ) {
        let family = Family::<Labels, Counter>::default();
        for (of, value) in values {
            family.get_or_create(&labels(names, of)).inc_by(value);
        }
        self.add(name, help, family);
    }

    /// What comes and goes.
    pub(super) fn gauge(&mut self, name: &str, help: &str, value: u64) {
        let gauge = Gauge::<u64, AtomicU64>::default();
        gauge.set(value);
        self.add(name, help, gauge);
    }

    /// The same, for each of several things.
    pub(super) fn gauges<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        names: [&'static str; N],
        values: impl IntoIterator<Item = ([String; N], u64)>,
    ) {
        let family = Family::<Labels, Gauge<u64, AtomicU64>>::default();
        for (of, value) in values {
            family.get_or_create(&labels(names, of)).set(value);
        }
        self.add(name, help, family);
    }

    /// A time.
    pub(super) fn seconds(&mut self, name: &str, help: &str, value: f64) {
        let gauge = Gauge::<f64, AtomicU64>::default();
        gauge.set(value);
        self.add(name, help, gauge);
    }

    /// Time that only grows. `_total` is added to the name.
    pub(super) fn seconds_total(&mut self, name: &str, help: &str, value: f64) {
        let counter = Counter::<f64, AtomicU64>::default();
        counter.inc_by(value);
        self.add(name, help, counter);
    }

    /// As text, `OpenMetrics` 1.0.
    pub(super) fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

fn counter(value: u64) -> Counter {
    let counter = Counter::default();
    counter.inc_by(value);
    counter
}
