//! What a scrape gathers.

use abi::{Counter, DropReason, MAX_DENIED, Path, pins};
use hooks::{Hook, total};
use rpc::{DestinationView, PoolView, TableView};

use super::Addresses;
use super::process::Process;
use crate::config::Datapath;
use crate::daemon::Daemon;
use crate::foreign::Owner;
use crate::repairs::Repair;
use crate::trouble::Topic;
use crate::{ready, status};

/// Everything that is not counted as it happens.
#[derive(Debug)]
pub(super) struct State {
    pub(super) uptime_s: f64,
    pub(super) is_ready: bool,
    pub(super) rejected: usize,
    pub(super) warnings: usize,
    pub(super) pods: usize,
    pub(super) traffic: Vec<(Path, Counter)>,
    pub(super) drops: Vec<(DropReason, Counter)>,
    pub(super) tables: Vec<TableView>,
    pub(super) flows_full: bool,
    pub(super) flows_lost: u32,
    pub(super) snat_ports: u16,
    pub(super) open: u32,
    pub(super) bindings: u32,
    pub(super) destinations: Vec<DestinationView>,
    pub(super) addresses: Addresses,
    pub(super) leaked: usize,
    pub(super) pool: Option<PoolView>,
    /// Programs and on how many interfaces they run.
    pub(super) attached: Vec<(&'static str, u64)>,
    /// Programs and on how many interfaces they do not run that they should run on.
    pub(super) missing: Vec<(&'static str, u64)>,
    pub(super) repairs: Vec<(Repair, u64)>,
    pub(super) troubles: Vec<(Topic, bool)>,
    /// How many places of each.
    pub(super) foreign: Vec<(Owner, usize)>,
    pub(super) is_stack: bool,
    pub(super) process: Process,
}

impl State {
    pub(super) fn gather(daemon: &Daemon) -> anyhow::Result<Self> {
        let registry = daemon.registry.borrow();
        let swept = daemon.swept.borrow();
        let configuration = daemon.configuration.borrow();
        let slots: Vec<_> = registry.pods()?.iter().map(|(_, pod)| pod.slot).collect();
        let drops = DropReason::ALL
            .into_iter()
            .map(|reason| Ok((reason, total(&registry.maps.drops, reason.index())?)));
        let pools = daemon.pools.borrow();
        let pools = pools.as_ref().ok();
        let mut tables = status::tables(&registry.maps, &swept);
        tables.push(TableView {
            name: pins::map::DENY.to_owned(),
            used: u32::try_from(configuration.config.deny_cidrs.len()).unwrap_or(u32::MAX),
            capacity: MAX_DENIED,
        });
        Ok(Self {
            uptime_s: daemon.started.elapsed().as_secs_f64(),
            is_ready: daemon.readiness().is_ok(),
            rejected: configuration.rejected().len(),
            warnings: daemon.warnings().len(),
            pods: slots.len(),
            traffic: registry.traffic(&slots)?,
            drops: drops.collect::<anyhow::Result<_>>()?,
            tables,
            flows_full: daemon.flows_full.get(),
            flows_lost: registry.flows_lost()?,
            snat_ports: configuration.ports.count(),
            open: swept.census.open(),
            bindings: swept.bindings,
            destinations: status::destinations(&swept),
            addresses: Addresses::count(&daemon.run, pools),
            leaked: daemon.reclaim.borrow().left(),
            pool: pools.map(status::pool_view),
            attached: attached(daemon),
            missing: missing(daemon),
            repairs: Repair::ALL
                .into_iter()
                .map(|repair| (repair, repair.total()))
                .collect(),
            troubles: Topic::ALL
                .into_iter()
                .map(|topic| (topic, daemon.troubles.borrow().has(topic)))
                .collect(),
            foreign: Owner::ALL
                .into_iter()
                .map(|owner| (owner, places(daemon, owner)))
                .collect(),
            is_stack: configuration.config.datapath == Datapath::Stack,
            process: Process::read(),
        })
    }
}

fn places(daemon: &Daemon, owner: Owner) -> usize {
    let found = daemon.foreign.borrow();
    found.iter().filter(|filter| filter.owner == owner).count()
}

/// The NIC's programs as they run now, the pods' as the last reconciliation found them: to look at 250 veths takes too long.
fn attached(daemon: &Daemon) -> Vec<(&'static str, u64)> {
    let missing = ready::missing_on_nic(daemon);
    let on_nic = Hook::NIC
        .into_iter()
        .map(|hook| (hook.program, u64::from(!missing.contains(&hook.program))));
    let on_pods = Hook::POD
        .into_iter()
        .zip(daemon.guarded.get().1)
        .map(|(hook, veths)| (hook.program, veths));
    let guards = daemon.guard.borrow().mode == "native";
    let guard = (pins::program::XDP_GUARD, u64::from(guards));
    on_nic.chain(on_pods).chain([guard]).collect()
}

/// Of the same look as [`attached`]: between two looks pods come, and have their programs before they are pods.
fn missing(daemon: &Daemon) -> Vec<(&'static str, u64)> {
    let missing = ready::missing_on_nic(daemon);
    let on_nic = Hook::NIC
        .into_iter()
        .map(|hook| (hook.program, u64::from(missing.contains(&hook.program))));
    let (veths, guarded) = daemon.guarded.get();
    let on_pods = Hook::POD
        .into_iter()
        .zip(guarded)
        .map(|(hook, on)| (hook.program, veths.saturating_sub(on)));
    on_nic.chain(on_pods).collect()
}
