//! Is the data path a correct router? Fragments, ICMP errors, path MTU, hops, TTL, options and other protocols, for flows
//! with the pod's own address, with the node's (SNAT), and through kube-proxy's kind of rules.
#![cfg(test)]

mod errors;
mod fragments;
mod hops;
mod link_mtu;
mod next_hop;
mod path_mtu;
mod protocols;
mod sizes;

use std::net::Ipv4Addr;
use std::time::Duration;

use lab::{Capture, Ipv4, Lab, Node, Pod, Trail};

type Result<T = ()> = anyhow::Result<T>;

/// How long a packet may take that must come.
const SOON: Duration = Duration::from_secs(3);

/// The MTU of the last link behind the Internet and behind the peered network.
const NARROW: u32 = 1400;

/// A pod on node 1, and what lies behind the Internet (SNAT) and behind the peered network (the pod's own address).
struct Scene {
    pod: Pod,
    internet: Trail,
    peered: Trail,
    lab: Lab,
}

impl Scene {
    fn new() -> Result<Self> {
        let lab = started(&Lab::new().nodes(1))?;
        let pod = lab.node(1).add_pod("web")?;
        for namespace in [&*pod, lab.node(1), lab.fabric()] {
            namespace.sysctl("net.ipv4.icmp_ratemask", "0")?;
        }
        let address = Ipv4Addr::new;
        let (inet, peer) = (lab.inet(), lab.peer());
        Ok(Self {
            pod,
            internet: inet.trail(address(203, 0, 113, 129), address(198, 51, 100, 30), NARROW)?,
            peered: peer.trail(address(10, 50, 0, 129), address(10, 50, 1, 4), NARROW)?,
            lab,
        })
    }

    fn node(&self) -> &Node {
        self.lab.node(1)
    }

    /// Both trails, and the address by which what is behind them sees the pod.
    fn trails(&self) -> [(&Trail, Ipv4Addr); 2] {
        [
            (&self.internet, self.node().addr()),
            (&self.peered, self.pod.addr()),
        ]
    }
}

/// A lab whose nodes run loaders that know of the peered virtual network.
fn started(builder: &lab::LabBuilder) -> Result<Lab> {
    let lab = builder.build()?;
    for node in lab.nodes() {
        node.write("/etc/azure-vnet/loader.yaml", "vnetCidrs: [10.50.0.0/16]\n")?;
        node.start_loader()?;
    }
    Ok(lab)
}

/// The first captured packet that `like` accepts.
#[track_caller]
fn arrived(capture: &Capture, what: &str, like: impl Fn(&Ipv4) -> bool) -> Ipv4 {
    let frame = capture.wait_for(SOON, |frame| {
        Ipv4::of_frame(frame).is_some_and(|p| like(&p))
    });
    let packet = frame.as_deref().and_then(Ipv4::of_frame);
    packet.unwrap_or_else(|| panic!("{what} did not arrive"))
}
