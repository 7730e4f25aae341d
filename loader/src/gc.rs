//! When table entries die: a sweep over `snat` and `flows` with the programs' own rules of expiry.

use std::time::{Duration, Instant};

use abi::{Binding, BindingKey, Flow, FlowKey, Ip4, Pod, pins};
use aya::maps::{MapError, MapInfo};
use datapath::{Seconds, binding_expired, flow_expired, is_closed};
use hooks::{Abi, Maps, Pins, Remover, each_entry};
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime};
use tracing::debug;

use crate::census::{Census, PodsByAddress};

/// Dead entries that are looked at once more, and then removed together: so few that nobody takes one over in between, and so
/// many that it pays.
const AT_A_TIME: usize = 8;

/// What a sweep found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Bindings that stay.
    pub bindings: u32,
    /// Of those, closed ones.
    pub bindings_closed: u32,
    /// Bindings that were removed.
    pub bindings_removed: u32,
    /// Flows that stay.
    pub flows: u32,
    /// Flows that were removed.
    pub flows_removed: u32,
    /// Flows that fit.
    pub flows_capacity: u32,
    /// Bindings that fit.
    pub bindings_capacity: u32,
    /// How long it took.
    pub took: Duration,
    /// How much of that the processor spent on it.
    pub cpu: Duration,
    /// Who holds the bindings.
    pub census: Census,
}

impl Swept {
    /// What it left in `flows` and `snat`. `None`: there was no sweep.
    pub fn left(&self) -> Option<(u32, u32)> {
        (self.flows_capacity.max(self.bindings_capacity) > 0).then_some((self.flows, self.bindings))
    }

    /// As much of a time as is free of the fuller table.
    pub fn free_of(&self, time: Duration) -> Duration {
        let tables = [
            (self.flows, self.flows_capacity),
            (self.bindings, self.bindings_capacity),
        ];
        let free = |(left, capacity): (u32, u32)| {
            (time * capacity.saturating_sub(left)).checked_div(capacity)
        };
        let least = tables.into_iter().filter_map(free).min();
        least.unwrap_or(time)
    }

    /// When a table will be so full that sweeps must come in haste, should as much come as has come `since` the sweep that left `before`
    /// in it: of a first one nobody knows when that came. `None`: never. In haste already: zero.
    pub fn until_filling(&self, before: Option<(u32, u32)>, since: Duration) -> Option<Duration> {
        let flows = (
            self.flows,
            self.flows_removed,
            self.flows_capacity,
            before.map(|before| before.0),
        );
        let bindings = (
            self.bindings,
            self.bindings_removed,
            self.bindings_capacity,
            before.map(|before| before.1),
        );
        let until = |(left, removed, capacity, before): (u32, u32, u32, Option<u32>)| {
            let room = mark(capacity).saturating_sub(left);
            let come = left.saturating_add(removed);
            let come = before.map_or(0, |before| come.saturating_sub(before));
            match (capacity, room) {
                (0, _) => None,
                (_, 0) => Some(Duration::ZERO),
                (_, room) => (since * room).checked_div(come),
            }
        };
        [flows, bindings].into_iter().filter_map(until).min()
    }

    /// Whether so many connections come and go that `snat` may be full before long: closed ones stay for a minute.
    pub fn is_busy(&self) -> bool {
        self.bindings_closed > self.bindings / 8
    }

    /// Whether `snat` is so full that closed bindings shall make room before their time.
    pub fn bindings_full(&self) -> bool {
        self.bindings_capacity > 0 && self.bindings >= mark(self.bindings_capacity)
    }

    /// Whether misses in `flows` must mean "stack", given whether they do now: from three quarters of the table on, until
    /// half of it is free again.
    pub fn flows_full(&self, now: bool) -> bool {
        let mark = if now { 2 } else { 3 };
        self.flows >= self.flows_capacity / 4 * mark
    }
}

/// Of so many entries, a table that holds these is nearly full.
const fn mark(capacity: u32) -> u32 {
    capacity / 4 * 3
}

/// Which tables are short of room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    /// `flows`: closed ones go at once.
    pub flows: bool,
    /// `snat`: closed ones go as soon as both ends have heard of it.
    pub bindings: bool,
}

/// Sweeps both tables once. Blocks: less than half a microsecond an entry, and one and a half for one that is removed.
pub fn sweep(pins: &Pins, pressure: Pressure) -> anyhow::Result<Swept> {
    let mut maps = Maps::from_pins(pins)?;
    let (started, cpu_before) = (Instant::now(), cpu());
    let now = now();
    let capacity = |name| Ok::<_, MapError>(MapInfo::from_pin(pins.map(name))?.max_entries());
    let mut swept = Swept {
        flows_capacity: capacity(pins::map::FLOWS)?,
        bindings_capacity: capacity(pins::map::SNAT)?,
        ..Swept::default()
    };
    sweep_bindings(&mut maps, pins, now, pressure.bindings, &mut swept)?;
    sweep_flows(&mut maps, pins, now, pressure.flows, &mut swept)?;
    swept.took = started.elapsed();
    swept.cpu = (cpu() - cpu_before).into();
    debug!(
        took_us = swept.took.as_micros(),
        cpu_us = swept.cpu.as_micros(),
        bindings = swept.bindings,
        bindings_removed = swept.bindings_removed,
        flows = swept.flows,
        flows_removed = swept.flows_removed,
        "swept"
    );
    Ok(swept)
}

/// Processor time of this thread, of which a busy node gives it little at a time.
fn cpu() -> TimeSpec {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap_or(TimeSpec::new(0, 0))
}

/// The loader's clock, a second or so ahead of the programs' ticks.
pub(crate) fn now() -> Seconds {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).map_or(0, |time| time.tv_sec());
    Seconds(u32::try_from(now).unwrap_or(u32::MAX))
}

/// All pods, read once: half a million entries are looked up in them.
pub(crate) fn pods(maps: &Maps) -> Result<PodsByAddress, MapError> {
    maps.pods
        .iter()
        .map(|entry| entry.map(|(addr, pod)| (addr.0, pod.0)))
        .collect()
}

/// Whether a binding goes. While the table is `full`, a closed one has no more than the second that a new connection in want
/// of its port would leave it, and one for the difference between the clocks.
fn is_dead(binding: &Binding, proto: u8, now: Seconds, full: bool) -> bool {
    binding_expired(binding, proto, now)
        || (full && binding.state().is_over() && now.since(binding.last_seen) > 2)
}

fn sweep_bindings(
    maps: &mut Maps,
    pins: &Pins,
    now: Seconds,
    full: bool,
    swept: &mut Swept,
) -> anyhow::Result<()> {
    let is_dead = |key: &BindingKey, binding: &Binding| is_dead(binding, key.proto, now, full);
    let pods = pods(maps)?;
    let counted = Census::counted(maps, &pods)?;
    let mut dead: Vec<(BindingKey, Binding)> = Vec::new();
    each_entry(
        &pins.map(pins::map::SNAT),
        |key: &BindingKey, binding: &Binding| {
            let pod = pods
                .get(&binding.pod)
                .filter(|pod| pod.generation == binding.generation);
            match pod {
                Some(pod) if !is_dead(key, binding) => {
                    swept.bindings += 1;
                    swept.bindings_closed += u32::from(binding.state().is_over());
                    swept.census.count(pod.slot, key, binding);
                }
                Some(_) | None => dead.push((*key, *binding)),
            }
        },
    )?;
    let remover = Remover::open(&pins.map(pins::map::SNAT))?;
    for few in dead.chunks(AT_A_TIME) {
        let mut still = Vec::with_capacity(AT_A_TIME);
        for (key, binding) in few {
            // Looked up again: a new connection may have taken it over meanwhile, and its pod may be new.
            if matches!(maps.snat.get(&Abi(*key), 0), Ok(Abi(current)) if current == *binding)
                && (is_dead(key, binding) || !has_pod(maps, binding)?)
            {
                still.push(*key);
            }
        }
        swept.bindings_removed += remover.remove(&still)?;
    }
    swept.census.correct(maps, &counted)?;
    Ok(())
}

/// Whether the pod that made the binding still has the address.
fn has_pod(maps: &Maps, binding: &Binding) -> Result<bool, MapError> {
    Ok(pod(maps, binding.pod)?.is_some_and(|pod| pod.generation == binding.generation))
}

fn pod(maps: &Maps, addr: Ip4) -> Result<Option<Pod>, MapError> {
    match maps.pods.get(&Abi(addr), 0) {
        Ok(Abi(pod)) => Ok(Some(pod)),
        Err(MapError::KeyNotFound) => Ok(None),
        Err(error) => Err(error),
    }
}

fn sweep_flows(
    maps: &mut Maps,
    pins: &Pins,
    now: Seconds,
    full: bool,
    swept: &mut Swept,
) -> anyhow::Result<()> {
    let pods = pods(maps)?;
    let is_dead = |key: &FlowKey, flow: &Flow| {
        flow_expired(flow, key.proto, now) || (full && is_closed(flow))
    };
    let mut dead: Vec<(FlowKey, Flow)> = Vec::new();
    each_entry(&pins.map(pins::map::FLOWS), |key: &FlowKey, flow: &Flow| {
        let has_pod = pods.contains_key(&key.low) || pods.contains_key(&key.high);
        if has_pod && !is_dead(key, flow) {
            swept.flows += 1;
        } else {
            dead.push((*key, *flow));
        }
    })?;
    let remover = Remover::open(&pins.map(pins::map::FLOWS))?;
    for few in dead.chunks(AT_A_TIME) {
        let mut still = Vec::with_capacity(AT_A_TIME);
        for (key, flow) in few {
            let Ok(Abi(current)) = maps.flows.get(&Abi(*key), 0) else {
                continue;
            };
            // A flow of a released address must not decide about the next pod that gets it.
            let is_orphan = || {
                Ok::<_, MapError>(pod(maps, key.low)?.is_none() && pod(maps, key.high)?.is_none())
            };
            if current == *flow && (is_dead(key, flow) || is_orphan()?) {
                still.push(*key);
            }
        }
        swept.flows_removed += remover.remove(&still)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use abi::{BindingState, Port, proto};

    use super::*;

    #[test]
    fn how_long_a_table_lasts_is_told_by_what_has_come() {
        const TEN: Duration = Duration::from_secs(10);
        let at = |flows, flows_removed, bindings| Swept {
            flows,
            flows_removed,
            flows_capacity: 1024,
            bindings,
            bindings_capacity: 2048,
            ..Swept::default()
        };
        let until =
            |swept: Swept, flows, bindings| swept.until_filling(Some((flows, bindings)), TEN);
        assert_eq!(until(at(100, 0, 100), 100, 100), None, "nothing comes");
        let haste = Some(Duration::ZERO);
        assert_eq!(until(at(768, 0, 0), 768, 0), haste);
        assert_eq!(until(at(0, 0, 1536), 0, 1536), haste);
        assert!(at(0, 0, 1536).bindings_full() && !at(1024, 0, 1535).bindings_full());
        // 334 come in ten seconds, and as many go.
        assert_eq!(until(at(434, 334, 0), 434, 0), Some(TEN));
        // 100 a second, and room for 568 flows.
        let soon = until(at(200, 800, 100), 0, 100);
        assert_eq!(soon, Some(Duration::from_millis(5680)));
        assert_eq!(
            Swept::default().until_filling(Some((0, 0)), TEN),
            None,
            "nothing was swept yet"
        );
        let first = |flows| at(flows, 100, 100).until_filling(None, Duration::from_millis(1));
        assert_eq!((first(100), first(768)), (None, haste));
    }

    #[test]
    fn closed_bindings_make_room_two_seconds_later_when_there_is_little() {
        let pod = Ip4::new([10, 240, 1, 10]);
        let now = Seconds(1000);
        let dead = |state, seen_before, full| {
            let seen = now.0 - seen_before;
            let binding = Binding::new(pod, Port::from_u16(1), 1, state, seen);
            is_dead(&binding, proto::TCP, now, full)
        };
        for state in [BindingState::Closed, BindingState::Reset] {
            assert!(dead(state, 3, true), "{state:?}");
            assert!(!dead(state, 2, true), "{state:?}: too early");
            assert!(!dead(state, 3, false), "{state:?}: there is room");
        }
        for state in [BindingState::Established, BindingState::FinFromPod] {
            assert!(!dead(state, 100, true), "{state:?} is open");
        }
    }

    #[test]
    fn full_has_hysteresis() {
        let at = |flows| Swept {
            flows,
            flows_capacity: 1024,
            ..Swept::default()
        };
        assert!(!at(767).flows_full(false));
        assert!(at(768).flows_full(false));
        assert!(at(512).flows_full(true));
        assert!(!at(511).flows_full(true));
    }
}
