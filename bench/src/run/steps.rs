//! What takes how long in a call of ours: by the plug-in's own log, where every call leaves its steps.

use anyhow::{Context as _, Result};
use lab::Node;
use lab::libcni::{Network, Verb};
use serde_json::Value;

use super::Book;
use super::pods::call;
use crate::names::{Measure, SideName, Unit};
use crate::scene::Side;
use crate::series::{STEP, Sample, Series, Spread};

const LOG: &str = "/var/log/azure-vnet.log";

/// The steps of ADD and DEL, those that take longest first.
pub(super) struct Steps<'a> {
    node: &'a Node,
    steps: Vec<(Measure, String)>,
}

impl<'a> Steps<'a> {
    /// As one pod that comes and goes shows them; `None` when ours cannot be measured, which is noted.
    pub(super) fn of(book: &mut Book, sides: &'a [Side]) -> Option<Self> {
        let ours = sides.iter().find(|side| side.name == SideName::Ours)?;
        let found = Self::shown_by(ours.node(), ours.network());
        let noted = found.map_err(|error| book.fail(Some(SideName::Ours), "add, steps", &error));
        noted.ok()
    }

    fn shown_by(node: &'a Node, network: Result<&Network>) -> Result<Self> {
        let (pod, network) = (node.new_netns("steps")?, network?);
        for verb in [Verb::Add, Verb::Del] {
            call(&pod, network, verb)?;
        }
        pod.remove_netns()?;
        let mut found = Vec::new();
        for (measure, steps) in calls(&node.read(LOG)?)?.into_iter().rev().take(2) {
            found.extend(steps.into_iter().map(|(name, time)| (measure, time, name)));
        }
        found.sort_by(|(one, short, _), (other, long, _)| {
            one.cmp(other).then(long.total_cmp(short))
        });
        let steps = found.into_iter().map(|(measure, _, name)| (measure, name));
        Ok(Self {
            node,
            steps: steps.collect(),
        })
    }

    /// What the figures of [`Steps::since`] are of.
    pub(super) fn series(&self, path: &str) -> Vec<Series> {
        let series = |(measure, name): &(Measure, String)| {
            Series::new(*measure, format!("{path}{STEP}{name}"), Unit::Microseconds)
        };
        self.steps.iter().map(series).collect()
    }

    /// Where the log ends now.
    pub(super) fn end(&self) -> Result<usize> {
        Ok(self.node.read(LOG)?.len())
    }

    /// The median time of every step in the calls that were logged behind `end`.
    pub(super) fn since(&self, end: usize) -> Result<Vec<Sample>> {
        let text = self.node.read(LOG)?;
        // A log that was begun anew is shorter.
        let calls = calls(text.get(end..).unwrap_or(&text))?;
        let median = |(measure, name): &(Measure, String)| {
            let of_measure = calls.iter().filter(|(verb, _)| verb == measure);
            let times = of_measure.filter_map(|(_, steps)| {
                let found = steps.iter().find(|(step, _)| step == name);
                found.map(|(_, time)| *time)
            });
            let found = Spread::of(times.collect());
            let found = found.with_context(|| format!("no call in {LOG} has a step {name}"))?;
            Ok(Sample::of(found.median))
        };
        self.steps.iter().map(median).collect()
    }
}

type Call = (Measure, Vec<(String, f64)>);

/// Every ADD and DEL, with the microseconds of its steps.
fn calls(log: &str) -> Result<Vec<Call>> {
    let mut calls = Vec::new();
    for line in log.lines() {
        let entry: Value =
            serde_json::from_str(line).with_context(|| format!("in {LOG}: {line}"))?;
        let measure = match entry.get("verb").and_then(Value::as_str) {
            Some("ADD") => Measure::Add,
            Some("DEL") => Measure::Del,
            _ => continue,
        };
        let steps = entry.get("steps_us").and_then(Value::as_object);
        let steps = steps.with_context(|| format!("no steps in {line}"))?;
        let times = steps
            .iter()
            .filter_map(|(name, time)| Some((name.clone(), time.as_f64()?)));
        calls.push((measure, times.collect()));
    }
    Ok(calls)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_steps_of_add_and_del_are_read_and_other_verbs_left_out() {
        let log = "{\"verb\":\"ADD\",\"steps_us\":{\"ipam\":1500,\"links\":300}}\n\
                   {\"verb\":\"CHECK\",\"steps_us\":{\"pod\":3}}\n{\"verb\":\"DEL\",\"steps_us\":{\"ipam\":20}}\n";
        let step = |name: &str, time| (name.to_owned(), time);
        let wanted = [
            (
                Measure::Add,
                vec![step("ipam", 1500.0), step("links", 300.0)],
            ),
            (Measure::Del, vec![step("ipam", 20.0)]),
        ];
        assert_eq!(calls(log).unwrap(), wanted);
        calls("{\"verb\":\"ADD\"}").unwrap_err();
        calls("no JSON").unwrap_err();
    }
}
