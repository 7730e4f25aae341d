//! The daemon: in what order it starts, and what it does from then on.
//!
//! 1. configuration, lock, NIC; 2. maps and programs, pinned over those of an earlier start; 3. settings and classes
//! into the maps; 4. programs onto the NIC and behind every pinned link, atomically; 5. the kernel's fallback;
//! 6. records and maps brought together; 7. socket, "ready"; 8. pools, garbage and repairs for ever after.

use std::cell::{Cell, RefCell};
use std::fs::{self, File, TryLockError};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use hooks::Pins;
use rpc::{
    LOADER_CONFIG, PoolView, Pools, Reply, Request, RunDirectory, Status, boot_id, read_json,
    write_json,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::{LocalSet, spawn_blocking};
use tracing::{error, info, warn};

use crate::classes::{Rule, classify};
use crate::config::{Config, PortRange};
use crate::nic::{self, Node};
use crate::registry::Registry;
use crate::server::{self, refused};
use crate::{fallback, gc, links, object, reconcile, status, wireserver};

/// Pools are read again this often once they are there.
const POOL_PERIOD: Duration = Duration::from_secs(30);
/// The first retry after a failure; doubled up to [`POOL_PERIOD`].
const POOL_RETRY: Duration = Duration::from_secs(1);
/// Between sweeps over the tables.
const GC_PERIOD: Duration = Duration::from_secs(10);
/// Between reconciliations.
const RECONCILE_PERIOD: Duration = Duration::from_secs(30);

/// The running daemon.
#[expect(missing_debug_implementations, reason = "aya's arrays have none")]
pub struct Daemon {
    config: Config,
    run: RunDirectory,
    pins: Pins,
    boot_id: String,
    started: Instant,
    adopted: bool,
    node: RefCell<Node>,
    registry: RefCell<Registry>,
    pools: RefCell<Result<Pools, String>>,
    rules: RefCell<Vec<Rule>>,
    flows_full: Cell<bool>,
}

/// Starts, serves until SIGTERM or SIGINT, and leaves the data plane running.
pub async fn run() -> anyhow::Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("azure-vnet-loader must run as root: it loads BPF programs and writes routes");
    }
    let run = RunDirectory::default();
    let config = Config::load(Path::new(LOADER_CONFIG))?;
    // Held until the process ends; the kernel releases it even after kill -9.
    let _lock = lock(&run)?;
    let local = LocalSet::new();
    local.run_until(start_and_serve(config, run)).await
}

async fn start_and_serve(config: Config, run: RunDirectory) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let daemon = Rc::new(Daemon::start(config, run).await?);
    let listener = server::listen(&daemon.run)?;
    tokio::task::spawn_local(server::serve(listener, Rc::clone(&daemon)));
    tokio::task::spawn_local(refresh_pools(Rc::clone(&daemon)));
    tokio::task::spawn_local(collect_garbage(Rc::clone(&daemon)));
    tokio::task::spawn_local(keep_true(Rc::clone(&daemon)));
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
        warn!(%error, "tell the service manager that we are ready");
    }
    info!(
        uptime_ms = daemon.started.elapsed().as_millis(),
        adopted = daemon.adopted,
        "ready"
    );
    tokio::select! {
        _ = terminate.recv() => info!("SIGTERM: stopping; programs and maps stay"),
        _ = interrupt.recv() => info!("SIGINT: stopping; programs and maps stay"),
    }
    Ok(())
}

fn lock(run: &RunDirectory) -> anyhow::Result<File> {
    let root = run.root();
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(root)
        .with_context(|| format!("make the run directory {}", root.display()))?;
    let path = root.join("loader.lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("open {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            bail!(
                "another azure-vnet-loader runs on this node (it holds {}); stop it first",
                path.display()
            )
        }
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("lock {}", path.display()))
        }
    }
}

impl Daemon {
    async fn start(config: Config, run: RunDirectory) -> anyhow::Result<Self> {
        let started = Instant::now();
        let boot_id = boot_id()?;
        let node = nic::discover(config.nic.as_deref()).await?;
        let pins = Pins::default();
        let loaded = object::load(&pins)?;
        let mut registry = Registry::new(loaded.maps);

        // What an earlier start knew keeps destinations in their classes while the wireserver is away.
        let pools = read_json::<Pools>(&run.pools())
            .ok()
            .filter(|pools| pools.boot_id == boot_id)
            .ok_or_else(|| "not read yet".to_owned());
        let rules = classify(&config, &node, pools.as_ref().ok());
        registry.configure(&node.nic, config.nat_ports, config.block_wireserver)?;
        registry.write_classes(&rules)?;
        reconcile::attach_nic(&pins, &node.nic.nic)?;
        reconcile::remove_stale_links(&pins, &node.nic.nic)?;

        let daemon = Self {
            config,
            run,
            pins,
            boot_id,
            started,
            adopted: loaded.adopted,
            node: RefCell::new(node),
            registry: RefCell::new(registry),
            pools: RefCell::new(pools),
            rules: RefCell::new(rules),
            flows_full: Cell::new(false),
        };
        fallback::enable_forwarding()?;
        daemon.install_fallback();
        // Endpoints first: what a record has and the maps have lost gets the new programs, too.
        daemon.reconcile();
        let pods = reconcile::replace_on_pods(&daemon.pins, &daemon.registry.borrow())?;
        info!(pods, "programs are in place");
        Ok(daemon)
    }

    /// Answers one request.
    pub async fn handle(&self, request: Request) -> Reply {
        match request {
            Request::Node => Reply::Node(self.node.borrow().nic.clone()),
            Request::Register(endpoint) => done(
                self.registry.borrow_mut().register(&endpoint),
                "register the pod",
            ),
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
            Request::Status => match self.status() {
                Ok(status) => Reply::Status(Box::new(status)),
                Err(error) => refused("gather the status", &error, "restart azure-vnet-loader"),
            },
        }
    }

    fn status(&self) -> anyhow::Result<Status> {
        let registry = self.registry.borrow();
        let pools = self.pools.borrow();
        Ok(Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            abi_version: abi::ABI_VERSION,
            uptime_s: self.started.elapsed().as_secs(),
            adopted: self.adopted,
            node: self.node.borrow().nic.clone(),
            nat_ports: (self.config.nat_ports.first, self.config.nat_ports.last),
            pools: pools.as_ref().map(pool_view).map_err(Clone::clone),
            attached: status::attached(&self.node.borrow().nic.nic, &registry.host_veths()?),
            tables: status::tables(&registry.maps),
            classes: self.rules.borrow().iter().map(Into::into).collect(),
            pods: status::pods(&registry.maps, &reconcile::endpoints(&self.run))?,
            drops: status::drops(&registry.maps)?,
            warnings: self.warnings(),
        })
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let ours = self.config.nat_ports;
        if let Some(ephemeral) = fallback::ephemeral_ports()
            && ephemeral.overlaps(ours)
        {
            warnings.push(port_warning(
                ours,
                ephemeral,
                "the node's ephemeral ports (net.ipv4.ip_local_port_range)",
            ));
        }
        if ours.overlaps(fallback::KERNEL_PORTS) {
            warnings.push(port_warning(
                ours,
                fallback::KERNEL_PORTS,
                "the ports of the kernel's masquerading",
            ));
        }
        if self.flows_full.get() {
            warnings.push(
                "the flow table is nearly full: flows that are not in it take the kernel's path"
                    .into(),
            );
        }
        warnings
    }

    /// Reads the pools from the wireserver and, when they changed, everything that depends on them.
    async fn read_pools(&self) -> Result<Pools, String> {
        let node = self.node.borrow().clone();
        let read = spawn_blocking(move || wireserver::fetch(&node))
            .await
            .map_err(|error| error.to_string())?;
        let fresh = match read {
            Ok(pools) => pools,
            Err(error) => {
                let why = error.to_string();
                let mut known = self.pools.borrow_mut();
                if known.is_err() {
                    *known = Err(why.clone());
                }
                return Err(why);
            }
        };
        write_json(&self.run.pools(), &fresh).map_err(|error| error.to_string())?;
        *self.pools.borrow_mut() = Ok(fresh.clone());
        self.reclassify();
        Ok(fresh)
    }

    /// Recomputes the classes and, when they changed, writes them to `dst4` and the fallback.
    fn reclassify(&self) {
        let rules = classify(
            &self.config,
            &self.node.borrow(),
            self.pools.borrow().as_ref().ok(),
        );
        if *self.rules.borrow() == rules {
            return;
        }
        if let Err(error) = self.registry.borrow_mut().write_classes(&rules) {
            error!(%error, "write the destination classes");
            return;
        }
        info!(prefixes = rules.len(), "destination classes changed");
        *self.rules.borrow_mut() = rules;
        self.install_fallback();
    }

    /// A node without nft still has its fast path; what takes the stack to the Internet is not masqueraded then.
    fn install_fallback(&self) {
        let nic = self.node.borrow().nic.nic.clone();
        if let Err(error) =
            fallback::install(&nic, &self.rules.borrow(), self.config.block_wireserver)
        {
            error!(%error, "the kernel does not masquerade what the programs leave to it");
        }
    }

    fn reconcile(&self) {
        for error in reconcile::reconcile(&mut self.registry.borrow_mut(), &self.run, &self.boot_id)
        {
            error!(%error, "reconcile");
        }
    }

    /// Follows the node's own addresses and the NIC.
    async fn follow_node(&self) {
        match nic::discover(self.config.nic.as_deref()).await {
            Ok(node) => {
                let changed = self.node.borrow().nic != node.nic;
                if changed {
                    info!(nic = node.nic.nic, primary = %node.nic.primary, mtu = node.nic.mtu, "the NIC changed");
                    let written = self.registry.borrow_mut().configure(
                        &node.nic,
                        self.config.nat_ports,
                        self.config.block_wireserver,
                    );
                    if let Err(error) = written {
                        error!(%error, "write the NIC's settings");
                    }
                }
                if let Err(error) = reconcile::attach_nic_if_needed(&self.pins, &node.nic.nic) {
                    error!(%error, "attach to the NIC");
                }
                *self.node.borrow_mut() = node;
                self.reclassify();
            }
            Err(error) => warn!(%error, "look at the node's interfaces"),
        }
    }
}

fn pool_view(pools: &Pools) -> PoolView {
    let subnets = pools
        .interfaces
        .iter()
        .flat_map(|interface| &interface.subnets);
    PoolView {
        source: pools.source.clone(),
        age_s: wireserver::boottime_ms().saturating_sub(pools.read_at_ms) / 1000,
        addresses: subnets.map(|subnet| subnet.secondary.len()).sum(),
    }
}

fn port_warning(ours: PortRange, other: PortRange, what: &str) -> String {
    format!(
        "SNAT ports {}-{} overlap {what}, {}-{}: connections may clash; set `natPorts` in loader.yaml",
        ours.first, ours.last, other.first, other.last
    )
}

fn done<E: std::fmt::Display>(result: Result<(), E>, what: &str) -> Reply {
    match result {
        Ok(()) => Reply::Done,
        Err(error) => refused(what, &error, "see the loader's log"),
    }
}

async fn refresh_pools(daemon: Rc<Daemon>) {
    let mut retry = POOL_RETRY;
    loop {
        let wait = match daemon.read_pools().await {
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

async fn collect_garbage(daemon: Rc<Daemon>) {
    let mut ticks = tokio::time::interval(GC_PERIOD);
    loop {
        ticks.tick().await;
        let pins = daemon.pins.clone();
        match spawn_blocking(move || gc::sweep(&pins)).await {
            Ok(Ok(swept)) => {
                let full = swept.flows_full(daemon.flows_full.get());
                if full != daemon.flows_full.replace(full) {
                    warn!(
                        full,
                        flows = swept.flows,
                        "the flow table crossed its high-water mark"
                    );
                }
                if let Err(error) = daemon.registry.borrow_mut().set_flows_full(full) {
                    error!(%error, "write the flow table's fill");
                }
            }
            Ok(Err(error)) => error!(%error, "sweep the tables"),
            Err(error) => error!(%error, "sweep the tables"),
        }
    }
}

async fn keep_true(daemon: Rc<Daemon>) {
    let mut ticks = tokio::time::interval(RECONCILE_PERIOD);
    // The first tick is immediate, and start has just done the work.
    ticks.tick().await;
    loop {
        ticks.tick().await;
        daemon.follow_node().await;
        daemon.reconcile();
    }
}
