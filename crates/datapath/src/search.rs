//! The search for a flow's SNAT binding, and the making of one.
//!
//! A binding is keyed by what the wire shows, so that the answer finds it with one look-up; the pod's packets find it
//! again through the flow's candidate ports ([`crate::ports`]), nearly always at the first.

use abi::{Binding, BindingKey, BindingState, Config, ConfigFlags, Ip4, Port, Veth};

use crate::expiry::binding_reusable;
use crate::ports::{CANDIDATES, Candidates};
use crate::{Seconds, Tables};

/// A flow of a pod that is translated: whose it is, and where its binding may be.
pub(crate) struct Search<'a> {
    veth: &'a Veth,
    pod_port: Port,
    remote: (Ip4, Port),
    proto: u8,
    candidates: Candidates,
}

/// Candidates whose binding may be taken over. Where none of [`CANDIDATES`] is free, most are of closed connections, so a
/// few looks are enough; sixteen cost the verifier more than the rest of the program.
const TAKE_OVERS: u32 = 4;

/// What a look at a candidate found.
enum Probe {
    /// The flow's own binding.
    Own(BindingKey, Binding),
    /// Nothing.
    Free,
    /// Another flow's binding.
    Taken,
}

impl<'a> Search<'a> {
    /// Of the flow from the pod's `pod_port` to `remote`. `None`: SNAT is off, or the loader has not set it up yet.
    #[inline(always)]
    pub(crate) fn new(
        tables: &impl Tables,
        config: &Config,
        veth: &'a Veth,
        pod_port: Port,
        remote: (Ip4, Port),
        proto: u8,
    ) -> Option<Self> {
        let secret = tables.secret()?;
        let pod = (veth.addr, pod_port);
        Some(Self {
            veth,
            pod_port,
            remote,
            proto,
            candidates: Candidates::new(config, &secret, pod, remote, proto)?,
        })
    }

    /// Looks at the first candidate, where an established flow nearly always finds its binding.
    #[inline(always)]
    pub(crate) fn first(&self, tables: &impl Tables) -> Option<(BindingKey, Binding)> {
        let mut candidates = self.candidates;
        match self.probe(tables, candidates.next_port()) {
            Probe::Own(key, binding) => Some((key, binding)),
            Probe::Free | Probe::Taken => None,
        }
    }

    /// Looks at all candidates: the binding may lie behind one that was in use when it was made. A connection that only
    /// `opens` has one behind a free candidate only if its SYN is sent again and that candidate became free meanwhile;
    /// it is not worth sixteen look-ups for every new connection to find that one.
    #[inline(always)]
    pub(crate) fn all(&self, tables: &impl Tables, opens: bool) -> Option<(BindingKey, Binding)> {
        let mut candidates = self.candidates;
        for _ in 0..CANDIDATES {
            match self.probe(tables, candidates.next_port()) {
                Probe::Own(key, binding) => return Some((key, binding)),
                Probe::Free if opens => return None,
                Probe::Free | Probe::Taken => {}
            }
        }
        None
    }

    /// Makes a binding at a candidate that nobody has, or else over one that is done with. `None`: there is neither, the
    /// table is full, or the pod holds its share of bindings.
    #[inline(always)]
    pub(crate) fn bind(
        &self,
        tables: &impl Tables,
        config: &Config,
        now: Seconds,
    ) -> Option<BindingKey> {
        if !self.may_open(tables, config) {
            return None;
        }
        let binding = Binding::new(
            self.veth.addr,
            self.pod_port,
            self.veth.generation,
            BindingState::New,
            now.0,
        );
        let key = self
            .bind_free(tables, config.primary, binding)
            .or_else(|| self.bind_over(tables, binding, now))?;
        let open = tables.open_bindings(self.veth.slot);
        tables.set_open_bindings(self.veth.slot, open + 1);
        Some(key)
    }

    /// Whether the pod holds less than its share of bindings.
    #[inline(always)]
    pub(crate) fn may_open(&self, tables: &impl Tables, config: &Config) -> bool {
        tables.open_bindings(self.veth.slot) < u32::from(config.nat_quota)
    }

    /// Whether a connection that begins may have the port of the flow's own `binding`, which one before it had: `datapath: stack` sends
    /// it through the kernel, and one that is over has no part of the pod's share any more. A SYN that is sent again begins nothing. A full
    /// table does not matter: the binding itself says whose the packets are. While tables move to those of another build, which counts as
    /// lost flows, nothing of that matters: what goes here may have been copied, and would be found there. So it is after a flow is really lost,
    /// until the loader has seen the full table; of a node whose table counts as full, moving tables are no exception.
    #[inline(always)]
    pub(crate) fn may_reopen(
        &self,
        tables: &impl Tables,
        config: &Config,
        binding: &Binding,
    ) -> bool {
        let state = binding.state();
        state == BindingState::New
            || (tables.lost_flows() != config.flows_lost
                && !config.flags.contains(ConfigFlags::FLOWS_FULL))
            || !config.flags.contains(ConfigFlags::STACK)
                && (!state.is_over() || self.may_open(tables, config))
    }

    /// Ends the flow's own `binding`, because the kernel gets what begins now: its next segments would find the port, and leave by one
    /// that the remote end has not heard of.
    #[inline(always)]
    pub(crate) fn give_up(&self, tables: &impl Tables, key: &BindingKey, binding: &Binding) {
        tables.remove_binding(key);
        if !binding.state().is_over() {
            let open = tables.open_bindings(self.veth.slot);
            tables.set_open_bindings(self.veth.slot, open.saturating_sub(1));
        }
    }

    #[inline(always)]
    fn bind_free(
        &self,
        tables: &impl Tables,
        primary: Ip4,
        binding: Binding,
    ) -> Option<BindingKey> {
        let mut candidates = self.candidates;
        for _ in 0..CANDIDATES {
            let key = self.key(candidates.next_port());
            if tables.binding(&key).is_some() || tables.node_uses(primary, &key) {
                continue;
            }
            // Adding fails when the table is full, and when another CPU was faster: perhaps with another packet of this very
            // flow, which must not get two ports.
            if tables.add_binding(&key, binding)
                || tables.binding(&key).is_some_and(|other| self.owns(&other))
            {
                return Some(key);
            }
        }
        None
    }

    #[inline(always)]
    fn bind_over(
        &self,
        tables: &impl Tables,
        binding: Binding,
        now: Seconds,
    ) -> Option<BindingKey> {
        let mut candidates = self.candidates;
        for _ in 0..TAKE_OVERS {
            let key = self.key(candidates.next_port());
            if let Some(old) = tables.binding(&key)
                && is_reusable(tables, &old, self.proto, now)
            {
                // Another CPU may have taken it over meanwhile, for another flow. One that takes it over after this look, having looked
                // before, has it, too: the kernel has no compare-and-swap of values. Then this SYN's answer is the other pod's, whose
                // RST frees the port, and the SYN that is sent again finds it taken.
                let is_own = tables.take_over_binding(&key, binding)
                    && tables.binding(&key).is_some_and(|now| self.owns(&now));
                return is_own.then_some(key);
            }
        }
        None
    }

    #[inline(always)]
    fn probe(&self, tables: &impl Tables, nat_port: Port) -> Probe {
        let key = self.key(nat_port);
        match tables.binding(&key) {
            None => Probe::Free,
            Some(binding) if self.owns(&binding) => Probe::Own(key, binding),
            Some(_) => Probe::Taken,
        }
    }

    #[inline(always)]
    fn key(&self, nat_port: Port) -> BindingKey {
        BindingKey::new(self.remote, nat_port, self.proto)
    }

    #[inline(always)]
    fn owns(&self, binding: &Binding) -> bool {
        binding.pod == self.veth.addr
            && binding.pod_port == self.pod_port
            && binding.generation == self.veth.generation
    }
}

/// A binding that another flow may take over: it is done with, or its pod is gone.
#[inline(always)]
fn is_reusable(tables: &impl Tables, binding: &Binding, proto: u8, now: Seconds) -> bool {
    binding_reusable(binding, proto, now)
        || tables
            .pod(binding.pod)
            .is_none_or(|pod| pod.generation != binding.generation)
}
