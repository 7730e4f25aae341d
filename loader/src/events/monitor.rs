//! `vnetctl monitor`: packets as the programs decide about them, one per line.

use std::io::Write;
use std::time::{Duration, Instant};

use abi::{Event, Happening, Watch};
use anyhow::Result;
use clap::Args;
use hooks::{Maps, Pins};
use rpc::{RunDirectory, utc};
use serde::Serialize;

use super::describe::{Owners, headers, word};
use super::followed::Followed;
use super::listener::{Heard, Listener};
use super::{Limits, Sink, boot, follow};
use crate::trace::names::Names;
use crate::{podname, reconcile};

/// What is shown.
#[derive(Clone, Debug, Args)]
pub struct Monitor {
    /// Only packets of this pod, and not only those that are dropped.
    #[arg(long, value_name = "POD")]
    pub pod: Option<String>,
    /// Only packets that are dropped; without --pod nothing else is shown anyway.
    #[arg(long)]
    pub drops: bool,
    /// Lines a second; how many packets had no line is told.
    #[arg(long, value_name = "LINES", default_value_t = 100)]
    pub rate: u32,
    #[command(flatten)]
    pub limits: Limits,
}

/// A line for programs.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "documents", derive(schemars::JsonSchema))]
#[serde(untagged)]
pub(crate) enum Line {
    /// A packet.
    Packet(Shown),
    /// What had no line.
    Missing(Missing),
}

/// A packet.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "documents", derive(schemars::JsonSchema))]
pub(crate) struct Shown {
    time: String,
    /// Namespace and name, as `endpoints` has it; `None` when it is nobody's.
    pod: Option<String>,
    /// Where it was seen.
    interface: String,
    event: &'static str,
    dropped: bool,
    packet: String,
    bytes: u32,
}

/// Shows packets until the limits are reached, or somebody ends it.
pub fn monitor(wanted: &Monitor, json: bool, out: &mut impl Write) -> Result<()> {
    let pins = Pins::default();
    let maps = Maps::from_pins(&pins)?;
    let endpoints = reconcile::endpoints(&RunDirectory::default());
    let mut pod = None;
    if let Some(name) = &wanted.pod {
        let endpoint = podname::find(&endpoints, name)?;
        let followed = Followed::new(name, &maps, endpoint)?;
        pod = Some(followed);
    }
    let mut printer = Printer {
        out,
        drops_only: wanted.drops || pod.is_none(),
        pod,
        json,
        boot: boot()?,
        rate: Rate::new(wanted.rate),
    };
    let listener = Listener::open(&pins, printer.wishes())?;
    printer.head()?;
    follow(listener, &maps, wanted.limits, &mut printer)
}

/// Where the lines go, and which.
struct Printer<'a, W> {
    out: &'a mut W,
    pod: Option<Followed>,
    drops_only: bool,
    json: bool,
    boot: Duration,
    rate: Rate,
}

impl<W: Write> Printer<'_, W> {
    fn head(&mut self) -> Result<()> {
        if !self.json {
            writeln!(
                self.out,
                "{:<24} {:<32} {:<24} {:>6} PACKET",
                "TIME", "POD", "EVENT", "BYTES"
            )?;
            self.out.flush()?;
        }
        Ok(())
    }

    fn wishes(&self) -> Vec<Watch> {
        let slot = self.pod.as_ref().and_then(Followed::slot);
        let pod = slot.filter(|_| !self.drops_only).map(Watch::Pod);
        [Watch::Drops].into_iter().chain(pod).collect()
    }

    /// Others' wishes bring us more than we asked for.
    fn is_wanted(&self, owners: &Owners, event: &Event, what: Happening) -> bool {
        let pod = self.pod.as_ref();
        let of_pod = pod.is_none_or(|pod| pod.is_at(owners.address(event, what)));
        of_pod && (matches!(what, Happening::Dropped(_)) || !self.drops_only)
    }

    fn line(&mut self, line: &Line) -> Result<()> {
        writeln!(self.out, "{}", serde_json::to_string(line)?)?;
        Ok(())
    }

    /// Tells what had no line.
    fn confess(&mut self, missing: Missing) -> Result<()> {
        if self.json {
            self.line(&Line::Missing(missing))?;
        } else {
            writeln!(
                self.out,
                "... {} more packets (--rate shows more of them), and {} that came too fast to be seen",
                missing.suppressed, missing.lost
            )?;
        }
        Ok(())
    }
}

impl<W: Write> Sink for Printer<'_, W> {
    fn take(&mut self, owners: &Owners, heard: Heard) -> Result<bool> {
        let (event, frame) = match heard {
            Heard::Packet(event, frame) => (event, frame),
            Heard::Lost(count) => {
                self.rate.lost += count;
                return Ok(false);
            }
        };
        let what = Happening::of_bits(event.what);
        let Some(what) = what.filter(|what| self.is_wanted(owners, &event, *what)) else {
            return Ok(false);
        };
        if !self.rate.admits() {
            return Ok(false);
        }
        let shown = Shown {
            time: utc(self.boot + Duration::from_nanos(event.time)),
            pod: owners.name(&event, what),
            interface: Names::interface(event.ifindex),
            event: word(what),
            dropped: matches!(what, Happening::Dropped(_)),
            packet: headers(&frame),
            bytes: event.length,
        };
        if self.json {
            self.line(&Line::Packet(shown))?;
        } else {
            let dropped = if shown.dropped { "DROPPED " } else { "" };
            writeln!(
                self.out,
                "{:<24} {:<32} {:<24} {:>6} {}",
                shown.time,
                shown
                    .pod
                    .map_or(shown.interface, |pod| format!("pod {pod}")),
                format!("{dropped}{}", shown.event),
                shown.bytes,
                shown.packet
            )?;
        }
        Ok(true)
    }

    fn look(&mut self, owners: &Owners) -> Option<Vec<Watch>> {
        let moved = self.pod.as_mut()?.look(owners);
        moved.then(|| self.wishes())
    }

    fn pause(&mut self, at_the_end: bool) -> Result<()> {
        if let Some(missing) = self.rate.missing(at_the_end) {
            self.confess(missing)?;
        }
        Ok(self.out.flush()?)
    }
}

/// Packets without a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "documents", derive(schemars::JsonSchema))]
pub(crate) struct Missing {
    /// By the rate.
    suppressed: u64,
    /// By the kernel, whose buffer was full.
    lost: u64,
}

/// Lines a second.
struct Rate {
    most: u32,
    lines: u32,
    second: Instant,
    confessed: Instant,
    suppressed: u64,
    lost: u64,
}

impl Rate {
    fn new(most: u32) -> Self {
        Self {
            most,
            lines: 0,
            second: Instant::now(),
            confessed: Instant::now(),
            suppressed: 0,
            lost: 0,
        }
    }

    fn admits(&mut self) -> bool {
        if self.second.elapsed() >= Duration::from_secs(1) {
            self.second = Instant::now();
            self.lines = 0;
        }
        if self.lines == self.most {
            self.suppressed += 1;
            return false;
        }
        self.lines += 1;
        true
    }

    /// What was not shown, if it is time to tell.
    fn missing(&mut self, at_the_end: bool) -> Option<Missing> {
        let is_time = at_the_end || self.confessed.elapsed() >= Duration::from_secs(1);
        let missing = Missing {
            suppressed: self.suppressed,
            lost: self.lost,
        };
        if !is_time || missing == Missing::default() {
            return None;
        }
        self.confessed = Instant::now();
        (self.suppressed, self.lost) = (0, 0);
        Some(missing)
    }
}
