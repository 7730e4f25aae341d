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

use crate::plugin;
use crate::vnetctl::doctor::Node;

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
    conf: Value,
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

/// What the conflist says of azure-vnet.
pub(super) fn configuration(node: &Node) -> Result<Value> {
    let ours = node
        .ours()
        .context("no file in /etc/cni/net.d names azure-vnet")?;
    let list: Value = serde_json::from_str(&ours.text)
        .with_context(|| format!("read {}", ours.path.display()))?;
    let mut conf = list
        .pointer("/plugins/0")
        .cloned()
        .context("the conflist has no plug-in")?;
    let fields = conf
        .as_object_mut()
        .context("the plug-in's configuration is no object")?;
    for key in ["name", "cniVersion"] {
        if let Some(value) = list.get(key) {
            fields.insert(key.to_owned(), value.clone());
        }
    }
    Ok(conf)
}

impl TestPod {
    pub(super) fn new(name: &str, bin: &Path, conf: &Value) -> Result<Self> {
        Ok(Self {
            namespace: Namespace::new()?,
            name: format!("selftest-{name}"),
            container: format!("vnetctl-selftest-{}-{name}", std::process::id()),
            bin: bin.to_owned(),
            conf: conf.clone(),
            address: None,
        })
    }

    pub(super) fn address(&self) -> Result<Ipv4Addr> {
        self.address
            .with_context(|| format!("{} has no address", self.name))
    }

    pub(super) fn add(&mut self) -> Result<String> {
        let result = self.call("ADD")?;
        let address = ["/ips/0/address", "/ip4/ip"]
            .iter()
            .find_map(|at| result.pointer(at)?.as_str());
        let address = address.and_then(|text| text.split('/').next()?.parse().ok());
        self.address =
            Some(address.with_context(|| format!("ADD answered without an address: {result}"))?);
        Ok(self.address()?.to_string())
    }

    pub(super) fn del(&self) -> Result<String> {
        self.call("DEL")?;
        Ok(String::new())
    }

    fn call(&self, verb: &str) -> Result<Value> {
        let args = format!(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=vnetctl;K8S_POD_NAME={}",
            self.name
        );
        let environment = [
            ("CNI_COMMAND", verb),
            ("CNI_CONTAINERID", self.container.as_str()),
            ("CNI_IFNAME", "eth0"),
            ("CNI_NETNS", &self.namespace.path),
            ("CNI_ARGS", &args),
        ];
        plugin::call(&self.bin, netconf::MAIN_PLUGIN, environment, &self.conf)
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
