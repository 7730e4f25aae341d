//! Where a probe begins and ends: the node, or a pod whose namespace nothing but a thread holds.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{self, Sender};
use std::thread;

use anyhow::{Context as _, Result, ensure};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::gettid;
use serde_json::Value;

use super::network::Network;
use super::published::Published;
use crate::plugin;

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace: it vanishes with this process, even with SIGKILL.
pub(super) struct Namespace {
    jobs: Sender<Job>,
    path: String,
}

/// Where a socket is made.
#[derive(Clone, Copy)]
pub(super) enum Place<'a> {
    Node,
    Pod(&'a TestPod),
}

/// A pod without a container.
pub(super) struct TestPod {
    namespace: Namespace,
    name: String,
    container: String,
    bin: PathBuf,
    network: Network,
    published: Option<Published>,
    /// Of ADD, as a runtime keeps it: of all plug-ins.
    result: Option<Value>,
    address: Option<Ipv4Addr>,
}

impl Namespace {
    fn new() -> Result<Self> {
        let (jobs, todo) = mpsc::channel::<Job>();
        let (told, made) = mpsc::channel();
        thread::spawn(move || {
            let made = unshare(CloneFlags::CLONE_NEWNET);
            let path = format!("/proc/{}/task/{}/ns/net", std::process::id(), gettid());
            if told.send(made.map(|()| path)).is_ok() {
                for job in todo {
                    job();
                }
            }
        });
        let path = made.recv().context("start a thread")?;
        Ok(Self {
            path: path.context("make a network namespace")?,
            jobs,
        })
    }

    fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (told, done) = mpsc::channel();
        let job = move || drop(told.send(work()));
        self.jobs
            .send(Box::new(job))
            .ok()
            .context("the namespace's thread is gone")?;
        done.recv().context("the namespace's thread is gone")?
    }
}

impl Place<'_> {
    pub(super) fn run<T: Send + 'static>(
        self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        match self {
            Self::Node => work(),
            Self::Pod(pod) => pod.namespace.run(work),
        }
    }
}

impl TestPod {
    /// With a port of the node, if one is given.
    pub(super) fn new(
        name: &str,
        bin: &Path,
        network: &Network,
        published: Option<Published>,
    ) -> Result<Self> {
        Ok(Self {
            namespace: Namespace::new()?,
            name: format!("selftest-{name}"),
            container: format!("vnetctl-selftest-{}-{name}", std::process::id()),
            bin: bin.to_owned(),
            network: network.clone(),
            published,
            result: None,
            address: None,
        })
    }

    pub(super) const fn published(&self) -> Option<Published> {
        self.published
    }

    pub(super) fn address(&self) -> Result<Ipv4Addr> {
        self.address
            .with_context(|| format!("{} has no address", self.name))
    }

    /// Whether every plug-in's ADD worked; the pod has an address as soon as one has given it one.
    pub(super) const fn is_added(&self) -> bool {
        self.result.is_some()
    }

    pub(super) fn add(&mut self) -> Result<String> {
        let mut address = None;
        let result = self.network.add(self.published, |plugin, conf| {
            let result = self.call("ADD", plugin, conf)?;
            address = address.or_else(|| address_in(&result));
            Ok(result)
        });
        // Also if a later plug-in fails: by it, what is left is found.
        self.address = address;
        let result = result?;
        let address = address_in(&result)
            .with_context(|| format!("ADD answered without an address: {result}"))?;
        self.result = Some(result);
        Ok(address.to_string())
    }

    pub(super) fn del(&self) -> Result<String> {
        let call = |plugin: &str, conf: &Value| self.call("DEL", plugin, conf);
        self.network
            .del(self.published, self.result.as_ref(), call)?;
        Ok(String::new())
    }

    fn call(&self, verb: &str, plugin: &str, conf: &Value) -> Result<Value> {
        let args = format!(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=vnetctl;K8S_POD_NAME={}",
            self.name
        );
        // For what a plug-in runs itself.
        let path = std::env::var("PATH").unwrap_or_default();
        let environment = [
            ("PATH", path.as_str()),
            ("CNI_COMMAND", verb),
            ("CNI_CONTAINERID", self.container.as_str()),
            ("CNI_IFNAME", "eth0"),
            ("CNI_NETNS", &self.namespace.path),
            ("CNI_ARGS", &args),
        ];
        plugin::call(&self.bin, plugin, environment, conf)
    }

    /// Runs `ip` in the pod.
    pub(super) fn ip(&self, words: &str) -> Result<String> {
        let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
        Place::Pod(self).run(move || {
            let done = Command::new("ip").args(&words).output().context("run ip")?;
            let why = String::from_utf8_lossy(&done.stderr).into_owned();
            ensure!(done.status.success(), "ip {}: {why}", words.join(" "));
            Ok(String::from_utf8_lossy(&done.stdout).into_owned())
        })
    }
}

/// The pod's, in the result of an ADD.
fn address_in(result: &Value) -> Option<Ipv4Addr> {
    let address = ["/ips/0/address", "/ip4/ip"]
        .iter()
        .find_map(|at| result.pointer(at)?.as_str());
    address?.split('/').next()?.parse().ok()
}
