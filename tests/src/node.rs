//! What can a test do with a node?

use std::fs;
use std::net::Ipv4Addr;
use std::ops::Deref;
use std::path::Path;
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::cgroup::Cgroup;
use crate::fabric::Fabric;
use crate::libcni::Network;
use crate::loader::Loader;
use crate::namespace::Namespace;
use crate::pod::Pod;
use crate::vnet::{Mac, Nic};
use crate::wait::lock;

/// Where the node keeps the conflist that [`Node::add_pod`] uses.
pub const CONFLIST: &str = "/etc/cni/net.d/10-azure.conflist";

/// A simulated VM with its NIC `eth0`. Dereferences to its namespace, so that probes from the node itself
/// read `lab.node(1).tcp(…)`.
#[derive(Debug)]
pub struct Node {
    namespace: Namespace,
    nic: Nic,
    fabric: Arc<Fabric>,
    loader: Loader,
    cgroup: Mutex<Option<Cgroup>>,
}

impl Deref for Node {
    type Target = Namespace;

    fn deref(&self) -> &Namespace {
        &self.namespace
    }
}

impl Node {
    pub(crate) fn new(namespace: Namespace, nic: Nic, fabric: &Arc<Fabric>) -> Self {
        Self {
            loader: Loader::new(&namespace),
            namespace,
            nic,
            fabric: Arc::clone(fabric),
            cgroup: Mutex::default(),
        }
    }

    /// The primary address.
    pub fn addr(&self) -> Ipv4Addr {
        self.nic.primary
    }

    /// The NIC's MAC address.
    pub fn mac(&self) -> Mac {
        self.nic.mac
    }

    /// The secondary addresses that the virtual network has registered on the NIC now.
    pub fn secondaries(&self) -> Result<Vec<Ipv4Addr>> {
        Ok(self.fabric.nic(self.name())?.secondary)
    }

    /// Registers one more address on the NIC.
    pub fn add_secondary(&self, address: Ipv4Addr) -> Result<()> {
        self.fabric.add_secondary(self.name(), address)
    }

    /// Takes an address off the NIC.
    pub fn remove_secondary(&self, address: Ipv4Addr) -> Result<()> {
        self.fabric.remove_secondary(self.name(), address)
    }

    /// Takes the NIC away and gives the node another one with the same name and addresses.
    pub fn renew_nic(&self) -> Result<()> {
        self.fabric.renew_nic(&self.namespace)
    }

    /// Starts the loader and waits until it is ready.
    pub fn start_loader(&self) -> Result<()> {
        self.loader.start()
    }

    pub fn loader(&self) -> &Loader {
        &self.loader
    }

    /// Ends the 30 s for which an address rests that was given back: a test that asks for hundreds a second would use up any NIC.
    pub fn end_rest(&self) -> Result<()> {
        self.exec(&["sh", "-c", "rm -f /run/azure-vnet/ipam/released/*"])?;
        Ok(())
    }

    /// What `vnetctl status` says.
    pub fn status(&self) -> Result<Value> {
        let text = self.exec(&["vnetctl", "status", "-o", "json"])?;
        serde_json::from_str(&text).context("parse the status")
    }

    /// Packets that the data path has dropped for a reason.
    pub fn drops(&self, reason: &str) -> Result<u64> {
        let status = self.status()?;
        let packets = status.pointer(&format!("/drops/{reason}/packets"));
        Ok(packets.and_then(Value::as_u64).unwrap_or(0))
    }

    /// Makes the node able to run containers: they need a hierarchy of cgroups.
    pub fn prepare_containers(&self) -> Result<()> {
        let mut cgroup = lock(&self.cgroup);
        if cgroup.is_none() {
            *cgroup = Some(Cgroup::new(&self.namespace)?);
        }
        Ok(())
    }

    /// A pod's namespace without any ADD.
    pub fn new_netns(&self, name: &str) -> Result<Pod> {
        Pod::new(&self.namespace, name)
    }

    /// A new pod, added to the network of [`CONFLIST`]. When ADD fails the runtime cleans up with DEL.
    pub fn add_pod(&self, name: &str) -> Result<Pod> {
        let network = self.network()?;
        let mut pod = self.new_netns(name)?;
        if let Err(error) = pod.add(&network) {
            let cleaned = pod.delete();
            let note = cleaned
                .err()
                .map(|e| format!("; then DEL failed too: {e:#}"));
            return Err(error.context(format!("add pod {name}{}", note.unwrap_or_default())));
        }
        Ok(pod)
    }

    /// The network that [`CONFLIST`] describes now.
    pub fn network(&self) -> Result<Network> {
        Network::parse(
            &self.run(|| fs::read(CONFLIST).with_context(|| format!("read {CONFLIST}")))?,
        )
    }

    /// Writes a file in the node, with the directories above it.
    pub fn write(&self, path: &str, text: &str) -> Result<()> {
        self.run(|| {
            if let Some(parent) = Path::new(path).parent() {
                fs::create_dir_all(parent)?;
            }
            fs::write(path, text).with_context(|| format!("write {path}"))
        })
    }

    /// Reads a file of the node.
    pub fn read(&self, path: &str) -> Result<String> {
        self.run(|| fs::read_to_string(path).with_context(|| format!("read {path}")))
    }
}
