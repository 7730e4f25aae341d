//! Does everything live that the loader does for ever? A task waits for most of its life, and then nobody knows whether it would
//! wake up; but it must not end, and what it has begun must end.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use tokio::task::{AbortHandle, JoinHandle, spawn_local};

/// What is done for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    Socket,
    Web,
    Pools,
    Tables,
    Repairs,
    Fallback,
    Filters,
    Configuration,
    Files,
    Leaks,
    Node,
}

impl Task {
    const COUNT: usize = Self::Node as usize + 1;

    /// What it does, as the operator is told.
    const fn name(self) -> &'static str {
        match self {
            Self::Socket => "answering the plug-ins",
            Self::Web => "serving metrics",
            Self::Pools => "reading the address pools",
            Self::Tables => "sweeping the tables",
            Self::Repairs => "repairing the node",
            Self::Fallback => "looking after the nft table",
            Self::Filters => "looking for filters of others",
            Self::Configuration => "following the configuration",
            Self::Files => "looking after records and leases",
            Self::Leaks => "freeing leaked addresses",
            Self::Node => "following the node's links and routes",
        }
    }
}

/// All tasks, and since when each has been at work.
#[derive(Debug, Default)]
pub(crate) struct Alive {
    started: RefCell<Vec<(Task, AbortHandle)>>,
    since: [Cell<Option<Instant>>; Task::COUNT],
}

/// Ends with the work, also when nobody waits for that any more.
struct AtWork<'a>(&'a Cell<Option<Instant>>);

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        self.0.take();
    }
}

impl Alive {
    /// Starts what shall never end.
    pub(crate) fn start<T: 'static>(
        &self,
        task: Task,
        work: impl Future<Output = T> + 'static,
    ) -> JoinHandle<T> {
        let running = spawn_local(work);
        let started = (task, running.abort_handle());
        self.started.borrow_mut().push(started);
        running
    }

    /// Does what must end soon.
    pub(crate) async fn at_work<T>(&self, task: Task, work: impl Future<Output = T>) -> T {
        let Some(since) = self.since.get(task as usize) else {
            return work.await;
        };
        since.set(Some(Instant::now()));
        let _until_done = AtWork(since);
        work.await
    }

    /// What has ended, or is at something for longer than `limit`.
    pub(crate) fn wrong(&self, limit: Duration) -> Option<String> {
        let is_late = |task: Task| {
            let since = self.since.get(task as usize).and_then(Cell::get);
            since.is_some_and(|since| since.elapsed() > limit)
        };
        self.started.borrow().iter().find_map(|(task, running)| {
            let name = task.name();
            if running.is_finished() {
                Some(format!("{name} has ended"))
            } else if is_late(*task) {
                Some(format!("{name} has been stuck for {} s", limit.as_secs()))
            } else {
                None
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::rc::Rc;

    use tokio::task::{LocalSet, yield_now};

    use super::*;

    /// What is wrong when these two have run for a moment.
    fn wrong(
        limit: Duration,
        pools: impl AsyncFnOnce(Rc<Alive>) + 'static,
        web: impl AsyncFnOnce(Rc<Alive>) + 'static,
    ) -> Option<String> {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.build().unwrap();
        LocalSet::new().block_on(&runtime, async {
            let alive = Rc::new(Alive::default());
            let (first, second) = (Rc::clone(&alive), Rc::clone(&alive));
            drop(alive.start(Task::Pools, async move { pools(first).await }));
            drop(alive.start(Task::Web, async move { web(second).await }));
            for _ in 0..8 {
                yield_now().await;
            }
            alive.wrong(limit)
        })
    }

    #[test]
    fn a_task_that_has_ended_or_is_stuck_is_named() {
        let idle = async |_: Rc<Alive>| pending().await;
        let busy = async |alive: Rc<Alive>| alive.at_work(Task::Web, pending()).await;
        let long = Duration::from_mins(1);
        assert_eq!(wrong(long, idle, idle), None);
        assert_eq!(wrong(long, idle, busy), None, "not yet");
        let late = wrong(Duration::ZERO, idle, busy);
        assert_eq!(late.unwrap(), "serving metrics has been stuck for 0 s");
        let ended = wrong(long, async |_: Rc<Alive>| (), busy);
        assert_eq!(ended.unwrap(), "reading the address pools has ended");
    }

    #[test]
    fn a_task_whose_work_is_done_or_given_up_is_not_stuck() {
        let idle = async |_: Rc<Alive>| pending().await;
        let done = async |alive: Rc<Alive>| {
            alive.at_work(Task::Web, async {}).await;
            pending::<()>().await;
        };
        assert_eq!(wrong(Duration::ZERO, idle, done), None);
        let given_up = async |alive: Rc<Alive>| {
            tokio::select! {
                biased;
                () = alive.at_work(Task::Web, pending()) => {}
                () = async {} => {}
            }
            pending::<()>().await;
        };
        assert_eq!(wrong(Duration::ZERO, idle, given_up), None);
    }
}
