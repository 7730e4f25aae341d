//! What can a hostile pod send, and where does it arrive? Every frame is made by hand and sent out of the pod's own
//! interface; what comes of it is captured wherever it could surface.
#![cfg(test)]

mod cases;
mod forge;
mod matrix;
mod observers;
mod restart;
mod shapes;
mod wire;
mod wireserver;

use std::net::Ipv4Addr;
use std::time::Duration;

use lab::{IMDS, Ipv4, Lab, Mac, Pod, Sender, WIRESERVER};

type Result<T = ()> = anyhow::Result<T>;

/// How long a packet may take that must come.
const SOON: Duration = Duration::from_secs(3);

/// Two nodes; on the first the hostile pod and its neighbour, on the second a pod far away.
struct Scene {
    /// Sends whatever it likes.
    pod: Pod,
    near: Pod,
    far: Pod,
    lab: Lab,
}

/// Whom a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Near,
    Node,
    Far,
    Wireserver,
    Imds,
}

impl Target {
    const ALL: [Self; 5] = [
        Self::Near,
        Self::Node,
        Self::Far,
        Self::Wireserver,
        Self::Imds,
    ];
}

impl Scene {
    fn new() -> Result<Self> {
        let lab = Lab::new().nodes(2).build()?;
        for node in lab.nodes() {
            node.start_loader()?;
        }
        Ok(Self {
            pod: lab.node(1).add_pod("hostile")?,
            near: lab.node(1).add_pod("near")?,
            far: lab.node(2).add_pod("far")?,
            lab,
        })
    }

    fn addr(&self, target: Target) -> Ipv4Addr {
        match target {
            Target::Near => self.near.addr(),
            Target::Node => self.lab.node(1).addr(),
            Target::Far => self.far.addr(),
            Target::Wireserver => WIRESERVER,
            Target::Imds => IMDS,
        }
    }

    /// The source that the target sees of what the pod sends.
    fn source(&self, target: Target) -> Ipv4Addr {
        match target {
            Target::Imds => self.lab.node(1).addr(),
            Target::Near | Target::Node | Target::Far | Target::Wireserver => self.pod.addr(),
        }
    }

    fn ends(&self, target: Target) -> Result<Ends> {
        let (host_mac, mac) = self.pod.macs()?;
        Ok(Ends {
            own: self.pod.addr(),
            mac,
            host_mac,
            neighbour: self.near.addr(),
            neighbour_mac: self.near.macs()?.1,
            node: self.lab.node(1).addr(),
            to: self.addr(target),
            port: 4000,
        })
    }

    /// What sends frames out of the pod.
    fn sender(&self) -> Result<Sender> {
        self.pod.sender("eth0")
    }
}

/// The addresses that frames are made of.
struct Ends {
    /// The pod's own.
    own: Ipv4Addr,
    mac: Mac,
    /// Of the host's end of the pod's cable.
    host_mac: Mac,
    /// Of the pod that it would like to be.
    neighbour: Ipv4Addr,
    neighbour_mac: Mac,
    node: Ipv4Addr,
    /// The target.
    to: Ipv4Addr,
    /// The pod's port of honest packets.
    port: u16,
}

impl Ends {
    /// An honest datagram to the target.
    fn honest(&self, data: &[u8]) -> Ipv4 {
        Ipv4::udp((self.own, self.port), (self.to, 7777), data)
    }

    /// The packet in a frame as the pod's kernel would make it.
    fn frame(&self, packet: &Ipv4) -> Vec<u8> {
        packet.framed(self.host_mac, self.mac)
    }
}
