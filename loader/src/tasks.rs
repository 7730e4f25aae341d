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
/// anything in them is closed …
const GC_PATIENCE: Duration = Duration::from_secs(30);
const GC_SHARE: u32 = 1000;
/// … and while one of them is filling up.
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
        let before = {
            let swept = daemon.swept.borrow();
            (swept.flows, swept.bindings)
        };
        daemon.alive.at_work(Task::Tables, sweep(&daemon)).await;
        let wait = pause(&daemon.swept.borrow(), before, ended.elapsed());
        ended = Instant::now();
        tokio::time::sleep(wait).await;
    }
}

/// Large tables that nothing presses are swept less often: an idle node has better things to do. `since` the sweep before, which left
/// `before` in `flows` and `snat`: should as much come as has come by now, the next sweep comes while there is still room.
fn pause(swept: &Swept, before: (u32, u32), since: Duration) -> Duration {
    let wait = if swept.is_busy() {
        GC_PERIOD
    } else {
        (swept.cpu * GC_SHARE).clamp(GC_PERIOD, GC_PATIENCE)
    };
    let until_filling = swept.until_filling(before, since);
    // What comes may come faster yet.
    until_filling.map_or(wait, |time| wait.min(time / 2).max(GC_HASTE))
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
        let pause = |swept: &Swept| pause(swept, (0, swept.bindings), GC_PERIOD);
        assert_eq!(pause(&busy), GC_PERIOD);
        assert_eq!(pause(&swept(1, 100)), GC_PERIOD);
        assert_eq!(pause(&swept(20, 100_000)), Duration::from_secs(20));
        assert_eq!(pause(&swept(500, 190_000)), GC_PATIENCE);
        assert_eq!(pause(&swept(80, 200_000)), GC_HASTE);
    }

    #[test]
    fn the_next_sweep_comes_before_a_table_that_grows_is_full() {
        let after = |bindings: u32, before: u32| {
            let swept = Swept {
                bindings,
                bindings_capacity: 262_144,
                ..Swept::default()
            };
            pause(&swept, (0, before), GC_PERIOD)
        };
        assert_eq!(after(20_000, 10_000), GC_PERIOD, "years until it is full");
        // 9,000 a second, and room for 7 seconds until three quarters are taken.
        let wait = after(130_000, 40_000);
        assert!(wait > GC_HASTE && wait < Duration::from_secs(4), "{wait:?}");
        assert_eq!(after(190_000, 100_000), GC_HASTE);
        assert_eq!(after(100_000, 190_000), GC_PERIOD, "it shrinks");
    }
}
