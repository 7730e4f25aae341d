//! Who sees what comes of a frame? Captures in the pods, on the NIC and at the platform, and the node's own sockets.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::net::Ipv4Addr;

use lab::{Capture, Ipv4, Mac, frame};
use serde_json::Value;
use socket2::{Domain, Protocol, Socket, Type};

use crate::{Result, SOON, Scene, Target};

/// TCP, UDP, ICMP, IPIP, GRE.
const PROTOCOLS: [i32; 5] = [6, 17, 1, 4, 47];

/// Everything that can see a packet that the hostile pod sent.
pub(crate) struct Observers {
    near: Capture,
    far: Capture,
    platform: Capture,
    nic: Capture,
    /// What the node itself is delivered.
    node: Vec<Socket>,
    to_node: Vec<Vec<u8>>,
}

/// Packets dropped by reason.
pub(crate) type Drops = BTreeMap<String, u64>;

/// What the first node has dropped up to now.
pub(crate) fn drops(scene: &Scene) -> Result<Drops> {
    let status = scene.lab.node(1).status()?;
    let counters = status["drops"].as_object().into_iter().flatten();
    let counted =
        |(reason, counter): (&String, &Value)| Some((reason.clone(), counter["packets"].as_u64()?));
    Ok(counters.filter_map(counted).collect())
}

impl Observers {
    pub(crate) fn new(scene: &Scene) -> Result<Self> {
        let node = scene.lab.node(1);
        let raw = |protocol| {
            let protocol = Some(Protocol::from(protocol));
            let socket = Socket::new(Domain::IPV4, Type::RAW, protocol)?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        Ok(Self {
            near: scene.near.capture("eth0")?,
            far: scene.far.capture("eth0")?,
            platform: scene.lab.platform().capture("eth0")?,
            nic: node.capture("eth0")?,
            node: node.run(|| PROTOCOLS.into_iter().map(raw).collect())?,
            to_node: Vec::new(),
        })
    }

    /// Takes what the node has been delivered out of the sockets, as frames without addresses.
    fn drain(&mut self) {
        let mut buffer = [0; 4096];
        for socket in &mut self.node {
            while let Ok(length) = socket.read(&mut buffer) {
                let mut packet = buffer.get(..length).unwrap_or_default().to_vec();
                // The kernel writes itself into a recorded route and leaves the checksum as it was.
                let header = usize::from(packet[0] & 0xf) * 4;
                packet.splice(10..12, [0; 2]);
                let sum = frame::checksum(&packet[..header]);
                packet.splice(10..12, sum.to_be_bytes());
                let nobody = Mac([0; 6]);
                self.to_node
                    .push(frame::ethernet(nobody, nobody, frame::IPV4, &packet));
            }
        }
    }

    /// The sources of packets that carry the mark, wherever they surfaced; 0.0.0.0 for what is no plain IPv4.
    pub(crate) fn sources(&mut self, mark: &[u8]) -> Vec<Ipv4Addr> {
        self.drain();
        let captures = [&self.near, &self.far, &self.platform, &self.nic];
        let captured = captures.map(|capture| capture.find(|frame| carried(frame, mark)));
        let to_node = self.to_node.iter().filter_map(|frame| carried(frame, mark));
        captured.into_iter().flatten().chain(to_node).collect()
    }

    /// Waits until the target has a packet that carries the mark; its source.
    pub(crate) fn arrival(&mut self, target: Target, mark: &[u8]) -> Option<Ipv4Addr> {
        let capture = match target {
            Target::Near => &self.near,
            Target::Far => &self.far,
            Target::Wireserver | Target::Imds => &self.platform,
            Target::Node => return self.arrival_at_node(mark),
        };
        let frame = capture.wait_for(SOON, |frame| carried(frame, mark).is_some())?;
        carried(&frame, mark)
    }

    fn arrival_at_node(&mut self, mark: &[u8]) -> Option<Ipv4Addr> {
        let deadline = lab::Deadline::after(SOON);
        loop {
            self.drain();
            let found = self.to_node.iter().find_map(|seen| carried(seen, mark));
            if found.is_some() || deadline.passed() {
                return found;
            }
        }
    }
}

/// The source of the packet in the frame, if it carries the mark and is not somebody's ICMP error about it.
fn carried(frame: &[u8], mark: &[u8]) -> Option<Ipv4Addr> {
    frame
        .windows(mark.len())
        .any(|bytes| bytes == mark)
        .then_some(())?;
    match Ipv4::of_frame(frame) {
        Some(packet) if packet.quoted().is_some() => None,
        Some(packet) => Some(packet.src),
        None => Some(Ipv4Addr::UNSPECIFIED),
    }
}
