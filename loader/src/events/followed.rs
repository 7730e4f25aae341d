//! The pod that somebody looks at, also when it is made anew.

use std::io::{self, Write as _};

use abi::{Ip4, Slot};
use anyhow::{Context as _, Result};
use hooks::{Abi, Maps};
use rpc::Endpoint;

use super::describe::Owners;

/// A pod by the name that was asked for.
#[derive(Clone, Debug)]
pub(super) struct Followed {
    wanted: String,
    /// Its address, and where the programs count its packets; `None` while it is gone.
    at: Option<(Ip4, Slot)>,
}

impl Followed {
    pub(super) fn new(wanted: &str, maps: &Maps, endpoint: &Endpoint) -> Result<Self> {
        let addr = Ip4::from(endpoint.address.addr());
        let Abi(pod) = maps.pods.get(&Abi(addr), 0).with_context(|| {
            format!(
                "{addr} is not in map pods; is azure-vnet-loader running, so that it puts it back?"
            )
        })?;
        Ok(Self {
            wanted: wanted.to_owned(),
            at: Some((addr, pod.slot)),
        })
    }

    pub(super) fn slot(&self) -> Option<Slot> {
        self.at.map(|(_, slot)| slot)
    }

    /// Whether it is the pod with this address.
    pub(super) fn is_at(&self, address: Option<Ip4>) -> bool {
        address.is_some() && address == self.at.map(|(addr, _)| addr)
    }

    /// Looks whether it has gone or come back, which it says. `true`: it has.
    pub(super) fn look(&mut self, owners: &Owners) -> bool {
        // While one ends and the next begins, both may be called so.
        let stays = self.at.filter(|at| owners.is(*at));
        let now = stays.or_else(|| owners.find(&self.wanted));
        if now == self.at {
            return false;
        }
        self.at = now;
        let wanted = &self.wanted;
        let said = match now {
            None => format!("{wanted} is gone; waiting for it to be made anew"),
            Some((addr, _)) => format!("{wanted} is at {addr} now"),
        };
        // When nobody reads that, nobody is to be told.
        let _nobody_reads = writeln!(io::stderr().lock(), "vnetctl: {said}");
        true
    }
}
