//! How does a test get its virtual network?

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};

use crate::fabric::{Beyond, Fabric};
use crate::namespace::Namespace;
use crate::node::Node;
use crate::outside::Outside;
use crate::platform::{IMDS, Platform, WIRESERVER};
use crate::process;
use crate::reap::{Guardian, kill_inside};
use crate::root;
use crate::vnet::{Nic, Vnet};
use std::net::Ipv4Addr;

/// The conflist of the plug-in's documentation, byte for byte.
pub const AZURE_CONFLIST: &str = include_str!("azure.conflist");

/// Where `cargo xtask build` leaves the product's binaries unless told otherwise.
fn product_dir() -> PathBuf {
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../target")
        .join(triple)
        .join("release")
}

/// Where `cargo xtask build-next` leaves the next version's loader unless told otherwise.
fn next_dir() -> PathBuf {
    let told = std::env::var_os("AZURE_VNET_NEXT_DIR").map(PathBuf::from);
    told.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/next"))
}

/// An address of `inet` behind a hop with an MTU of 1400.
pub const NARROW: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 20);

/// A simulated Azure virtual network on one machine. Everything in it ends with it.
#[derive(Debug)]
pub struct Lab {
    nodes: Vec<Node>,
    fabric: Arc<Fabric>,
    platform: Platform,
    inet: Outside,
    peer: Outside,
    onprem: Outside,
    guardian: Option<Guardian>,
}

/// What the virtual network shall be like.
#[derive(Clone, Debug)]
pub struct LabBuilder {
    nodes: u8,
    secondaries: u16,
    mtu: u32,
    binaries: PathBuf,
    conflist: String,
    record: bool,
}

impl Lab {
    /// Starts to describe a lab: two nodes with 32 secondary addresses each unless said otherwise.
    #[expect(
        clippy::new_ret_no_self,
        reason = "Lab::new().nodes(2).build() reads as it works"
    )]
    pub fn new() -> LabBuilder {
        let binaries = std::env::var_os("AZURE_VNET_BIN_DIR");
        LabBuilder {
            nodes: 2,
            secondaries: 32,
            mtu: 1500,
            binaries: binaries.map_or_else(product_dir, PathBuf::from),
            conflist: AZURE_CONFLIST.to_owned(),
            record: true,
        }
    }

    /// Node `number`, from 1.
    #[track_caller]
    #[expect(
        clippy::panic,
        reason = "a test that asks for a node it did not order is wrong"
    )]
    pub fn node(&self, number: usize) -> &Node {
        let index = number.wrapping_sub(1);
        self.nodes
            .get(index)
            .unwrap_or_else(|| panic!("the lab has no node {number}"))
    }

    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    pub fn fabric(&self) -> &Fabric {
        &self.fabric
    }

    pub fn platform(&self) -> &Platform {
        &self.platform
    }

    /// The Internet: 203.0.113.10, 198.51.100.10 and [`NARROW`]. Accepts only nodes' primary addresses.
    pub fn inet(&self) -> &Outside {
        &self.inet
    }

    /// 10.50.0.4 in the peered virtual network 10.50.0.0/16.
    pub fn peer(&self) -> &Outside {
        &self.peer
    }

    /// 192.168.0.4 in the network 192.168.0.0/16 over VPN.
    pub fn onprem(&self) -> &Outside {
        &self.onprem
    }

    /// Every namespace of the lab except the pods'.
    pub fn namespaces(&self) -> Vec<&Namespace> {
        let others: [&Namespace; 5] = [
            &self.fabric,
            &self.platform,
            &self.inet,
            &self.peer,
            &self.onprem,
        ];
        self.nodes
            .iter()
            .map(|node| &**node)
            .chain(others)
            .collect()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            crate::dump::print(self);
        }
        for node in &self.nodes {
            node.loader().stop();
        }
        kill_inside(&self.namespaces());
    }
}

impl LabBuilder {
    #[must_use]
    pub fn nodes(mut self, count: u8) -> Self {
        self.nodes = count;
        self
    }

    /// Secondary addresses of each node: node n has 10.240.n.10 and the following ones. A lab of one node has room for 1000.
    #[must_use]
    pub fn secondaries(mut self, count: u16) -> Self {
        self.secondaries = count;
        self
    }

    /// Of every NIC and port.
    #[must_use]
    pub fn mtu(mut self, mtu: u32) -> Self {
        self.mtu = mtu;
        self
    }

    /// The directory of the product's binaries, instead of `AZURE_VNET_BIN_DIR`.
    #[must_use]
    pub fn binaries(mut self, directory: impl AsRef<Path>) -> Self {
        directory.as_ref().clone_into(&mut self.binaries);
        self
    }

    /// The nodes' conflist, instead of [`AZURE_CONFLIST`].
    #[must_use]
    pub fn conflist(mut self, text: &str) -> Self {
        text.clone_into(&mut self.conflist);
        self
    }

    /// Whether the fabric records frames for [`Fabric::seen`] and the dump; `false` for benchmarks.
    #[must_use]
    pub fn record(mut self, record: bool) -> Self {
        self.record = record;
        self
    }

    /// Builds the virtual network.
    pub fn build(&self) -> Result<Lab> {
        ensure!((1..=200).contains(&self.nodes), "a lab has 1 to 200 nodes");
        ensure!(
            self.secondaries <= if self.nodes == 1 { 1000 } else { 240 },
            "a node has at most 240 secondary addresses, 1000 when it is alone"
        );
        process::prepare();
        let vnet = Arc::new(Vnet::new(
            (1..=self.nodes)
                .map(|n| Nic::of_node(n, self.secondaries))
                .collect(),
        ));
        let nodes: Vec<_> = vnet
            .nics()
            .into_iter()
            .map(|nic| Ok((self.machine(&nic)?, nic)))
            .collect::<Result<_>>()?;

        let mut platform = Platform::new(&vnet)?;
        let internet = [[203, 0, 113, 10], [198, 51, 100, 10]].map(Ipv4Addr::from);
        let mut inet = Outside::new("inet", &[internet[0], internet[1], NARROW])?;
        let mut peer = Outside::new("peer", &[Ipv4Addr::new(10, 50, 0, 4)])?;
        let mut onprem = Outside::new("onprem", &[Ipv4Addr::new(192, 168, 0, 4)])?;
        let beyond = [
            Beyond::new(&platform, &[], &[WIRESERVER, IMDS]),
            Beyond {
                narrow: &[(NARROW, 1400)],
                ..Beyond::new(
                    &inet,
                    &["203.0.113.0/24", "198.51.100.0/24"],
                    inet.addresses(),
                )
            },
            Beyond::new(&peer, &["10.50.0.0/16"], peer.addresses()),
            Beyond::new(&onprem, &["192.168.0.0/16"], onprem.addresses()),
        ];
        let fabric = Fabric::build(&vnet, &nodes, &beyond, self.mtu, self.record)
            .context("build the fabric")?;
        let fabric = Arc::new(fabric);
        platform.serve().context("serve the platform's addresses")?;
        for outside in [&mut inet, &mut peer, &mut onprem] {
            outside.serve().context("serve beyond the fabric")?;
        }
        let nodes = nodes
            .into_iter()
            .map(|(namespace, nic)| Node::new(namespace, nic, &fabric))
            .collect();
        let mut lab = Lab {
            nodes,
            fabric,
            platform,
            inet,
            peer,
            onprem,
            guardian: None,
        };
        lab.guardian = Some(Guardian::start(&lab.namespaces())?);
        Ok(lab)
    }

    fn machine(&self, nic: &Nic) -> Result<Namespace> {
        let contents = root::Contents {
            hostname: &nic.node,
            address: nic.primary,
            binaries: &self.binaries,
            next: &next_dir(),
            conflist: &self.conflist,
        };
        Namespace::machine(&nic.node, || root::make(&contents))
    }
}
