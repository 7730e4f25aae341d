//! Do the maps still say what the loader wrote? Nobody else writes them; who does finds it written again.

use std::collections::BTreeMap;

use abi::IfIndex;
use hooks::Abi;
use tracing::{error, warn};

use crate::daemon::Daemon;
use crate::registry::{Registry, RegistryError, map_error, removed, veth_of};
use crate::repairs::Repair;

impl Registry {
    /// Takes over what the maps say of pods: it is an earlier loader's.
    pub(crate) fn learn(&mut self) -> Result<(), RegistryError> {
        self.known = self.pods()?.into_iter().collect();
        Ok(())
    }

    /// Puts back what somebody has altered in `pods` and `veths`, and takes out what somebody has added. Returns how many entries
    /// that were. What is missing is not for here: before it is put back, its programs must run.
    pub(crate) fn put_back(&mut self) -> Result<usize, RegistryError> {
        let known = self
            .known
            .iter()
            .map(|(addr, pod)| (pod.ifindex, (*addr, *pod)));
        let owners: BTreeMap<IfIndex, _> = known.collect();
        let (mut odd, mut added) = (Vec::new(), Vec::new());
        for entry in &self.maps.veths {
            let (Abi(ifindex), Abi(veth)) = entry.map_err(map_error("list the veths", "veths"))?;
            match owners.get(&ifindex) {
                Some((addr, pod)) if veth_of(*addr, *pod) == veth => {}
                Some((addr, _)) => odd.push(*addr),
                None => added.push(ifindex),
            }
        }
        for (addr, pod) in self.pods()? {
            match self.known.get(&addr) {
                Some(known) if *known == pod => {}
                Some(_) => odd.push(addr),
                None => {
                    // Its slot may be another pod's, whose counts stay.
                    removed(self.maps.pods.remove(&Abi(addr)))
                        .map_err(map_error("remove a pod", "pods"))?;
                    odd.push(addr);
                }
            }
        }
        for ifindex in &added {
            self.remove_veth(*ifindex)?;
        }
        for addr in &odd {
            if let Some(pod) = self.known.get(addr).copied() {
                self.write(pod.ifindex, veth_of(*addr, pod), *addr, pod)?;
            }
        }
        if !odd.is_empty() {
            self.next_epoch()?;
        }
        Ok(odd.len() + added.len())
    }
}

impl Daemon {
    /// Writes pods, settings and classes again that somebody has changed in the maps.
    pub(crate) fn repair_entries(&self) {
        let pods = self
            .registry
            .borrow_mut()
            .put_back()
            .map(|entries| entries > 0);
        let settings = self.configure();
        let classes = self
            .registry
            .borrow_mut()
            .write_classes(&self.rules.borrow());
        for (of, repaired) in [("pods", pods), ("settings", settings), ("classes", classes)] {
            match repaired {
                Ok(false) => {}
                Ok(true) => {
                    warn!(of, "somebody has written our maps: written again");
                    Repair::Entry.count();
                }
                Err(error) => error!(of, %error, "look whether somebody has written our maps"),
            }
        }
    }
}
