//! What is a pod in the lab? A network namespace that a runtime made, and what ADD said about it.

use std::net::Ipv4Addr;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::libcni::{Attachment, Network, Verb};
use crate::namespace::Namespace;
use crate::process::Finished;
use crate::root;
use crate::vnet::Mac;

/// A pod. Dereferences to its namespace, so that `a.tcp(b.addr(), 80)` reads as it should.
///
/// Dropping the handle leaves the pod in the node; [`Pod::delete`] removes it.
#[derive(Debug)]
pub struct Pod {
    namespace: Namespace,
    node: Namespace,
    netns: PathBuf,
    attachment: Attachment,
    network: Option<Network>,
    result: Option<Value>,
}

impl Deref for Pod {
    type Target = Namespace;

    fn deref(&self) -> &Namespace {
        &self.namespace
    }
}

impl Pod {
    /// A namespace as a runtime makes it: bound below `/run/netns`, with loopback up and nothing else.
    pub(crate) fn new(node: &Namespace, name: &str) -> Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let id = format!("{number:016x}{:048x}", std::process::id());
        let netns = PathBuf::from(format!("/run/netns/cni-{number:08x}-{name}"));
        let namespace = node.network_at(&format!("pod {name} of {}", node.name()), &netns)?;
        namespace.ip("link set lo up\n")?;
        let attachment = Attachment::of_pod(name, &id, Some(netns.display().to_string()));
        Ok(Self {
            namespace,
            node: node.clone(),
            netns,
            attachment,
            network: None,
            result: None,
        })
    }

    /// How the runtime describes the pod to plug-ins; change it before [`Pod::add`].
    pub fn attachment_mut(&mut self) -> &mut Attachment {
        &mut self.attachment
    }

    pub fn attachment(&self) -> &Attachment {
        &self.attachment
    }

    pub fn container_id(&self) -> &str {
        &self.attachment.container_id
    }

    /// The node's namespace.
    pub(crate) fn node(&self) -> &Namespace {
        &self.node
    }

    /// Where the namespace is bound in the node.
    pub fn netns(&self) -> &Path {
        &self.netns
    }

    /// ADD to a network. On failure the plug-ins have been called as the runtime would: no DEL yet.
    pub fn add(&mut self, network: &Network) -> Result<&Value> {
        self.network = Some(network.clone());
        let result = network.add(&self.node, &self.attachment)?;
        Ok(self.result.insert(result))
    }

    /// CHECK against the result of ADD.
    pub fn check(&self) -> Result<()> {
        self.network()?
            .check(&self.node, &self.attachment, self.result_of_add()?)
    }

    /// DEL only; the namespace stays.
    pub fn del(&self) -> Result<()> {
        self.network()?
            .del(&self.node, &self.attachment, self.result.as_ref())
    }

    /// Runs the network's first plug-in, ours, alone, as ADD and DEL do; whatever came of it, and how long it took.
    pub fn call(&self, network: &Network, verb: Verb) -> Result<Finished> {
        network.first(&self.node, verb, &self.attachment)
    }

    /// What a runtime does at the end of a pod: DEL, then the namespace goes away.
    pub fn delete(self) -> Result<()> {
        self.del()?;
        self.remove_netns()
    }

    /// The namespace goes away without any DEL, as after a crash of the runtime.
    pub fn remove_netns(self) -> Result<()> {
        self.node.run(|| root::unbind_netns(&self.netns))
    }

    fn network(&self) -> Result<&Network> {
        let name = self.namespace.name();
        self.network
            .as_ref()
            .with_context(|| format!("{name} was not added to a network"))
    }

    fn result_of_add(&self) -> Result<&Value> {
        let name = self.namespace.name();
        self.result
            .as_ref()
            .with_context(|| format!("{name} has no result of ADD"))
    }

    /// The result that the last plug-in of ADD printed.
    #[track_caller]
    #[expect(
        clippy::panic,
        reason = "a test that asks a pod without ADD for its result is wrong"
    )]
    pub fn result(&self) -> &Value {
        self.result_of_add()
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// The pod's address according to the result.
    #[track_caller]
    #[expect(
        clippy::panic,
        reason = "a pod whose result has no address fails the test at once"
    )]
    pub fn addr(&self) -> Ipv4Addr {
        let result = self.result();
        address(result).unwrap_or_else(|| panic!("no IPv4 address in {result}"))
    }
}

impl Pod {
    /// The Ethernet addresses of what the pod sends: of the host's end of its cable, and its own.
    pub fn macs(&self) -> Result<(Mac, Mac)> {
        let result = self.result_of_add()?;
        let mac = |index: usize| {
            let text = result.pointer(&format!("/interfaces/{index}/mac"))?;
            text.as_str()?.parse().ok()
        };
        let macs = || Some((mac(1)?, mac(0)?));
        macs().with_context(|| format!("no two interfaces with addresses in {result}"))
    }

    /// The name of the host's end of its cable.
    pub fn host_veth(&self) -> Result<&str> {
        let name = self.result_of_add()?.pointer("/interfaces/1/name");
        name.and_then(Value::as_str)
            .context("the result names no interface of the host")
    }
}

/// The first IPv4 address of a result, in the shape of version 0.3 and later or of 0.2.
fn address(result: &Value) -> Option<Ipv4Addr> {
    let newer = result.pointer("/ips/0/address");
    let text = newer.or_else(|| result.pointer("/ip4/ip"))?.as_str()?;
    text.split('/').next()?.parse().ok()
}
