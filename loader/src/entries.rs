//! Do the maps still say what the loader wrote? Nobody else writes them; who does finds it written again.

use std::collections::BTreeMap;

use abi::pins::map;
use abi::{IfIndex, Ip4, Pod, Veth};
use hooks::{Abi, BatchError, Pins, each_entry};
use tracing::warn;

use crate::daemon::Daemon;
use crate::registry::{Registry, RegistryError, map_error, removed, veth_of};
use crate::repairs::Repair;
use crate::trouble::Topic;

impl Registry {
    /// Takes over what the maps say of pods: it is an earlier loader's.
    pub(crate) fn learn(&mut self) -> Result<(), RegistryError> {
        self.known = self.pods()?.into_iter().collect();
        Ok(())
    }

    /// Puts back what somebody has altered in `pods` and `veths`, and takes out what somebody has added. What is missing is not for
    /// here: before it is put back, its programs must run.
    pub(crate) fn put_back(&mut self, pins: &Pins) -> Result<PutBack, RegistryError> {
        let found = Found::read(pins)?;
        let known = self
            .known
            .iter()
            .map(|(addr, pod)| (pod.ifindex, (*addr, *pod)));
        let owners: BTreeMap<IfIndex, _> = known.collect();
        let (mut odd, mut added, mut strays) = (Vec::new(), Vec::new(), 0);
        for (ifindex, veth) in &found.veths {
            match owners.get(ifindex) {
                Some((addr, pod)) if veth_of(*addr, *pod) == *veth => {}
                Some((addr, _)) => odd.push(*addr),
                None => added.push(*ifindex),
            }
        }
        for (addr, pod) in &found.pods {
            match self.known.get(addr) {
                Some(known) if known == pod => {}
                Some(_) => odd.push(*addr),
                None => {
                    // Its slot may be another pod's, whose counts stay.
                    removed(self.maps.pods.remove(&Abi(*addr)))
                        .map_err(map_error("remove a pod", "pods"))?;
                    strays += 1;
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
        if !odd.is_empty() || strays > 0 {
            self.next_epoch()?;
        }
        Ok(PutBack {
            entries: odd.len() + added.len() + strays,
            pods: found.pods.len() - strays,
            veths: found.veths.len() - added.len(),
        })
    }
}

/// What [`Registry::put_back`] did.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PutBack {
    /// How many were put back or taken out.
    entries: usize,
    /// How many pods there are now …
    pub(crate) pods: usize,
    /// … and how many veths.
    pub(crate) veths: usize,
}

/// Both maps as they are, in a few system calls: this is done every other second.
struct Found {
    pods: Vec<(Ip4, Pod)>,
    veths: Vec<(IfIndex, Veth)>,
}

impl Found {
    fn read(pins: &Pins) -> Result<Self, BatchError> {
        let (mut pods, mut veths) = (Vec::new(), Vec::new());
        each_entry(&pins.map(map::PODS), |addr: &Ip4, pod: &Pod| {
            pods.push((*addr, *pod));
        })?;
        each_entry(&pins.map(map::VETHS), |ifindex: &IfIndex, veth: &Veth| {
            veths.push((*ifindex, *veth));
        })?;
        Ok(Self { pods, veths })
    }
}

impl Daemon {
    /// Writes pods, settings and classes again that somebody has changed in the maps. Returns what was found of pods, if it could
    /// be read.
    pub(crate) fn repair_entries(&self) -> Option<PutBack> {
        let put_back = self.registry.borrow_mut().put_back(&self.pins);
        let found = put_back.as_ref().ok().copied();
        let pods = put_back.map(|put_back| put_back.entries > 0);
        let settings = self.configure();
        let classes = self
            .registry
            .borrow_mut()
            .write_classes(&self.rules.borrow());
        let mut wrong = Vec::new();
        for (of, repaired) in [("pods", pods), ("settings", settings), ("classes", classes)] {
            match repaired {
                Ok(false) => {}
                Ok(true) => {
                    warn!(of, "somebody has written our maps: written again");
                    Repair::Entry.count();
                }
                Err(error) => wrong.push(error.to_string()),
            }
        }
        let wrong = (!wrong.is_empty()).then(|| wrong.join("; "));
        self.judge(Topic::Maps, wrong);
        found
    }
}
