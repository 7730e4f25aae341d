//! Who keeps the kernel's fallback? A task of its own: nft may wait for seconds on the kernel, or for ever, and nobody else waits with it.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::warn;

use crate::alive::Task;
use crate::daemon::Daemon;
use crate::fallback::{self, Wanted};
use crate::repairs::Repair;
use crate::trouble::Topic;

/// What takes nft longer is told.
const PATIENCE: Duration = Duration::from_secs(10);
/// So long an ADD waits for rules that it needs, and a start: twice that is less than the plug-in waits for us.
const OTHERS_WAIT: Duration = Duration::from_secs(2);

/// What is asked of the task.
#[derive(Debug, Default)]
pub(crate) struct Nft {
    /// How often the table was to be installed …
    wanted: watch::Sender<u64>,
    /// … and how many of those are done.
    done: watch::Sender<u64>,
    doubt: Notify,
    /// Whether there were pods in a tunnel mode since the loader started, or will be in a moment.
    tunnels: Cell<bool>,
}

impl Nft {
    /// The table shall be installed anew.
    pub(crate) fn want(&self) {
        self.wanted.send_modify(|wanted| *wanted += 1);
    }

    /// The table shall be one for a node with pods in a tunnel mode. It stays one until the next start: a table that loses its chain while
    /// such a pod comes would be wrong for as long as nft takes.
    pub(crate) fn want_tunnels(&self) {
        if !self.tunnels.replace(true) {
            self.want();
        }
    }

    /// Somebody may have removed or changed it.
    pub(crate) fn doubt(&self) {
        self.doubt.notify_one();
    }

    /// Waits, but not for ever, until what was wanted is installed.
    pub(crate) async fn settled(&self) {
        let wanted = *self.wanted.borrow();
        let mut done = self.done.subscribe();
        if timeout(OTHERS_WAIT, done.wait_for(|done| *done >= wanted))
            .await
            .is_err()
        {
            warn!("nobody waits any longer for nft");
        }
    }
}

/// Installs the table whenever that is wanted, and looks after it.
pub(crate) async fn keep(daemon: Rc<Daemon>) {
    let mut wanted = daemon.nft.wanted.subscribe();
    if *daemon.nft.done.borrow() < *wanted.borrow() {
        wanted.mark_changed();
    }
    loop {
        tokio::select! {
            // What was never installed is not gone.
            biased;
            _ = wanted.changed() => {
                let installing = daemon.install_fallback();
                daemon.alive.at_work(Task::Fallback, installing).await;
            }
            () = daemon.nft.doubt.notified() => {
                let repairing = daemon.repair_fallback();
                daemon.alive.at_work(Task::Fallback, repairing).await;
            }
        }
    }
}

impl Daemon {
    /// A node without nft still has its fast path; what takes the stack to the Internet is not masqueraded then, or as it
    /// was before, until [`Daemon::follow_node`] has tried again.
    pub(crate) async fn install_fallback(&self) {
        let wanted = *self.nft.wanted.borrow();
        let nic = self.node.borrow().nic.nic.clone();
        let rules = self.rules.borrow().clone();
        let block_wireserver = self.configuration.borrow().config.block_wireserver;
        let tunnels = self.nft.tunnels.get();
        let install = move || {
            fallback::install(&Wanted {
                nic: &nic,
                rules: &rules,
                block_wireserver,
                tunnels,
            })
        };
        let wrong = match self.run_nft(install).await {
            Some(Ok(installed)) => {
                let wrong = "the kernel has no CONFIG_NFT_FIB_IPV4: it does not check pods' sources while somebody has removed from_pod";
                let unchecked = !installed.checks_sources;
                self.judge(Topic::Sources, unchecked.then(|| wrong.to_owned()));
                self.fallback.replace(installed);
                None
            }
            Some(Err(error)) => Some(error.to_string()),
            None => Some("nft was not run to its end".to_owned()),
        };
        let wrong = wrong.map(|why| {
            let back = if tunnels { ", and leads no answer of a Service back to a pod in a tunnel mode" } else { "" };
            format!("the kernel does not masquerade what the programs leave to it as the configuration says{back}: {why}")
        });
        self.judge(Topic::Fallback, wrong);
        self.nft.done.send_replace(wanted);
    }

    /// Installs the kernel's fallback again when somebody has removed or changed it.
    async fn repair_fallback(&self) {
        let installed = self.fallback.borrow().clone();
        let was_there = installed != fallback::Installed::default();
        if self.run_nft(move || installed.is_whole()).await == Some(false) {
            warn!("the nftables table `azure-vnet` is gone or changed: installing it again");
            self.install_fallback().await;
            if was_there && !self.troubles.borrow().has(Topic::Fallback) {
                Repair::Fallback.count();
            }
        }
    }

    /// Tells when it takes long, and goes on waiting: another nft would wait behind this one.
    async fn run_nft<T: Send + 'static>(
        &self,
        run: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let mut running = spawn_blocking(run);
        if let Ok(done) = timeout(PATIENCE, &mut running).await {
            return done.ok();
        }
        let slow = format!(
            "nft has been running for {} s: nobody looks after the kernel's fallback meanwhile",
            PATIENCE.as_secs()
        );
        // A table that was never made is missing; another stays as it is.
        let topic = if *self.fallback.borrow() == fallback::Installed::default() {
            Topic::Fallback
        } else {
            Topic::Nft
        };
        self.judge(topic, Some(slow));
        let done = running.await.ok();
        self.judge(topic, None);
        done
    }
}
