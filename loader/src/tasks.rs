//! What the daemon does for ever after: pools, garbage, changes of configuration and node.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use rpc::LOADER_CONFIG;
use tokio::signal::unix::Signal;
use tokio::task::spawn_blocking;
use tokio::time::MissedTickBehavior;
use tracing::{debug, error, warn};

use crate::alive::Task;
use crate::daemon::Daemon;
use crate::files::Files;
use crate::gc::{Pressure, Swept};
use crate::masq::MASQ_DIRECTORY;
use crate::netlink::Changes;
use crate::repair::PERIOD;
use crate::{conntrack, gc};

/// Pools are read again this often once they are there.
const POOL_PERIOD: Duration = Duration::from_secs(30);
/// The first retry after a failure; doubled up to [`POOL_PERIOD`].
const POOL_RETRY: Duration = Duration::from_secs(1);
/// Between sweeps over the tables …
const GC_PERIOD: Duration = Duration::from_secs(10);
/// … up to this when they are so large that a sweep would take more than a tenth of a percent of a processor's time, and hardly
/// anything in them is closed; never more of it than is free of the fuller one: 8,000 connections a second, each with two flows, fill an
/// empty table of the usual size in this time, and half a one in half of it …
const GC_PATIENCE: Duration = Duration::from_secs(16);
const GC_SHARE: u32 = 1000;
/// … and while one of them is filling up, or counts as full.
const GC_HASTE: Duration = Duration::from_secs(1);
/// Between looks for filters of others, so many times what one took …
const LOOK_SHARE: u32 = 100;
/// … and this at most.
const LOOK_PATIENCE: Duration = Duration::from_mins(5);
/// Before netlink is listened to again after a failure.
const LISTEN_RETRY: Duration = Duration::from_secs(1);

/// Keeps the address pools fresh.
pub(crate) async fn refresh_pools(daemon: Rc<Daemon>) {
    let mut retry = POOL_RETRY;
    loop {
        let wait = match daemon.alive.at_work(Task::Pools, daemon.read_pools()).await {
            Ok(_) => {
                retry = POOL_RETRY;
                POOL_PERIOD
            }
            Err(why) => {
                warn!(why, retry_s = retry.as_secs(), "no fresh address pools");
                let wait = retry;
                retry = (retry * 2).min(POOL_PERIOD);
                wait
            }
        };
        tokio::time::sleep(wait).await;
    }
}

/// Removes dead bindings and flows.
pub(crate) async fn collect_garbage(daemon: Rc<Daemon>) {
    let mut ended = Instant::now();
    loop {
        let before = daemon.swept.borrow().left();
        daemon.alive.at_work(Task::Tables, sweep(&daemon)).await;
        let since = ended.elapsed();
        let wait = pause(
            &daemon.swept.borrow(),
            daemon.flows_full.get(),
            before,
            since,
        );
        ended = Instant::now();
        tokio::time::sleep(wait).await;
    }
}

/// Large tables that nothing presses are swept less often: an idle node has better things to do. `since` the sweep before, which left
/// `before` in `flows` and `snat`: should as much come as has come by now, the next sweep comes while there is still room. `full`: while
/// `flows` counts as full, every flow that is not in it takes the stack.
fn pause(swept: &Swept, full: bool, before: Option<(u32, u32)>, since: Duration) -> Duration {
    // Below half of it, only the kernel's connections are missing, which take longer to ask for than a sweep takes.
    if full && swept.flows_full(true) {
        return GC_HASTE;
    }
    let wait = if swept.is_busy() {
        GC_PERIOD
    } else {
        (swept.cpu * GC_SHARE).clamp(GC_PERIOD, GC_PATIENCE)
    };
    // What is quiet may fill in a burst, of which nothing has come yet …
    let unseen = swept.free_of(GC_PATIENCE);
    // … and what comes may come faster yet.
    let seen = swept
        .until_filling(before, since)
        .map_or(wait, |time| time / 2);
    wait.min(unseen).min(seen).max(GC_HASTE)
}

async fn sweep(daemon: &Daemon) {
    // Else the tables have not their places yet, and a miss must go on to mean "stack".
    let is_whole = daemon.carry.borrow().is_over();
    if is_whole && let Err(error) = try_sweep(daemon).await {
        error!(%error, "sweep the tables");
        daemon.metrics.sweep_failed();
    }
}

async fn try_sweep(daemon: &Daemon) -> anyhow::Result<()> {
    let (was_full, lost) = {
        let registry = daemon.registry.borrow();
        (registry.flows_full()?, registry.flows_lost()?)
    };
    let pins = daemon.pins.clone();
    let pressure = Pressure {
        flows: was_full,
        bindings: daemon.swept.borrow().bindings_full(),
    };
    let swept = spawn_blocking(move || gc::sweep(&pins, pressure)).await??;
    daemon.metrics.swept(&swept);
    // A repair may have found meanwhile that the kernel's connections do not fit.
    let was_full = was_full || daemon.registry.borrow().flows_full()?;
    let filled = swept.flows_full(was_full);
    // What found no room is not in the table yet.
    let missing = was_full
        && !filled
        && !conntrack::take_over(&mut daemon.registry.borrow_mut(), &daemon.run);
    let full = filled || missing;
    if full != was_full || full != daemon.flows_full.get() {
        let (flows, capacity) = (swept.flows, swept.flows_capacity);
        warn!(full, flows, capacity, lost, "the flow table's fill");
    }
    daemon.swept.replace(swept);
    daemon.registry.borrow_mut().set_flows_full(full, lost)?;
    daemon.flows_full.set(full);
    Ok(())
}

/// Frees addresses that nobody gives back. On its own: a plug-in may take its time, or wait for us.
pub(crate) async fn free_leaks(daemon: Rc<Daemon>) {
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first tick is immediate, and start has just looked.
    ticks.tick().await;
    loop {
        ticks.tick().await;
        daemon.reclaim_leaks().await;
    }
}

/// Looks for filters of others. On its own, and more seldom where their tables are large.
pub(crate) async fn look_for_filters(daemon: Rc<Daemon>) {
    // Start has just looked.
    let mut wait = PERIOD;
    loop {
        tokio::time::sleep(wait).await;
        let began = Instant::now();
        let looking = daemon.look_for_filters();
        daemon.alive.at_work(Task::Filters, looking).await;
        wait = (began.elapsed() * LOOK_SHARE).clamp(PERIOD, LOOK_PATIENCE);
    }
}

/// Takes changed configuration files over, and all of them on SIGHUP.
pub(crate) async fn follow_configuration(daemon: Rc<Daemon>, mut hangup: Signal) {
    let loader = Path::new(LOADER_CONFIG).parent().into_iter();
    let directories: Vec<&Path> = loader.chain([Path::new(MASQ_DIRECTORY)]).collect();
    let files = Files::watch(&directories);
    // What changed between the start and the watch.
    daemon.reload(false);
    loop {
        let asked = tokio::select! {
            () = files.changed() => false,
            _ = hangup.recv() => true,
        };
        daemon.reload(asked);
    }
}

/// Looks after the files of attachments, and keeps those up to date that Azure's tools read.
pub(crate) async fn follow_files(daemon: Rc<Daemon>) {
    let directories = [daemon.run.endpoints(), daemon.run.leases()];
    let changes = Files::watch(&directories.each_ref().map(PathBuf::as_path));
    loop {
        daemon.keep_files();
        let telling = daemon.tell_azures_tools();
        daemon.alive.at_work(Task::Files, telling).await;
        changes.changed().await;
    }
}

/// Follows the node's links, addresses and routes as the kernel announces them.
pub(crate) async fn follow_node(daemon: Rc<Daemon>) {
    let follow = || daemon.alive.at_work(Task::Node, daemon.follow_node());
    loop {
        match Changes::listen() {
            Ok(mut changes) => {
                // What changed before.
                follow().await;
                while changes.next().await {
                    debug!("links, addresses or routes of the node changed");
                    follow().await;
                }
                warn!("netlink hung up: listening again");
            }
            Err(error) => warn!(%error, "listen to the node's changes"),
        }
        tokio::time::sleep(LISTEN_RETRY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_tables_are_swept_less_often_unless_they_fill_up() {
        let swept = |cpu_ms: u64, bindings: u32| Swept {
            cpu: Duration::from_millis(cpu_ms),
            bindings,
            bindings_capacity: 262_144,
            ..Swept::default()
        };
        let busy = Swept {
            bindings_closed: 20_000,
            ..swept(500, 150_000)
        };
        let pause = |swept: &Swept| pause(swept, false, swept.left(), GC_PERIOD);
        let busy_wait = pause(&busy);
        assert!(busy_wait < GC_PERIOD, "{busy_wait:?}: so little is free");
        assert_eq!(pause(&swept(1, 100)), GC_PERIOD);
        assert_eq!(pause(&swept(12, 40_000)), Duration::from_secs(12));
        assert_eq!(pause(&swept(500, 0)), GC_PATIENCE);
        assert_eq!(pause(&swept(80, 200_000)), GC_HASTE);
    }

    #[test]
    fn a_burst_after_a_quiet_time_does_not_fill_a_table_between_two_sweeps() {
        const CAPACITY: u32 = 262_144;
        for percent in [0, 10, 25, 40, 50, 60, 70, 74] {
            let held = CAPACITY / 100 * percent;
            let costly = Swept {
                cpu: Duration::from_secs(1),
                flows_capacity: CAPACITY,
                bindings_capacity: CAPACITY,
                ..Swept::default()
            };
            let flows = Swept {
                flows: held,
                ..costly.clone()
            };
            let bindings = Swept {
                bindings: held,
                ..costly
            };
            for quiet in [flows, bindings] {
                let wait = pause(&quiet, false, quiet.left(), GC_PATIENCE);
                let come = wait.as_millis() * 2 * 8;
                let room = u128::from(CAPACITY - held);
                assert!(come <= room, "{percent} %: {come} come into {room}");
                assert!(percent < 40 || wait <= GC_PERIOD, "{percent} %: {wait:?}");
                assert!(wait > GC_HASTE * 3, "{percent} %: {wait:?} for a quiet one");
            }
        }
    }

    #[test]
    fn while_flows_count_as_full_the_sweep_that_ends_it_comes_at_once() {
        let wait = |flows: u32, full: bool| {
            let swept = Swept {
                cpu: Duration::from_millis(80),
                flows,
                flows_capacity: 262_144,
                ..Swept::default()
            };
            pause(&swept, full, swept.left(), GC_PERIOD).as_secs()
        };
        let at_60_percent = 157_286;
        assert_eq!(wait(at_60_percent, true), 1);
        assert_eq!(wait(at_60_percent, false), 6);
        assert_eq!(wait(130_000, true), 8, "the kernel does not tell the rest");
    }

    #[test]
    fn what_the_first_sweep_finds_has_not_come_while_it_ran() {
        let first = Swept {
            bindings: 20_000,
            bindings_removed: 10_000,
            bindings_capacity: 262_144,
            ..Swept::default()
        };
        let before = Swept::default().left();
        let took = Duration::from_millis(20);
        assert_eq!(pause(&first, false, before, took), GC_PERIOD);
    }

    #[test]
    fn the_next_sweep_comes_before_a_table_that_grows_is_full() {
        let after = |bindings: u32, before: u32| {
            let swept = Swept {
                bindings,
                bindings_capacity: 262_144,
                ..Swept::default()
            };
            pause(&swept, false, Some((0, before)), GC_PERIOD)
        };
        assert_eq!(after(20_000, 10_000), GC_PERIOD, "years until it is full");
        // 9,000 a second, and room for 7 seconds until three quarters are taken.
        let wait = after(130_000, 40_000);
        assert!(wait > GC_HASTE && wait < Duration::from_secs(4), "{wait:?}");
        assert_eq!(after(190_000, 100_000), GC_HASTE);
        assert_eq!(after(90_000, 190_000), GC_PERIOD, "it shrinks");
    }
}
