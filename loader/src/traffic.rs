//! How much went which way, over all pods that ever were? `stats` counts for the pods that are; slot 0 of it, which no pod
//! has, keeps what those have sent and received that are gone. So the sums only grow, also over a restart of the loader.

use abi::{Counter, Path, Slot};
use aya::maps::PerCpuValues;
use hooks::{Abi, total};

use crate::registry::{Registry, RegistryError, map_error};

/// Keeps the counts of pods that are gone.
const GONE: Slot = Slot::new(0);

impl Registry {
    /// Moves the counts of a slot that no pod has any more to those of the pods that are gone.
    pub(crate) fn retire(&mut self, slot: Slot) -> Result<(), RegistryError> {
        for path in Path::ALL {
            let stats = &mut self.maps.stats;
            let read = map_error("read the counters", "stats");
            let counted = stats.get(&path.index(slot), 0).map_err(read)?;
            if counted.iter().all(|cpu| cpu.0 == Counter::default()) {
                continue;
            }
            let read = map_error("read the counters", "stats");
            let gone = stats.get(&path.index(GONE), 0).map_err(read)?;
            let sum = gone.iter().zip(counted.iter()).map(|(gone, cpu)| {
                Abi(Counter {
                    packets: gone.0.packets + cpu.0.packets,
                    bytes: gone.0.bytes + cpu.0.bytes,
                })
            });
            let zeros = vec![Abi(Counter::default()); counted.len()];
            for (slot, values) in [(GONE, sum.collect()), (slot, zeros)] {
                let values = PerCpuValues::try_from(values).map_err(RegistryError::Cpus)?;
                let write = map_error("write the counters", "stats");
                stats.set(path.index(slot), values, 0).map_err(write)?;
            }
        }
        Ok(())
    }

    /// What went which way, of these pods and of all that are gone.
    pub(crate) fn traffic(&self, pods: &[Slot]) -> Result<Vec<(Path, Counter)>, RegistryError> {
        let sum_of = |path: Path| {
            let mut sum = Counter::default();
            for slot in pods.iter().chain([&GONE]) {
                let read = map_error("read the counters", "stats");
                let counted = total(&self.maps.stats, path.index(*slot)).map_err(read)?;
                sum.packets += counted.packets;
                sum.bytes += counted.bytes;
            }
            Ok((path, sum))
        };
        Path::ALL.into_iter().map(sum_of).collect()
    }
}
