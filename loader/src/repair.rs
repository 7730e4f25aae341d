//! When is what repaired? What the kernel announces, at once and only that; what nobody announces, every [`PULSE`]; and
//! everything every [`PERIOD`], whatever was announced.

use std::net::Ipv4Addr;
use std::rc::Rc;
use std::time::Duration;

use abi::{Ip4, Pod};
use hooks::{Hook, Look};
use sd_notify::NotifyState;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tracing::{debug, error, warn};

use crate::alive::Task;
use crate::daemon::Daemon;
use crate::entries::PutBack;
use crate::fights::Fights;
use crate::lock::{Lock, LockError};
use crate::nic::Names;
use crate::reconcile::When;
use crate::registry::Registry;
use crate::repairs::Repair;
use crate::stack::{self, Known};
use crate::touched::{Events, Touched};
use crate::trouble::Topic;
use crate::veths::{host_veths, is_alive};
use crate::{object, reconcile};

/// Between looks at what is cheap to look at and raises no event: pins, settings, TCX, files.
pub(crate) const PULSE: Duration = Duration::from_secs(2);
/// Between looks at everything.
pub(crate) const PERIOD: Duration = Duration::from_secs(30);
/// A look that was asked for is followed by so much quiet at least …
const REST: Duration = Duration::from_millis(500);
/// … and at most, because a repair is due within five seconds …
const LONGEST_REST: Duration = Duration::from_secs(2);
/// … and by so many times what it took, in between: a storm of events costs a tenth of a CPU.
const IDLE_SHARE: u32 = 10;
/// Before the kernel is listened to again after a failure.
const LISTEN_RETRY: Duration = Duration::from_secs(1);

/// Repairs what does not agree any more, until there is another loader: what one repairs, the other would repair again. Says to
/// the service manager that it does.
pub(crate) async fn keep_true(daemon: Rc<Daemon>) -> LockError {
    let mut events = daemon.alive.at_work(Task::Repairs, listen()).await;
    let mut fights = Fights::default();
    let mut pulse = interval(PULSE);
    let mut period = interval(PERIOD);
    pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first tick is immediate, and start has just done the work.
    period.tick().await;
    loop {
        let mut is_period = false;
        let touched = tokio::select! {
            touched = events.next() => {
                if !daemon.is_concerned(&touched) {
                    continue;
                }
                touched
            }
            _ = period.tick() => {
                is_period = true;
                Touched::everything()
            }
            _ = pulse.tick() => Touched::default(),
        };
        let began = Instant::now();
        if let Err(rival) = daemon.keep_lock() {
            return rival;
        }
        let repairing = daemon.repair(&touched);
        daemon.alive.at_work(Task::Repairs, repairing).await;
        fights.round(Repair::total);
        if is_period {
            daemon.judge(Topic::Fight, fights.period());
        }
        tell_alive();
        let took = began.elapsed();
        debug!(?touched, ?took, "looked");
        sleep((took * IDLE_SHARE).clamp(REST, LONGEST_REST)).await;
    }
}

async fn listen() -> Events {
    loop {
        match Events::listen() {
            Ok(events) => return events,
            Err(error) => warn!(%error, "listen to what is done to pods' links"),
        }
        sleep(LISTEN_RETRY).await;
    }
}

/// For `WatchdogSec=`. Nobody listens unless it is set.
fn tell_alive() {
    if let Err(error) = sd_notify::notify(&[NotifyState::Watchdog]) {
        debug!(%error, "tell the service manager that we are alive");
    }
}

impl Daemon {
    fn is_concerned(&self, touched: &Touched) -> bool {
        let nic = self.node.borrow().nic.nic_ifindex;
        touched.concerns(nic, &self.registry.borrow().known)
    }

    /// Looks at what was touched and at what nobody announces, and repairs it. What is to be asked of each pod's interface is asked
    /// at every second pulse.
    async fn repair(&self, touched: &Touched) {
        let is_wide = *touched != Touched::default() || !self.was_wide.get();
        self.was_wide.set(is_wide);
        let is_pinned = self.restore_pins();
        let known = |(addr, pod): (&Ip4, &Pod)| (*addr, *pod);
        let pods: Vec<Known> = self.registry.borrow().known.iter().map(known).collect();
        if is_wide {
            self.repair_settings(&pods);
        }
        if touched.all || (is_pinned && self.is_nic_touched(touched)) {
            self.follow_node().await;
        }
        if is_pinned {
            // An upgrade that has not ended is tried again.
            let is_whole = self.carry.borrow().is_over();
            let found = is_whole.then(|| self.repair_entries()).flatten();
            let is_troubled = self.troubles.borrow().has(Topic::Programs);
            if touched.all || is_troubled || found.is_none_or(|found| self.has_lost_entries(found))
            {
                self.reconcile(When::Running);
            } else {
                self.repair_programs(touched, &pods);
            }
            if is_wide {
                self.look_for_strangers(touched, &pods);
            }
        }
        self.repair_stack(touched, &pods).await;
        if touched.all || touched.tunnels {
            self.follow_tunnels().await;
        }
        if touched.all || touched.fallback {
            self.nft.doubt();
        }
        self.keep_conflist();
        if touched.all {
            self.find_files();
            self.keep_files();
        }
    }

    /// Without its file the lock would keep no other loader away. An error: there is another.
    fn keep_lock(&self) -> Result<(), LockError> {
        if self.lock.borrow().is_found() {
            self.judge(Topic::Lock, None);
            return Ok(());
        }
        let wrong = match Lock::acquire(&self.run, Duration::ZERO) {
            Ok(lock) => {
                warn!("the loader's lock was gone: locked anew");
                Repair::Lock.count();
                self.lock.replace(lock);
                None
            }
            Err(rival @ LockError::Held { .. }) => return Err(rival),
            Err(error) => Some(error.to_string()),
        };
        self.judge(Topic::Lock, wrong);
        Ok(())
    }

    /// Makes pins again that somebody has removed. `false`: there is nowhere to make them.
    pub(crate) fn restore_pins(&self) -> bool {
        let restored = if object::has_bpffs() {
            let restored = self.held.borrow_mut().restore(&self.pins);
            restored.map_err(|error| {
                format!(
                    "make the pins in {} again: {error}",
                    self.pins.root().display()
                )
            })
        } else {
            Err(object::ObjectError::NoBpffs.to_string())
        };
        let ok = restored.is_ok();
        let wrong = restored.map(|paths| {
            if !paths.is_empty() {
                warn!(?paths, "pins were gone or others': made again");
                Repair::Pin.add(paths.len());
            }
        });
        self.judge(Topic::Pins, wrong.err());
        ok
    }

    /// Holds what is pinned now. To be called after each change of ours to the pins.
    pub(crate) fn hold_pins(&self) {
        if let Err(error) = self.held.borrow_mut().hold(&self.pins) {
            error!(%error, "hold what is pinned");
        }
    }

    /// Whether its links were, or somebody has taken its programs off, which nobody announces.
    fn is_nic_touched(&self, touched: &Touched) -> bool {
        let node = self.node.borrow();
        let ifindex = node.nic.nic_ifindex;
        let look = Look::open(&self.pins, &Hook::NIC);
        let runs = |hook| look.as_ref().is_ok_and(|look| look.runs(hook, ifindex));
        touched.links.contains(&ifindex) || !Hook::NIC.into_iter().all(runs)
    }

    /// Whether somebody takes entries out of our maps. What could not be repaired is not looked at again before something
    /// changes.
    fn has_lost_entries(&self, PutBack { pods, veths, .. }: PutBack) -> bool {
        let records = reconcile::files(&self.run.endpoints(), "json").len();
        (pods != veths || records > pods) && self.counted.get() != (records, pods, veths)
    }

    fn count_entries(&self) -> (usize, usize, usize) {
        let records = reconcile::files(&self.run.endpoints(), "json").len();
        let registry = self.registry.borrow();
        (records, registry.count_pods(), registry.count_veths())
    }

    /// Brings records, maps and programs together.
    pub(crate) fn reconcile(&self, when: When) {
        let errors = self.reconcile_all(when);
        self.judge_programs(&errors);
        // As they are now: the same deed again is seen as another.
        self.counted.set(self.count_entries());
    }

    fn reconcile_all(&self, when: When) -> Vec<reconcile::ReconcileError> {
        let registry = &mut self.registry.borrow_mut();
        let mut errors = reconcile::reconcile(registry, &self.pins, &self.run, &self.boot_id, when);
        // After the endpoints: what a record has and the maps had lost is guarded, too.
        match registry.host_veths() {
            Ok(veths) => {
                let guarded = reconcile::guard_pods(&self.pins, registry, &self.run, &veths);
                self.guarded.set((veths.len() as u64, guarded.veths));
                if guarded.errors.is_empty() {
                    self.end_upgrade(registry);
                }
                errors.extend(guarded.errors);
            }
            Err(error) => errors.push(error.into()),
        }
        errors
    }

    /// No program uses the maps of an earlier build any more.
    fn end_upgrade(&self, registry: &mut Registry) {
        let carry = &mut self.carry.borrow_mut();
        if carry.is_over() {
            return;
        }
        if let Err(error) = carry.finish(registry) {
            error!(%error, "end the upgrade");
        }
        // Some maps have other pins by now, or all.
        self.hold_pins();
    }

    /// The same for the pods that were touched.
    fn repair_programs(&self, touched: &Touched, pods: &[Known]) {
        let ours: Vec<Known> = of_links(touched, pods);
        if ours.is_empty() {
            return;
        }
        let registry = &mut self.registry.borrow_mut();
        let mut errors = Vec::new();
        if !ours.iter().all(|(_, pod)| is_alive(pod.ifindex)) {
            errors.extend(registry.remove_dead().err().map(Into::into));
        }
        let veths = host_veths(&ours);
        let guarded = reconcile::guard_pods(&self.pins, registry, &self.run, &veths);
        errors.extend(guarded.errors);
        self.judge_programs(&errors);
    }

    fn judge_programs(&self, errors: &[reconcile::ReconcileError]) {
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        self.judge(
            Topic::Programs,
            (!errors.is_empty()).then(|| errors.join("; ")),
        );
    }

    async fn repair_stack(&self, touched: &Touched, pods: &[Known]) {
        let troubled = self.troubles.borrow().links(Topic::Stack);
        let is_due = |(addr, pod): &&Known| {
            let ifindex = pod.ifindex.get();
            touched.all
                || touched.links.contains(&ifindex)
                || touched.neighbours.contains(&ifindex)
                || touched.routes.contains(&(*addr).into())
                || troubled.contains(&ifindex)
        };
        let due: Vec<Known> = pods.iter().filter(is_due).copied().collect();
        let mending = stack::mend(&due).await;
        for (pod, what) in mending.mended {
            warn!(%pod, ?what, "a pod's way through the kernel was interrupted: mended");
            Repair::Way.count();
        }
        self.judge_links(Topic::Stack, &mending.wrong);
    }

    /// Remembers what an earlier loader has left.
    pub(crate) fn find_files(&self) {
        let (registry, names) = (self.registry.borrow(), Names::open());
        let lives = |owner| lives(&registry, &names, owner);
        self.keepsakes.borrow_mut().find(&self.run, lives);
    }

    /// Writes records and leases again that somebody has removed or damaged. To be called when one of them has changed.
    pub(crate) fn keep_files(&self) {
        let (registry, names) = (self.registry.borrow(), Names::open());
        self.keepsakes
            .borrow_mut()
            .keep(|owner| lives(&registry, &names, owner));
    }
}

fn lives(registry: &Registry, names: &Names, (addr, ifindex): (Ipv4Addr, u32)) -> bool {
    let pod = registry.registered(addr).ok().flatten();
    pod.is_some_and(|pod| pod.ifindex.get() == ifindex && names.of(ifindex).is_some())
}

/// The pods whose links were touched.
fn of_links(touched: &Touched, pods: &[Known]) -> Vec<Known> {
    let is_touched = |(_, pod): &&Known| touched.links.contains(&pod.ifindex.get());
    pods.iter().filter(is_touched).copied().collect()
}
