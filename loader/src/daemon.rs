//! The daemon: in what order it starts, and what it answers.
//!
//! 1. Configuration, lock, NIC.
//! 2. Maps and programs, pinned over those of an earlier start.
//! 3. Settings and classes into the maps.
//! 4. Programs onto the NIC, atomically: the one that learns, then the kernel's connections into the maps, then the one that decides.
//!    After an upgrade, onto every pod's veth, too, and the tables into maps of another layout meanwhile ([`crate::carry`]).
//! 5. Records and maps brought together, programs onto every pod's veth.
//! 6. Socket; the kernel's fallback, "ready".
//! 7. Pools, garbage, repairs and changes for ever after ([`crate::tasks`], [`crate::repair`]).

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use hooks::{Held, Pins};
use rpc::{GuardView, Pools, Reply, Request, RunDirectory, boot_id, read_json, write_json};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::{LocalSet, spawn_blocking};
use tracing::{info, warn};

use crate::alive::{Alive, Task};
use crate::carry::Carry;
use crate::classes::{Inputs, Rule, classify};
use crate::configuration::Configuration;
use crate::foreign::Filter;
use crate::gc::Swept;
use crate::keep_nft::{self, Nft};
use crate::keepsakes::Keepsakes;
use crate::lock::Lock;
use crate::metrics::Metrics;
use crate::nic::{self, Node};
use crate::reclaim::Reclaim;
use crate::reconcile::When;
use crate::registry::Registry;
use crate::server::{self, refused};
use crate::trouble::Troubles;
use crate::{
    azure_state, conntrack, fallback, guard, links, object, pools, reconcile, repair, sysctls,
    tasks, via_host, web,
};

/// The running daemon.
#[expect(missing_debug_implementations, reason = "aya's arrays have none")]
pub struct Daemon {
    pub(crate) configuration: RefCell<Configuration>,
    pub(crate) run: RunDirectory,
    pub(crate) lock: RefCell<Lock>,
    pub(crate) pins: Pins,
    pub(crate) boot_id: String,
    pub(crate) started: Instant,
    pub(crate) adopted: bool,
    pub(crate) node: RefCell<Node>,
    pub(crate) registry: RefCell<Registry>,
    /// Entries of an earlier build's maps, on their way until no program uses those.
    pub(crate) carry: RefCell<Carry>,
    pub(crate) pools: RefCell<Result<Pools, String>>,
    pub(crate) rules: RefCell<Vec<Rule>>,
    /// Addresses that conflists route via the host.
    pub(crate) via_host: RefCell<BTreeSet<Ipv4Addr>>,
    pub(crate) flows_full: Cell<bool>,
    /// The kernel's fallback as it was installed last.
    pub(crate) fallback: RefCell<fallback::Installed>,
    /// What is asked of who keeps it.
    pub(crate) nft: Nft,
    /// Maps, programs and links.
    pub(crate) held: RefCell<Held>,
    /// How many records, pods and veths there were when it was last looked.
    pub(crate) counted: Cell<(usize, usize, usize)>,
    /// Interfaces on which programs of others come before ours.
    pub(crate) strange: RefCell<BTreeSet<u32>>,
    /// Whether each pod's interface was looked at in the last round of repairs.
    pub(crate) was_wide: Cell<bool>,
    /// The files of living attachments.
    pub(crate) keepsakes: RefCell<Keepsakes>,
    /// What is wrong and cannot be mended from here.
    pub(crate) troubles: RefCell<Troubles>,
    /// Held while somebody looks at the node.
    pub(crate) looking: tokio::sync::Mutex<()>,
    /// Held while the way out of pods in a tunnel mode is made or taken away.
    pub(crate) tunnels: tokio::sync::Mutex<()>,
    /// When the last request for the pools ended, and what came of it.
    last_read: tokio::sync::Mutex<Option<(Instant, Result<Pools, String>)>>,
    /// What the last sweep over the tables found.
    pub(crate) swept: RefCell<Swept>,
    /// Secondary addresses of the NIC that the node has given itself.
    pub(crate) own_secondaries: RefCell<Vec<Ipv4Addr>>,
    /// Addresses that leaked when it was last looked.
    pub(crate) reclaim: RefCell<Reclaim>,
    /// What Azure's tools read.
    pub(crate) azure: RefCell<azure_state::Written>,
    /// How `xdp_guard` does.
    pub(crate) guard: RefCell<GuardView>,
    /// How many veths of pods there were when it was last looked, and on how many of them each program ran.
    pub(crate) guarded: Cell<(u64, [u64; 2])>,
    /// What is counted as it happens.
    pub(crate) metrics: Metrics,
    /// Where metrics are served.
    pub(crate) metrics_address: watch::Sender<Option<SocketAddrV4>>,
    /// Who else filters pods' forwarded packets.
    pub(crate) foreign: RefCell<Vec<Filter>>,
    /// What keeps others of them from being seen.
    pub(crate) unread: RefCell<Option<String>>,
    /// Nothing that makes the runtime call us is put back any more.
    pub(crate) leaving: Cell<bool>,
    /// Whether the tasks are alive.
    pub(crate) alive: Alive,
}

/// How long a loader that has just ended may still hold the lock: in a child of its own between fork and exec, for which a busy disk has to
/// find the program first.
const HANDOVER: Duration = Duration::from_secs(5);

/// Starts, serves until SIGTERM or SIGINT, and leaves the data plane running.
pub async fn run() -> anyhow::Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("azure-vnet-loader must run as root: it loads BPF programs and writes routes");
    }
    let run = RunDirectory::default();
    let configuration = Configuration::load()?;
    for warning in configuration.warnings() {
        warn!(warning, "configuration");
    }
    let lock = Lock::acquire(&run, HANDOVER)?;
    let local = LocalSet::new();
    Box::pin(local.run_until(start_and_serve(configuration, run, lock))).await
}

async fn start_and_serve(
    configuration: Configuration,
    run: RunDirectory,
    lock: Lock,
) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    // Until now SIGHUP would have ended the process.
    let hangup = signal(SignalKind::hangup()).context("listen for SIGHUP")?;
    let daemon = Rc::new(Daemon::start(configuration, run, lock).await?);
    let listener = server::listen(&daemon.run)?;
    let address = daemon.metrics_address.subscribe();
    let own = || Rc::clone(&daemon);
    let alive = &daemon.alive;
    alive.start(Task::Socket, server::serve(listener, own()));
    alive.start(Task::Web, web::serve(own(), address));
    alive.start(Task::Pools, tasks::refresh_pools(own()));
    alive.start(Task::Tables, tasks::collect_garbage(own()));
    let repairs = alive.start(Task::Repairs, repair::keep_true(own()));
    alive.start(Task::Fallback, keep_nft::keep(own()));
    alive.start(Task::Filters, tasks::look_for_filters(own()));
    let following = tasks::follow_configuration(own(), hangup);
    alive.start(Task::Configuration, following);
    alive.start(Task::Files, tasks::follow_files(own()));
    alive.start(Task::Leaks, tasks::free_leaks(own()));
    alive.start(Task::Node, tasks::follow_node(own()));
    tokio::task::spawn_local(tell_ready(daemon));
    tokio::select! {
        _ = terminate.recv() => info!("SIGTERM: stopping; programs and maps stay"),
        _ = interrupt.recv() => info!("SIGINT: stopping; programs and maps stay"),
        rival = repairs => bail!(rival?),
    }
    Ok(())
}

/// Everybody is served by now. It is ready when nft has done its work, too, or takes too long.
async fn tell_ready(daemon: Rc<Daemon>) {
    tokio::join!(daemon.nft.settled(), daemon.look_for_filters());
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
        warn!(%error, "tell the service manager that we are ready");
    }
    object::give_back_memory();
    info!(
        uptime_ms = daemon.started.elapsed().as_millis(),
        adopted = daemon.adopted,
        "ready"
    );
}

impl Daemon {
    async fn start(
        configuration: Configuration,
        run: RunDirectory,
        lock: Lock,
    ) -> anyhow::Result<Self> {
        let started = Instant::now();
        let boot_id = boot_id()?;
        let node = nic::discover(configuration.config.nic.as_deref()).await?;
        let pins = Pins::default();
        let loaded = object::load(&pins, configuration.config.sizes)?;
        let mut registry = Registry::new(loaded.maps);

        // What an earlier start knew keeps destinations in their classes while the wireserver is away.
        let pools = read_json::<Pools>(&run.pools())
            .ok()
            .filter(|pools| pools.boot_id == boot_id)
            .ok_or_else(|| "not read yet".to_owned());
        let rules = classify(Inputs {
            config: &configuration.config,
            masq: &configuration.masq,
            node: &node,
            pools: pools.as_ref().ok(),
        });
        let via_host = via_host::addresses(&reconcile::endpoints(&run));
        let rules = via_host::add(rules, &via_host);
        // Before anything is written: what runs stays whole.
        registry.check_classes(&rules)?;
        registry.configure(&node, configuration.shares(), &configuration.config)?;
        registry.write_classes(&rules)?;
        let mut carry = loaded.carry;
        if carry.is_over() {
            reconcile::attach_nic(&pins, &node.nic.nic, || {
                conntrack::take_over_or_fill(&mut registry, &run)
            })?;
        } else {
            reconcile::upgrade(&pins, &node.nic.nic, &mut registry, &mut carry)?;
        }
        registry.learn()?;
        reconcile::remove_stale_links(&pins, &node.nic.nic)?;
        let guard = guard::apply(
            &configuration.config,
            &pins,
            &run,
            &mut registry,
            &node.nic.nic,
        );

        let flows_full = registry.flows_full()?;
        let address = configuration.config.metrics;
        let daemon = Self {
            configuration: RefCell::new(configuration),
            run,
            lock: RefCell::new(lock),
            pins,
            boot_id,
            started,
            adopted: loaded.adopted,
            node: RefCell::new(node),
            registry: RefCell::new(registry),
            carry: RefCell::new(carry),
            pools: RefCell::new(pools),
            rules: RefCell::new(rules),
            via_host: RefCell::new(via_host),
            flows_full: Cell::new(flows_full),
            fallback: RefCell::default(),
            nft: Nft::default(),
            held: RefCell::default(),
            counted: Cell::default(),
            strange: RefCell::default(),
            was_wide: Cell::default(),
            keepsakes: RefCell::default(),
            troubles: RefCell::default(),
            looking: tokio::sync::Mutex::default(),
            tunnels: tokio::sync::Mutex::default(),
            last_read: tokio::sync::Mutex::default(),
            swept: RefCell::default(),
            own_secondaries: RefCell::default(),
            reclaim: RefCell::default(),
            azure: RefCell::default(),
            guard: RefCell::new(guard),
            guarded: Cell::default(),
            metrics: Metrics::default(),
            metrics_address: watch::Sender::new(address),
            foreign: RefCell::default(),
            unread: RefCell::default(),
            leaving: Cell::default(),
            alive: Alive::default(),
        };
        daemon.hold_pins();
        sysctls::enable_forwarding()?;
        daemon.nft.want();
        daemon.reconcile(When::Starting);
        daemon.find_files();
        daemon.follow_tunnels().await;
        daemon.tell_azures_tools().await;
        daemon.reclaim_leaks().await;
        Ok(daemon)
    }

    /// Answers one request.
    pub async fn handle(&self, request: Request) -> Reply {
        match request {
            Request::Node => Reply::Node(self.node.borrow().nic.clone()),
            Request::Register(endpoint) if endpoint.is_tunnelled() => {
                self.route_via_host(&endpoint).await;
                let registered = self.register_tunnelled(&endpoint).await;
                self.keepsakes.borrow_mut().learn(&self.run, &endpoint);
                done(registered, "register the pod")
            }
            Request::Register(endpoint) => {
                self.route_via_host(&endpoint).await;
                let registered = self.registry.borrow_mut().register(&self.pins, &endpoint);
                self.keepsakes.borrow_mut().learn(&self.run, &endpoint);
                done(registered, "register the pod")
            }
            Request::Unregister(endpoint) => done(
                self.registry.borrow_mut().unregister(&endpoint),
                "unregister the pod",
            ),
            Request::RemoveLink { name, index } => {
                done(links::remove(&name, index).await, "remove the host veth")
            }
            Request::Inspect { key } => {
                match reconcile::endpoints(&self.run)
                    .into_iter()
                    .find(|endpoint| endpoint.key == key)
                {
                    Some(endpoint) => {
                        done(self.registry.borrow().inspect(&endpoint), "check the pod")
                    }
                    None => refused(
                        &format!("check {key}"),
                        &"there is no endpoint record",
                        "delete the pod, so that it is made anew",
                    ),
                }
            }
            Request::RefreshPools => match self.read_pools().await {
                Ok(pools) => Reply::Pools(pools),
                Err(why) => refused(
                    "read the address pools",
                    &why,
                    "see the loader's log; it tries again by itself",
                ),
            },
            Request::Classes { addresses } => match self.classes(&addresses) {
                Ok(classes) => Reply::Classes { classes },
                Err(error) => refused("look up the classes", &error, "see the loader's log"),
            },
            Request::Report(report) => {
                self.metrics.call(&report);
                Reply::Done
            }
            Request::Leave => {
                self.leaving.set(true);
                Reply::Done
            }
            Request::Health => Reply::Health {
                limits: self.troubles.borrow().limiting(),
            },
            Request::Status => match self.status() {
                Ok(status) => Reply::Status(Box::new(status)),
                Err(error) => refused("gather the status", &error, "restart azure-vnet-loader"),
            },
        }
    }

    /// Reads the pools from the platform and, when they changed, everything that depends on them.
    ///
    /// One request at a time, and its answer serves everybody who was waiting for it: a node whose pool is exhausted asks
    /// for every ADD, and an ADD does not wait for two time-outs.
    pub(crate) async fn read_pools(&self) -> Result<Pools, String> {
        let asked = Instant::now();
        let mut last = self.last_read.lock().await;
        if let Some((ended, answer)) = &*last
            && *ended >= asked
        {
            return answer.clone();
        }
        let answer = self.ask_for_pools().await;
        *last = Some((Instant::now(), answer.clone()));
        answer
    }

    async fn ask_for_pools(&self) -> Result<Pools, String> {
        let node = self.node.borrow().clone();
        let read = spawn_blocking(move || pools::fetch(&node))
            .await
            .map_err(|error| error.to_string())?;
        let mut fresh = match read {
            Ok(pools) => pools,
            Err(error) => {
                self.metrics.pools_not_read();
                let why = error.to_string();
                let mut known = self.pools.borrow_mut();
                if known.is_err() {
                    *known = Err(why.clone());
                }
                return Err(why);
            }
        };
        self.own_secondaries
            .replace(fresh.take_out(&self.node.borrow().addresses));
        write_json(&self.run.pools(), &fresh).map_err(|error| error.to_string())?;
        *self.pools.borrow_mut() = Ok(fresh.clone());
        self.reclassify();
        Ok(fresh)
    }
}

fn done<E: std::fmt::Display>(result: Result<(), E>, what: &str) -> Reply {
    match result {
        Ok(()) => Reply::Done,
        Err(error) => refused(what, &error, "see the loader's log"),
    }
}
