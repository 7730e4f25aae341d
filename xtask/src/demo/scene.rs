//! The scene: two nodes with their loaders, and four pods that the real `azure-vnet` made.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};
use lab::{EchoServer, Lab, Node, Pod, Snapshot, keep};
use serde_json::Value;

use super::table::Table;
use crate::workspace;

/// Where pods answer.
pub(crate) const PORT: u16 = 80;
/// Secondary addresses of each node's NIC: enough for a hundred ADDs within the cool-down of 30 s.
const ADDRESSES: u16 = 200;
/// The peered VNet is the one thing that nobody but the operator can tell the node.
const LOADER_YAML: &str = "vnetCidrs: [10.50.0.0/16]\n";

/// Pods `web` and `db` live on node 1, `api` and `log` on node 2.
pub(crate) struct Scene {
    pub(crate) lab: Lab,
    pub(crate) web: Pod,
    pub(crate) db: Pod,
    pub(crate) api: Pod,
    pub(crate) log: Pod,
    /// Node 1 before its first pod.
    pub(crate) before: Snapshot,
    pub(crate) servers: Vec<EchoServer>,
}

impl Scene {
    pub(crate) fn set(table: &mut Table) -> Result<Self> {
        let lab = Lab::new()
            .nodes(2)
            .secondaries(ADDRESSES)
            .binaries(workspace::product_dir())
            .build()
            .context("bring up the lab")?;
        for node in lab.nodes() {
            node.write("/etc/azure-vnet/loader.yaml", LOADER_YAML)?;
            node.start_loader()?;
        }
        let before = lab.node(1).snapshot()?;
        let (web, db) = (lab.node(1).add_pod("web")?, lab.node(1).add_pod("db")?);
        let (api, log) = (lab.node(2).add_pod("api")?, lab.node(2).add_pod("log")?);
        let mut servers = Vec::new();
        for pod in [&web, &db, &api, &log] {
            servers.push(pod.serve_echo(PORT)?);
        }
        let scene = Self {
            lab,
            web,
            db,
            api,
            log,
            before,
            servers,
        };
        table.holds(
            "four pods added from the documented conflist",
            "4 VNet addresses",
            scene.addresses(),
        );
        Ok(scene)
    }

    /// Every pod has an address out of its node's pool, none the node's own.
    fn addresses(&self) -> Result<(bool, String)> {
        let mut good = true;
        let mut seen = Vec::new();
        for (pod, node) in [
            (&self.web, 1),
            (&self.db, 1),
            (&self.api, 2),
            (&self.log, 2),
        ] {
            let node = self.lab.node(node);
            good &= node.secondaries()?.contains(&pod.addr()) && pod.addr() != node.addr();
            seen.push(pod.addr().to_string());
        }
        seen.dedup();
        Ok((good && seen.len() == 4, seen.join(" ")))
    }

    pub(crate) fn node(&self) -> &Node {
        self.lab.node(1)
    }

    /// `vnetctl status -o json` on node 1.
    pub(crate) fn status(&self) -> Result<Value> {
        let text = self.node().exec(&["vnetctl", "status", "-o", "json"])?;
        serde_json::from_str(&text).context("parse what vnetctl printed")
    }

    /// Packets that node 1 dropped for `reason`.
    pub(crate) fn dropped(&self, reason: &str) -> Result<u64> {
        let status = self.status()?;
        Ok(status
            .pointer(&format!("/drops/{reason}/packets"))
            .and_then(Value::as_u64)
            .unwrap_or(0))
    }

    pub(crate) fn internet(&self) -> Ipv4Addr {
        self.lab.inet().addr()
    }

    /// How to enter the pods and what to try, for `--keep`.
    pub(crate) fn explain(&self) {
        println!("\nThe lab stays up until `cargo xtask demo --down`. Enter with:");
        for (name, line) in keep::entrances(&self.lab, &[&self.web, &self.db, &self.api, &self.log])
        {
            println!("  {name:<22} {line}");
        }
        let (db, api, internet) = (self.db.addr(), self.api.addr(), self.internet());
        println!("Try, in pod web:   ping -c1 {db}; ping -c1 {api}; ping -c1 {internet}");
        println!(
            "Try, in node1:     /opt/azure-vnet/bin/vnetctl status; conntrack -L; nft list ruleset; tail /var/log/azure-vnet.log"
        );
        println!("                   bpftool map dump pinned /sys/fs/bpf/azure-vnet/v1/maps/snat");
    }

    /// The lab, and what lives in it as long as somebody holds it.
    pub(crate) fn into_parts(self) -> (Lab, ([Pod; 4], Vec<EchoServer>)) {
        (
            self.lab,
            ([self.web, self.db, self.api, self.log], self.servers),
        )
    }
}
