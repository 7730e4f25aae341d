//! Does the data path live beside what else works on a node's packets? kube-proxy in both shapes, portmap, NodeLocal DNS,
//! rules that masquerade, foreign tc programs, and connections that the kernel translated before the programs came.
//!
//! `docs/coexistence.md` says which test belongs to which neighbour.
#![cfg(test)]

mod filters;
mod neighbours;
mod portmap;
mod preload;
mod programs;
mod proxy;

use std::net::Ipv4Addr;

use lab::{EchoServer, Lab, Node, Pod, paths_during};

type Result<T = ()> = anyhow::Result<T>;

/// The Services' port, and the pods'.
const PORT: u16 = 80;
const TARGET: u16 = 8080;

const CLUSTER_IP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 10);

/// Two nodes with loaders; pods `client` and `local` on the first, `remote` on the second, all with an echo server.
struct Scene {
    client: Pod,
    local: Pod,
    remote: Pod,
    _servers: Vec<EchoServer>,
    lab: Lab,
}

impl Scene {
    fn new() -> Result<Self> {
        Self::with("")
    }

    /// The same with this configuration of the loaders.
    fn with(loader_yaml: &str) -> Result<Self> {
        let lab = Lab::new().nodes(2).build()?;
        for node in lab.nodes() {
            node.write("/etc/azure-vnet/loader.yaml", loader_yaml)?;
            node.start_loader()?;
        }
        let (client, local) = (
            lab.node(1).add_pod("client")?,
            lab.node(1).add_pod("local")?,
        );
        let remote = lab.node(2).add_pod("remote")?;
        let servers = [&client, &local, &remote].map(|pod| pod.serve_echo(TARGET));
        Ok(Self {
            client,
            local,
            remote,
            _servers: servers.into_iter().collect::<Result<_>>()?,
            lab,
        })
    }

    fn node(&self) -> &Node {
        self.lab.node(1)
    }
}
