//! When table entries die: a sweep over `snat` and `flows` with the programs' own rules of expiry.

use abi::{Binding, BindingKey, Flow, FlowKey, Ip4, MAX_FLOWS};
use aya::maps::MapError;
use datapath::{Seconds, binding_expired, flow_expired, is_closed};
use hooks::{Abi, Maps, Pins};
use nix::time::{ClockId, clock_gettime};
use tracing::debug;

/// What a sweep found and did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Bindings that stay.
    pub bindings: u32,
    /// Bindings that were removed.
    pub bindings_removed: u32,
    /// Flows that stay.
    pub flows: u32,
    /// Flows that were removed.
    pub flows_removed: u32,
}

/// `flows` counts as full from here on …
const HIGH_WATER: u32 = MAX_FLOWS / 4 * 3;
/// … until it has fallen to here.
const LOW_WATER: u32 = MAX_FLOWS / 2;

impl Swept {
    /// Whether the table could fill up before the next sweep comes at its usual time.
    pub fn is_filling(&self) -> bool {
        self.flows >= MAX_FLOWS / 4
    }

    /// Whether misses in `flows` must mean "stack", given whether they do now.
    pub fn flows_full(&self, now: bool) -> bool {
        self.flows >= if now { LOW_WATER } else { HIGH_WATER }
    }
}

/// Sweeps both tables once; closed flows go at once while the table is `full`. Blocks: about two microseconds an entry.
pub fn sweep(pins: &Pins, full: bool) -> anyhow::Result<Swept> {
    let mut maps = Maps::from_pins(pins)?;
    let now = now();
    let mut swept = Swept::default();
    sweep_bindings(&mut maps, now, &mut swept)?;
    sweep_flows(&mut maps, now, full, &mut swept)?;
    debug!(?swept, "swept");
    Ok(swept)
}

/// `CLOCK_MONOTONIC_COARSE`, the programs' clock.
fn now() -> Seconds {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).map_or(0, |time| time.tv_sec());
    Seconds(u32::try_from(now).unwrap_or(u32::MAX))
}

fn sweep_bindings(maps: &mut Maps, now: Seconds, swept: &mut Swept) -> anyhow::Result<()> {
    let mut dead: Vec<(Abi<BindingKey>, Binding)> = Vec::new();
    for entry in &maps.snat {
        let (key, Abi(binding)) = entry?;
        if binding_expired(&binding, key.0.proto, now) || !has_pod(maps, &binding)? {
            dead.push((key, binding));
        } else {
            swept.bindings += 1;
        }
    }
    for (key, binding) in dead {
        // Looked up again: a new connection may have taken it over meanwhile.
        if matches!(maps.snat.get(&key, 0), Ok(Abi(current)) if current == binding) {
            ignore_missing(maps.snat.remove(&key))?;
            swept.bindings_removed += 1;
        }
    }
    Ok(())
}

/// Whether the pod that made the binding still has the address.
fn has_pod(maps: &Maps, binding: &Binding) -> Result<bool, MapError> {
    let addr: Ip4 = binding.pod;
    match maps.pods.get(&Abi(addr), 0) {
        Ok(Abi(pod)) => Ok(pod.generation == binding.generation),
        Err(MapError::KeyNotFound) => Ok(false),
        Err(error) => Err(error),
    }
}

fn sweep_flows(maps: &mut Maps, now: Seconds, full: bool, swept: &mut Swept) -> anyhow::Result<()> {
    let mut dead: Vec<(Abi<FlowKey>, Flow)> = Vec::new();
    for entry in &maps.flows {
        let (key, Abi(flow)) = entry?;
        if flow_expired(&flow, key.0.proto, now) || (full && is_closed(&flow)) {
            dead.push((key, flow));
        } else {
            swept.flows += 1;
        }
    }
    for (key, flow) in dead {
        if matches!(maps.flows.get(&key, 0), Ok(Abi(current)) if current == flow) {
            ignore_missing(maps.flows.remove(&key))?;
            swept.flows_removed += 1;
        }
    }
    Ok(())
}

fn ignore_missing(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error))
            if error.io_error.kind() == std::io::ErrorKind::NotFound =>
        {
            Ok(())
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_has_hysteresis() {
        let at = |flows| Swept {
            flows,
            ..Swept::default()
        };
        assert!(!at(HIGH_WATER - 1).flows_full(false));
        assert!(at(HIGH_WATER).flows_full(false));
        assert!(at(LOW_WATER).flows_full(true));
        assert!(!at(LOW_WATER - 1).flows_full(true));
    }
}
