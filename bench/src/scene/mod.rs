//! The four sides, each a node of its own lab, all there at the same time.

mod peers;

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};
use lab::libcni::Network;
use lab::{Lab, Namespace, Node, Pod};

use crate::names::{Path, SideName};

/// What the labs are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Another node to talk with.
    Traffic,
    /// Room for hundreds of pods.
    Pods,
    /// The same, and none there yet.
    NoPods,
}

/// One side: a node with its network set up, and two pods if it is one with pods and not to be without.
#[derive(Debug)]
pub(crate) struct Side {
    pub(crate) name: SideName,
    /// What makes pods there.
    pub(crate) network: Option<Network>,
    /// Before the lab, whose end is also theirs.
    pub(crate) pods: Vec<Pod>,
    lab: Lab,
}

/// Who talks.
#[derive(Clone, Debug)]
pub(crate) struct End {
    pub(crate) namespace: Namespace,
    pub(crate) address: Ipv4Addr,
}

impl End {
    fn new(namespace: &Namespace, address: Ipv4Addr) -> Self {
        Self {
            namespace: namespace.clone(),
            address,
        }
    }
}

impl Side {
    /// `configure` changes the node before its network is set up. The binaries are the product's when no folder of others is named.
    pub(crate) fn build(
        name: SideName,
        kind: Kind,
        binaries: Option<&std::path::Path>,
        configure: &dyn Fn(&Node) -> Result<()>,
    ) -> Result<Self> {
        // Recording every frame is the fabric's habit, and would be what is measured.
        let lab = match kind {
            Kind::Traffic => Lab::new().nodes(2).secondaries(240),
            Kind::Pods | Kind::NoPods => Lab::new().nodes(1).secondaries(1000),
        };
        let lab = binaries.map_or(lab.clone(), |folder| lab.binaries(folder));
        let lab = lab.record(false).build()?;
        configure(lab.node(1))?;
        let network = peers::set_up(name, kind, lab.node(1))?;
        let mut side = Self {
            name,
            network,
            pods: Vec::new(),
            lab,
        };
        if side.network.is_none() {
            side.pods = cabled(side.node(), "end", VETH)?;
        } else if kind != Kind::NoPods {
            side.add_pods(2)?;
        }
        Ok(side)
    }

    pub(crate) fn node(&self) -> &Node {
        self.lab.node(1)
    }

    pub(crate) fn lab(&self) -> &Lab {
        &self.lab
    }

    pub(crate) fn network(&self) -> Result<&Network> {
        let network = self.network.as_ref();
        network.with_context(|| format!("{} has no pods", self.name))
    }

    /// Adds pods until there are `count`.
    pub(crate) fn add_pods(&mut self, count: usize) -> Result<()> {
        let network = self.network()?.clone();
        while self.pods.len() < count {
            let mut pod = self.node().new_netns(&format!("pod{}", self.pods.len()))?;
            pod.add(&network)?;
            if self.name == SideName::Bridge {
                peers::bridged(self.node(), &pod)?;
            }
            self.pods.push(pod);
        }
        Ok(())
    }

    /// Client and server of a path. The host's own processes stand where other sides have pods; between two pods it is two
    /// namespaces with a cable: two processes of the node would talk over `lo`, which no two pods have.
    pub(crate) fn ends(&self, path: Path) -> Result<(End, End)> {
        let far = || {
            let node = self.lab.node(2);
            End::new(node, node.addr())
        };
        let ends = match path {
            Path::ToVnet => (self.end(0)?, far()),
            Path::FromVnet => (far(), self.end(0)?),
            Path::Local if self.name == SideName::Host => {
                let end = |number| {
                    let pod: &Pod = self.pods.get(number).context("a pod is missing")?;
                    at_cable(pod, number)
                };
                (end(0)?, end(1)?)
            }
            Path::Local => (self.end(0)?, self.end(1)?),
            Path::Internet => {
                let inet = self.lab.inet();
                (self.end(0)?, End::new(inet, inet.addr()))
            }
        };
        Ok(ends)
    }

    fn end(&self, number: usize) -> Result<End> {
        if self.name == SideName::Host {
            return Ok(End::new(self.node(), self.node().addr()));
        }
        let pod = self.pods.get(number).context("a pod is missing")?;
        Ok(End::new(pod, pod.addr()))
    }
}

/// At the ends of the cable.
const CABLE: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 241, 0, 1), Ipv4Addr::new(10, 241, 0, 2)];

/// What a cable is made of, as `ip link` has it.
pub(crate) const VETH: &str = "veth";

/// Two namespaces with nothing but a cable between them: the least that two pods can have.
pub(crate) fn cabled(node: &Node, name: &str, kind: &str) -> Result<Vec<Pod>> {
    let ends = [0, 1].map(|number| node.new_netns(&format!("{name}{number}")));
    let ends: Vec<Pod> = ends.into_iter().collect::<Result<_>>()?;
    node.ip(&format!("link add {name}0 type {kind} peer name {name}1"))?;
    for (number, (pod, address)) in ends.iter().zip(CABLE).enumerate() {
        let netns = pod.netns().display();
        node.ip(&format!("link set {name}{number} netns {netns}"))?;
        pod.ip(&format!(
            "addr add {address}/24 dev {name}{number}\nlink set {name}{number} up"
        ))?;
    }
    Ok(ends)
}

/// Who talks at one end of such a cable.
pub(crate) fn at_cable(pod: &Pod, number: usize) -> Result<End> {
    let address = CABLE.get(number).context("no address")?;
    Ok(End::new(pod, *address))
}
