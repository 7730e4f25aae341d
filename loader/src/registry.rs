//! How a pod gets into the maps and out of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use abi::{EndpointFlags, IfIndex, Ip4, MAX_PODS, Mac, Pod, Slot, Veth};
use aya::maps::MapError;
use hooks::{Abi, Hook, Maps, Pins};
use nix::net::if_::if_nametoindex;
use rpc::{Endpoint, Refusal};

use crate::nic::Names;
use crate::veths::{PodVeth, host_veths, is_alive};

/// The maps and the rules for writing them.
#[expect(missing_debug_implementations, reason = "aya's arrays have none")]
pub struct Registry {
    /// The maps.
    pub maps: Maps,
    /// What they shall say of pods. Nobody else writes them.
    pub(crate) known: BTreeMap<Ip4, Pod>,
}

/// A map could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The kernel refuses.
    #[error("{doing} in map `{map}`: {source}")]
    Map {
        /// What was attempted.
        doing: &'static str,
        /// The map.
        map: &'static str,
        /// aya's reason.
        source: MapError,
    },
    /// The kernel does not tell.
    #[error(transparent)]
    Read(#[from] hooks::BatchError),
    /// The request cannot be served.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// `dst4` cannot hold the old and the new prefixes for a moment.
    #[error(
        "write the destination classes: {most} prefixes do not fit into table dst4 ({}); the node has too many addresses or routes, or the lists too many prefixes",
        abi::MAX_CLASSES
    )]
    TooManyClasses {
        /// Old and new ones together.
        most: usize,
    },
    /// The kernel does not say how long its tick is.
    #[error("ask for the resolution of CLOCK_MONOTONIC_COARSE: {0}")]
    Clock(nix::errno::Errno),
    /// No random numbers.
    #[error("read random bytes from /dev/urandom: {0}")]
    Random(std::io::Error),
    /// The number of CPUs is unknown, or not what the kernel takes.
    #[error("reset a pod's counters on every CPU: {0}")]
    Cpus(std::io::Error),
}

pub(crate) fn map_error(
    doing: &'static str,
    map: &'static str,
) -> impl FnOnce(MapError) -> RegistryError {
    move |source| RegistryError::Map { doing, map, source }
}

impl Registry {
    /// Over open maps.
    pub fn new(maps: Maps) -> Self {
        Self {
            maps,
            known: BTreeMap::new(),
        }
    }

    /// Puts an endpoint whose programs are attached into the maps and checks by reading back. Idempotent.
    pub fn register(&mut self, pins: &Pins, endpoint: &Endpoint) -> Result<(), RegistryError> {
        check_guarded(pins, endpoint)?;
        let addr = Ip4::from(endpoint.address.addr());
        let ifindex = IfIndex::new(endpoint.host_ifindex);
        let known = self.pod(addr)?;
        if let Some(owner) = known
            && owner.ifindex != ifindex
            && is_alive(owner.ifindex)
        {
            return Err(Refusal {
                what: format!("register {} at {}", endpoint.key, endpoint.address.addr()),
                why: format!("the address belongs to the live interface with index {}", owner.ifindex),
                remedy: "look for its owner with `vnetctl status`, and check that no other IPAM gives out this NIC's addresses".into(),
            }
            .into());
        }
        let (slot, generation) = match known {
            Some(same) if same.ifindex == ifindex => (same.slot, same.generation),
            _ => (self.free_slot()?, self.next_generation()?),
        };
        let flags = flags_of(endpoint);
        let pod = Pod {
            ifindex,
            mac: Mac::new(endpoint.mac.0),
            host_mac: Mac::new(endpoint.host_mac.0),
            slot,
            generation,
            flags,
        };
        let veth = veth_of(addr, pod);
        let written = self.write(ifindex, veth, addr, pod);
        // Even if only the veth could be written.
        self.next_epoch().and(written)?;
        if self.pod(addr)? != Some(pod) || self.veth(ifindex)? != Some(veth) {
            return Err(Refusal {
                what: format!("register {}", endpoint.key),
                why: "the maps do not hold what was written".into(),
                remedy: "restart azure-vnet-loader; another program writes our maps".into(),
            }
            .into());
        }
        Ok(())
    }

    pub(crate) fn write(
        &mut self,
        ifindex: IfIndex,
        veth: Veth,
        addr: Ip4,
        pod: Pod,
    ) -> Result<(), RegistryError> {
        self.maps
            .veths
            .insert(Abi(ifindex), Abi(veth), 0)
            .map_err(map_error("add the veth", "veths"))?;
        // Last: from here on, packets are delivered.
        self.maps
            .pods
            .insert(Abi(addr), Abi(pod), 0)
            .map_err(map_error("add the pod", "pods"))?;
        self.known.insert(addr, pod);
        Ok(())
    }

    /// Takes an endpoint out of the maps, unless the address or the interface has another owner by now.
    pub fn unregister(&mut self, endpoint: &Endpoint) -> Result<(), RegistryError> {
        let addr = Ip4::from(endpoint.address.addr());
        let ifindex = IfIndex::new(endpoint.host_ifindex);
        if self.pod(addr)?.is_some_and(|pod| pod.ifindex == ifindex) {
            self.remove_pod(addr)?;
        }
        if self.veth(ifindex)?.is_some_and(|veth| veth.addr == addr) {
            self.remove_veth(ifindex)?;
        }
        Ok(())
    }

    /// Removes entries whose interface is gone. Returns how many pods were removed.
    pub fn remove_dead(&mut self) -> Result<usize, RegistryError> {
        let (pods, names) = (self.pods()?, Names::open());
        let is_dead = |ifindex: IfIndex| names.lacks(ifindex.get());
        let dead: Vec<Ip4> = pods
            .iter()
            .filter(|(_, pod)| is_dead(pod.ifindex))
            .map(|(addr, _)| *addr)
            .collect();
        for addr in &dead {
            self.remove_pod(*addr)?;
        }
        let veths: Vec<Abi<IfIndex>> = self
            .maps
            .veths
            .keys()
            .collect::<Result<_, _>>()
            .map_err(map_error("list the veths", "veths"))?;
        for ifindex in veths.into_iter().filter(|ifindex| is_dead(ifindex.0)) {
            self.remove_veth(ifindex.0)?;
        }
        Ok(dead.len())
    }

    /// Whether the maps agree with the endpoint; else what is wrong.
    pub fn inspect(&self, endpoint: &Endpoint) -> Result<(), RegistryError> {
        let addr = Ip4::from(endpoint.address.addr());
        let ifindex = IfIndex::new(endpoint.host_ifindex);
        let wrong = |why: String| Refusal {
            what: format!("check {}", endpoint.key),
            why,
            remedy: "delete the pod, so that it is made anew".into(),
        };
        let pod = self
            .pod(addr)?
            .ok_or_else(|| wrong(format!("map `pods` has no entry for {addr}")))?;
        let macs = [pod.mac, pod.host_mac];
        if pod.ifindex != ifindex
            || macs != [endpoint.mac, endpoint.host_mac].map(|mac| Mac::new(mac.0))
        {
            return Err(wrong(format!(
                "map `pods` leads {addr} to interface {} with {} and {}",
                pod.ifindex, pod.mac, pod.host_mac
            ))
            .into());
        }
        let veth = self
            .veth(ifindex)?
            .ok_or_else(|| wrong(format!("map `veths` has no entry for interface {ifindex}")))?;
        if [pod.flags, veth.flags] != [flags_of(endpoint); 2] {
            return Err(wrong(format!(
                "the maps do not treat {addr} as mode `{}` wants",
                endpoint.mode
            ))
            .into());
        }
        if veth.addr != addr {
            return Err(wrong(format!(
                "map `veths` ties interface {ifindex} to {}",
                veth.addr
            ))
            .into());
        }
        if veth != veth_of(addr, pod) {
            return Err(wrong(format!("maps `pods` and `veths` do not agree about {addr}")).into());
        }
        Ok(())
    }

    /// Every pod in the maps.
    pub fn pods(&self) -> Result<Vec<(Ip4, Pod)>, RegistryError> {
        let pods = self
            .maps
            .pods
            .iter()
            .map(|entry| entry.map(|(addr, pod)| (addr.0, pod.0)));
        pods.collect::<Result<_, _>>()
            .map_err(map_error("list the pods", "pods"))
    }

    /// The registered pods' host veths that exist.
    pub fn host_veths(&self) -> Result<Vec<PodVeth>, RegistryError> {
        Ok(host_veths(&self.pods()?))
    }

    /// How many pods the maps hold.
    pub(crate) fn count_pods(&self) -> usize {
        self.maps.pods.keys().count()
    }

    /// How many veths the maps hold.
    pub fn count_veths(&self) -> usize {
        self.maps.veths.keys().count()
    }

    /// What the maps hold for a pod's address.
    pub fn registered(&self, addr: Ipv4Addr) -> Result<Option<Pod>, RegistryError> {
        self.pod(addr.into())
    }

    /// Whether any pod's packets to its neighbours cross the fabric.
    pub fn has_tunnels(&self) -> Result<bool, RegistryError> {
        let tunnelled = |(_, pod): &(Ip4, Pod)| pod.flags.contains(EndpointFlags::TUNNEL);
        Ok(self.pods()?.iter().any(tunnelled))
    }

    fn pod(&self, addr: Ip4) -> Result<Option<Pod>, RegistryError> {
        found(self.maps.pods.get(&Abi(addr), 0)).map_err(map_error("look a pod up", "pods"))
    }

    fn veth(&self, ifindex: IfIndex) -> Result<Option<Veth>, RegistryError> {
        found(self.maps.veths.get(&Abi(ifindex), 0)).map_err(map_error("look a veth up", "veths"))
    }

    fn remove_pod(&mut self, addr: Ip4) -> Result<(), RegistryError> {
        let known = self.pod(addr)?;
        removed(self.maps.pods.remove(&Abi(addr))).map_err(map_error("remove a pod", "pods"))?;
        self.known.remove(&addr);
        self.next_epoch()?;
        known.map_or(Ok(()), |pod| self.retire(pod.slot))
    }

    pub(crate) fn remove_veth(&mut self, ifindex: IfIndex) -> Result<(), RegistryError> {
        removed(self.maps.veths.remove(&Abi(ifindex)))
            .map_err(map_error("remove a veth", "veths"))?;
        self.next_epoch()
    }

    /// The lowest slot that no pod has, its counters back at zero. Slot 0 stays free, so that it can mean "no pod", and keeps
    /// the counts of pods that are gone.
    fn free_slot(&mut self) -> Result<Slot, RegistryError> {
        let taken: BTreeSet<u16> = self.pods()?.iter().map(|(_, pod)| pod.slot.get()).collect();
        let last = u16::try_from(MAX_PODS - 1).unwrap_or(u16::MAX);
        let slot = (1..=last)
            .find(|slot| !taken.contains(slot))
            .map(Slot::new)
            .ok_or_else(|| Refusal {
                what: "register a pod".into(),
                why: format!("all {last} slots are taken"),
                remedy: "delete pods; Azure allows 250 on a node".into(),
            })?;
        // What its veth counted after its last pod was taken out.
        self.retire(slot)?;
        // Or the new pod's share of the ports would be spent by its predecessor's.
        self.maps
            .snat_open
            .set(slot.index(), 0, 0)
            .map_err(map_error("reset the count of bindings", "snat_open"))?;
        Ok(slot)
    }
}

/// What the maps say of a pod's veth.
pub(crate) fn veth_of(addr: Ip4, pod: Pod) -> Veth {
    Veth {
        addr,
        mac: pod.mac,
        host_mac: pod.host_mac,
        slot: pod.slot,
        generation: pod.generation,
        flags: pod.flags,
    }
}

/// What the programs must know of an attachment's mode.
pub(crate) fn flags_of(endpoint: &Endpoint) -> EndpointFlags {
    if endpoint.is_tunnelled() {
        EndpointFlags::TUNNEL
    } else {
        EndpointFlags::NONE
    }
}

/// READY means that both programs run on the host veth.
fn check_guarded(pins: &Pins, endpoint: &Endpoint) -> Result<(), Refusal> {
    let refusal = |why: String| Refusal {
        what: format!("register {}", endpoint.key),
        why,
        remedy: "run the azure-vnet that belongs to this loader".into(),
    };
    match if_nametoindex(endpoint.host_ifname.as_str()) {
        Ok(index) if index == endpoint.host_ifindex => {}
        Ok(index) => {
            return Err(refusal(format!(
                "{} has index {index}, not {}",
                endpoint.host_ifname, endpoint.host_ifindex
            )));
        }
        Err(error) => {
            return Err(refusal(format!(
                "host veth {}: {error}",
                endpoint.host_ifname
            )));
        }
    }
    for hook in Hook::POD {
        if !hooks::runs(pins, hook, &endpoint.host_ifname) {
            return Err(refusal(format!(
                "program {} does not run on {}",
                hook.program, endpoint.host_ifname
            )));
        }
    }
    Ok(())
}

fn found<T>(looked_up: Result<Abi<T>, MapError>) -> Result<Option<T>, MapError> {
    match looked_up {
        Ok(value) => Ok(Some(value.0)),
        Err(MapError::KeyNotFound) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What was not there is removed, too.
pub(crate) fn removed(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error))
            if error.io_error.kind() == std::io::ErrorKind::NotFound =>
        {
            Ok(())
        }
        Err(error) => Err(error),
    }
}
