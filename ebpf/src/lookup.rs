//! The maps as [`Tables`].

use abi::{
    Binding, BindingKey, BindingState, CachedFlow, CachedPeer, CachedVeth, Class, ClassEntry,
    Config, Counter, DropReason, Flow, FlowKey, Fragment, FragmentKey, Happening, IfIndex, Ip4,
    Path, Pod, Secret, Slot, Veth, Watch,
};
use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};
use aya_ebpf::btf_maps::PerCpuArray;
use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::helpers::bpf_jiffies64;
use datapath::{Peer, Seconds, Tables};

use crate::event::{Context, tell};
use crate::maps::{
    CONFIG, DENY, DROPS, DST4, FLOW_CACHE, FLOWS, FLOWS_LOST, FRAGMENTS, PEER_CACHE, PODS, SECRET,
    SNAT, SNAT_OPEN, STATS, VETH_CACHE, VETHS,
};
use crate::socket;

/// All maps, and the sockets of the node that the running program's frame is in.
pub(crate) struct Maps<C> {
    pub(crate) context: C,
}

/// Without them every look-up goes to the tables.
const CACHES: bool = !cfg!(feature = "no-caches");

/// The time; zero until the loader has filled the settings.
#[inline(always)]
pub(crate) fn now() -> Seconds {
    // SAFETY: takes nothing and returns a number.
    let jiffies = unsafe { bpf_jiffies64() };
    Seconds(
        CONFIG
            .get(0)
            .map_or(0, |config| config.ticks.seconds(jiffies)),
    )
}

#[inline(always)]
fn epoch() -> u32 {
    CONFIG.get(0).map_or(0, |config| config.epoch)
}

#[cfg(feature = "fifty-look-ups")]
impl<C> Maps<C> {
    /// What the benchmark must tell from a program without it.
    #[inline(always)]
    pub(crate) fn look_up_in_vain(&self) {
        for number in 0..50 {
            // SAFETY: what is found is not looked at.
            let _in_vain = unsafe { PODS.get(Ip4::new([0, 0, 0, number])) };
        }
    }
}

impl<C: Context> Tables for Maps<C> {
    type FlowEntry = *mut Flow;

    #[inline(always)]
    fn config(&self) -> Option<&Config> {
        CONFIG.get(0).filter(|config| config.nic.get() != 0)
    }

    #[inline(always)]
    fn secret(&self) -> Option<Secret> {
        SECRET.get(0).copied()
    }

    #[inline(always)]
    fn veth(&self, ifindex: IfIndex) -> Option<Veth> {
        let epoch = epoch();
        let cached = VETH_CACHE.get_ptr_mut(CachedVeth::index(ifindex));
        if let Some(cached) = cached {
            // SAFETY: the value belongs to this CPU, and a classifier is not interrupted by another one.
            let known = unsafe { &*cached };
            if CACHES && known.ifindex == ifindex && known.epoch == epoch {
                return Some(known.veth);
            }
        }
        // SAFETY: as in `pod`.
        let veth = unsafe { VETHS.get(ifindex) }.copied()?;
        if let Some(cached) = cached {
            // SAFETY: as above.
            unsafe {
                *cached = CachedVeth {
                    ifindex,
                    epoch,
                    veth,
                };
            };
        }
        Some(veth)
    }

    #[inline(always)]
    fn pod(&self, addr: Ip4) -> Option<Pod> {
        // SAFETY: the memory belongs to the map for as long as the program lives, and the value is copied out at once. An
        // entry that is removed meanwhile may be recycled: the copy is then another pod's, or torn; every bit pattern is
        // valid, and a wrong copy misjudges packets of an address that is just being released, in a cache until the epoch ends.
        unsafe { PODS.get(addr) }.copied()
    }

    #[inline(always)]
    fn peer(&self, addr: Ip4) -> Peer {
        let epoch = epoch();
        let cached = PEER_CACHE.get_ptr_mut(CachedPeer::index(addr));
        if let Some(cached) = cached {
            // SAFETY: as in `veth`.
            let known = unsafe { &*cached };
            if CACHES && known.addr == addr && known.epoch == epoch {
                return if known.pod.ifindex == IfIndex::NONE {
                    Peer::Other(known.class.class())
                } else {
                    Peer::Pod(known.pod)
                };
            }
        }
        let pod = self.pod(addr);
        let class = match pod {
            Some(_) => None,
            None => DST4.get(&Key::new(32, addr)).copied(),
        };
        let class = class.unwrap_or(ClassEntry::new(Class::Stack));
        if let Some(cached) = cached {
            let known = CachedPeer {
                addr,
                epoch,
                class,
                pod: pod.unwrap_or(Pod::NONE),
            };
            // SAFETY: as in `veth`.
            unsafe { *cached = known };
        }
        pod.map_or(Peer::Other(class.class()), Peer::Pod)
    }

    #[inline(always)]
    fn denied(&self, addr: Ip4) -> bool {
        DENY.get(&Key::new(32, addr)).is_some()
    }

    #[inline(always)]
    fn flow(&self, key: &FlowKey) -> Option<(Flow, *mut Flow)> {
        let entry = FLOWS.get_ptr_mut(key)?;
        // SAFETY: as in `pod`.
        Some((unsafe { *entry }, entry))
    }

    #[inline(always)]
    fn recent_flow(&self, key: &FlowKey) -> Option<Flow> {
        let cached = FLOW_CACHE.get_ptr_mut(CachedFlow::index(key))?;
        // SAFETY: as in `veth`.
        let known = unsafe { &*cached };
        (CACHES && known.key == *key && known.epoch == epoch()).then_some(known.flow)
    }

    #[inline(always)]
    fn keep_recent_flow(&self, key: &FlowKey, flow: Flow) {
        if let Some(cached) = FLOW_CACHE.get_ptr_mut(CachedFlow::index(key)) {
            let known = CachedFlow {
                key: *key,
                epoch: epoch(),
                flow,
            };
            // SAFETY: as in `veth`.
            unsafe { *cached = known };
        }
    }

    #[inline(always)]
    fn add_flow(&self, key: &FlowKey, flow: Flow) -> bool {
        FLOWS.insert(key, flow, u64::from(BPF_ANY)).is_ok()
    }

    #[inline(always)]
    fn see_flow(&self, entry: *mut Flow, flow: Flow) {
        // SAFETY: the pointer is what a look-up by this very program gave, and the memory belongs to the map for as long as
        // the program lives. The entry may be recycled for another key at the same time, but only if the loader removes
        // this flow, for want of packets, while one of its packets is here; then the other flow takes a wrong side until it
        // expires. Replacing the entry instead would allocate and free one whenever a connection opens or closes.
        unsafe { *entry = flow };
    }

    #[inline(always)]
    fn lost_flows(&self) -> u32 {
        FLOWS_LOST.get(0).copied().unwrap_or(0)
    }

    #[inline(always)]
    fn lose_flow(&self) {
        let lost = self.lost_flows().wrapping_add(1);
        let _always_there = FLOWS_LOST.set(0, lost, 0);
    }

    #[inline(always)]
    fn binding(&self, key: &BindingKey) -> Option<Binding> {
        // SAFETY: as in `pod`.
        unsafe { SNAT.get(key) }.copied()
    }

    #[inline(always)]
    fn add_binding(&self, key: &BindingKey, binding: Binding) -> bool {
        SNAT.insert(key, binding, u64::from(BPF_NOEXIST)).is_ok()
    }

    #[inline(always)]
    fn take_over_binding(&self, key: &BindingKey, binding: Binding) -> bool {
        SNAT.insert(key, binding, u64::from(BPF_ANY)).is_ok()
    }

    #[inline(always)]
    fn remove_binding(&self, key: &BindingKey) {
        let _gone_already = SNAT.remove(key);
    }

    #[inline(always)]
    fn see_binding(&self, key: &BindingKey, state: BindingState, now: Seconds) {
        if let Some(entry) = SNAT.get_ptr_mut(key) {
            // SAFETY: the memory belongs to the map for as long as the program lives. The entry may be recycled for
            // another key at the same time; then state and time are written there, which costs that flow one wrong
            // time-out until its next packet.
            unsafe { (*entry).see(state, now.0) };
        }
    }

    #[inline(always)]
    fn node_uses(&self, primary: Ip4, key: &BindingKey) -> bool {
        socket::exists(self.context.skb(), primary, key)
    }

    #[inline(always)]
    fn open_bindings(&self, slot: Slot) -> u32 {
        SNAT_OPEN.get(slot.index()).copied().unwrap_or(0)
    }

    #[inline(always)]
    fn set_open_bindings(&self, slot: Slot, open: u32) {
        let _below_the_maximum = SNAT_OPEN.set(slot.index(), open, 0);
    }

    #[inline(always)]
    fn fragment(&self, key: &FragmentKey) -> Option<Fragment> {
        // SAFETY: as in `pod`.
        unsafe { FRAGMENTS.get(key) }.copied()
    }

    #[inline(always)]
    fn put_fragment(&self, key: &FragmentKey, fragment: Option<Fragment>) {
        // Neither can fail for long: the oldest datagram makes room, and what is not there needs no removing.
        let _best_effort = match fragment {
            Some(fragment) => FRAGMENTS.insert(key, fragment, u64::from(BPF_ANY)),
            None => FRAGMENTS.remove(key),
        };
    }

    #[inline(always)]
    fn count(&self, slot: Slot, path: Path, bytes: u32) {
        add(&STATS, path.index(slot), bytes);
        // What is dropped has a reason, which is told below.
        if path != Path::Dropped {
            let what = Happening::Took(slot, path);
            tell(self.context, Watch::Pod(slot), bytes, what);
        }
    }

    #[inline(always)]
    fn count_drop(&self, reason: DropReason, bytes: u32) {
        add(&DROPS, reason.index(), bytes);
        tell(
            self.context,
            Watch::Drops,
            bytes,
            Happening::Dropped(reason),
        );
    }
}

#[inline(always)]
fn add<const N: usize>(counters: &PerCpuArray<Counter, N>, index: u32, bytes: u32) {
    if let Some(counter) = counters.get_ptr_mut(index) {
        // SAFETY: the value belongs to this CPU, and a classifier is not interrupted by another one.
        unsafe {
            (*counter).packets += 1;
            (*counter).bytes += u64::from(bytes);
        }
    }
}
