//! How do entries get from the maps of another build into those of this one, while packets pass?
//!
//! 1. What only the loader writes is copied as soon as the new maps are there ([`Carry::settings`]).
//! 2. Before the first program is replaced ([`Carry::begin`]), the programs are told that a flow has found no room. From then
//!    on whatever is not in a table takes the stack, in old programs and in new ones, so nothing new is bound or taken for fast.
//!    The tables are copied before, and what has changed meanwhile after that, because it must not last: the kernel has few ports.
//! 3. While programs are replaced, old ones refresh entries of the old tables, new ones those of the new.
//! 4. After the last one ([`Carry::finish`]), entries that the old ones have changed meanwhile are copied again; then the new
//!    maps take the old ones' pins, and the count of 2 is acknowledged, unless a flow has really found no room: then the next
//!    sweep does it, as always. Flows that have come into the stack by it leave it again.
//!
//! Who is killed in between leaves both maps pinned, and the next start, of either build, goes on.

mod hurry;
mod merge;
mod moving;

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use abi::FlowKey;
use abi::pins::map;
use aya::maps::MapError;
use hooks::{Pins, RawMap};
use tracing::{info, warn};

use crate::conntrack;
use crate::gc::{self, Pressure};
use crate::layouts::{Plan, Role, expected};
use crate::registry::Registry;
use hurry::Hurry;
use moving::{Copies, Move};

/// Entries could not be carried over.
#[derive(Debug, thiserror::Error)]
pub enum CarryError {
    /// A map cannot be opened.
    #[error("open the pinned map {path}: {source}")]
    Open {
        /// The pin.
        path: PathBuf,
        /// aya's reason.
        source: MapError,
    },
    /// The kernel refuses.
    #[error("carry the entries of map `{map}` over: {source}")]
    Copy {
        /// The map.
        map: &'static str,
        /// The kernel's reason.
        source: io::Error,
    },
    /// A pin cannot take another one's place.
    #[error("move the pin {path} into its place: {source}")]
    Place {
        /// The pin.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

impl CarryError {
    /// Of copying this map.
    fn of(map: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Copy { map, source }
    }
}

/// Maps whose entries move, and new ones that move into their place.
#[derive(Debug)]
pub struct Carry {
    pins: Pins,
    places: Vec<(PathBuf, PathBuf)>,
    moves: Vec<Move>,
    /// The count of lost flows that says nothing but that the tables move.
    claimed: Option<u32>,
    /// The flows that were known before it was counted.
    known: HashSet<FlowKey>,
    /// When it was counted, and the haste from then on.
    since: Option<(Instant, Hurry)>,
}

impl Carry {
    /// What `plans` say, all of whose maps are there by now.
    pub(crate) fn new(pins: &Pins, plans: &[Plan]) -> Result<Self, CarryError> {
        let open = |path: &PathBuf| {
            RawMap::open(path).map_err(|source| CarryError::Open {
                path: path.clone(),
                source,
            })
        };
        let mut moves = Vec::new();
        for plan in plans {
            if let (Some((source, way)), Some((role, _))) = (&plan.source, expected(plan.name)) {
                moves.push(Move {
                    name: plan.name,
                    role,
                    way: *way,
                    from: open(source)?,
                    source: source.clone(),
                    to: open(&plan.pin)?,
                    resumed: plan.is_there,
                    copies: Copies::default(),
                });
            }
        }
        let places = plans
            .iter()
            .map(|plan| (plan.pin.clone(), pins.map(plan.name)));
        let places = places.filter(|(pin, place)| pin != place).collect();
        Ok(Self::of(pins, places, moves))
    }

    fn of(pins: &Pins, places: Vec<(PathBuf, PathBuf)>, moves: Vec<Move>) -> Self {
        Self {
            pins: pins.clone(),
            places,
            moves,
            claimed: None,
            known: HashSet::new(),
            since: None,
        }
    }

    /// Copies what the loader alone writes, and counters.
    pub(crate) fn settings(&mut self) -> Result<(), CarryError> {
        let is_copied = |one: &&mut Move| one.role != Role::Table && !one.resumed;
        self.copy(is_copied)
    }

    /// Copies the tables, makes every miss safe, and copies what has changed meanwhile.
    pub fn begin(&mut self, registry: &mut Registry) -> anyhow::Result<()> {
        if self.moves.iter().any(|one| one.role == Role::Table) {
            self.tables()?;
            let known = registry.maps.flows.keys().filter_map(Result::ok);
            self.known = known.map(|key| key.0).collect();
            // Read before: a flow that finds no room while we count must not count as ours.
            let (was_full, lost) = (registry.flows_full()?, registry.flows_lost()?);
            self.since = Some((Instant::now(), Hurry::begin()));
            self.count_a_lost_flow()?;
            self.claimed = (!was_full).then_some(lost.wrapping_add(1));
            settle();
            self.tables()?;
            self.remove_missing()?;
        }
        Ok(())
    }

    /// Lets a miss mean "stack" until the next sweep, which asks for the kernel's connections before it ends that.
    pub(crate) fn leave_to_the_sweep(&mut self) {
        self.claimed = None;
    }

    /// Ends the haste: the rest of the upgrade takes as long as it takes.
    pub(crate) fn take_time(&mut self) {
        self.since = None;
    }

    /// Whether no program uses the maps of an earlier build.
    pub(crate) fn is_over(&self) -> bool {
        self.moves.is_empty() && self.places.is_empty()
    }

    /// Copies what has changed since, and gives the new maps the pins of the old ones. Nothing runs any more that uses those.
    pub fn finish(&mut self, registry: &mut Registry) -> anyhow::Result<()> {
        // The haste ends with this, whatever comes of it.
        let since = self.since.take();
        if !self.moves.is_empty() {
            settle();
        }
        self.tables()?;
        place(&mut self.places)?;
        while let Some(one) = self.moves.last() {
            // Else the new one has taken its place.
            if one.source != self.pins.map(one.name) {
                remove(&one.source).map_err(|source| CarryError::Place {
                    path: one.source.clone(),
                    source,
                })?;
            }
            info!(map = one.name, way = %one.way, entries = one.copies.len(), "carried over");
            self.moves.pop();
        }
        let known = std::mem::take(&mut self.known);
        if let Some(lost) = self.claimed.take()
            && registry.flows_lost()? == lost
        {
            registry.set_flows_full(false, lost)?;
            let took = since.map(|(since, _hurry)| since.elapsed());
            info!(?took, "new flows took the stack");
            self.end_detours(registry, &known)?;
        }
        Ok(())
    }

    /// What has gone through the stack meanwhile shall not stay there: its ports if it is over, its packets if the kernel does not
    /// translate them.
    fn end_detours(&self, registry: &mut Registry, known: &HashSet<FlowKey>) -> anyhow::Result<()> {
        let pressure = Pressure {
            flows: true,
            bindings: false,
        };
        gc::sweep(&self.pins, pressure)?;
        match conntrack::give_back(registry, known) {
            Ok(flows) => info!(flows, "off the stack again"),
            Err(error) => warn!(%error, "flows that began during the upgrade stay in the stack"),
        }
        Ok(())
    }

    /// Gives those new maps their pins into which nothing is carried.
    pub(crate) fn place_unrivalled(&mut self) -> Result<(), CarryError> {
        let is_carried = |pins: &Pins, moves: &[Move], place: &Path| {
            moves.iter().any(|one| pins.map(one.name) == place)
        };
        let places = std::mem::take(&mut self.places).into_iter();
        let (carried, mut unrivalled): (Vec<_>, Vec<_>) =
            places.partition(|(_, place)| is_carried(&self.pins, &self.moves, place));
        self.places = carried;
        place(&mut unrivalled)
    }

    /// See `lost_flows` of the programs: while the settings have another count, a miss means "stack". As both maps, if there
    /// are two, count from the same number, the settings have another count than either.
    fn count_a_lost_flow(&self) -> Result<(), CarryError> {
        for path in [
            self.pins.map(map::FLOWS_LOST),
            self.pins.next_map(map::FLOWS_LOST),
        ] {
            if !path.exists() {
                continue;
            }
            let counts = RawMap::open(&path).map_err(|source| CarryError::Open { path, source })?;
            let add = |index: &[u8], count: &[u8]| {
                let count = <[u8; 4]>::try_from(count).map_or(0, u32::from_ne_bytes);
                counts.put(index, &count.wrapping_add(1).to_ne_bytes())
            };
            counts.each(add).map_err(CarryError::of(map::FLOWS_LOST))?;
        }
        Ok(())
    }

    fn tables(&mut self) -> Result<(), CarryError> {
        self.copy(|one| one.role == Role::Table)
    }

    /// What the copies have too much, unless programs may write there: an upgrade that was cut short goes on, or is taken back.
    fn remove_missing(&mut self) -> Result<(), CarryError> {
        let is_unused = |one: &&mut Move| one.role == Role::Table && !one.resumed;
        for one in self.moves.iter_mut().filter(is_unused) {
            one.remove_missing().map_err(CarryError::of(one.name))?;
        }
        Ok(())
    }

    fn copy(&mut self, is_copied: impl FnMut(&&mut Move) -> bool) -> Result<(), CarryError> {
        for one in self.moves.iter_mut().filter(is_copied) {
            one.copy().map_err(CarryError::of(one.name))?;
        }
        Ok(())
    }
}

/// Lets programs end that run with what was so before. On a CPU that a hypervisor has taken away, one packet's can last longer than
/// a copy, which would miss what it writes.
fn settle() {
    if let Err(error) = hooks::wait_for_programs() {
        warn!(%error, "wait for programs that run: what they write now may be lost, and its packets sent again");
    }
}

/// Moves pins over those that are there, each in one step.
fn place(places: &mut Vec<(PathBuf, PathBuf)>) -> Result<(), CarryError> {
    while let Some((pin, place)) = places.last() {
        fs::rename(pin, place).map_err(|source| CarryError::Place {
            path: pin.clone(),
            source,
        })?;
        places.pop();
    }
    Ok(())
}

/// Not there is success: who was interrupted has removed it already.
fn remove(pin: &Path) -> io::Result<()> {
    match fs::remove_file(pin) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}
