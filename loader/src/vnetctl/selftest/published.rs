//! The paths through a port of the node that stands for pod a's, as a Service's does: the kernel translates, to the pod itself too.

use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::Selftest;
use super::paths::SMALL;
use super::place::{Place, TestPod};
use super::probe::{tcp_by, udp_by};

/// The pod's; nobody else is in its namespace.
const SERVER: u16 = 8080;
/// Ports that are looked at until one is free for both protocols.
const TRIES: usize = 16;

/// A port of the node.
#[derive(Clone, Copy)]
pub(super) struct Published {
    pub(super) host: u16,
}

impl Published {
    /// One that nobody has.
    pub(super) fn find() -> Result<Self> {
        let any = Ipv4Addr::UNSPECIFIED;
        let free = || {
            let host = TcpListener::bind((any, 0)).ok()?.local_addr().ok()?.port();
            UdpSocket::bind((any, host)).ok()?;
            Some(Self { host })
        };
        (0..TRIES)
            .find_map(|_| free())
            .context("find a free port of the node")
    }

    /// As a runtime tells of it.
    pub(super) fn mappings(self) -> Value {
        let mapping = |protocol| json!({"hostPort": self.host, "containerPort": SERVER, "protocol": protocol});
        [mapping("tcp"), mapping("udp")].into()
    }
}

impl Selftest {
    pub(super) fn published(
        &mut self,
        one: &TestPod,
        other: &TestPod,
        node: Ipv4Addr,
        Published { host }: Published,
    ) {
        let (a, b) = (Place::Pod(one), Place::Pod(other));
        let Ok(address) = one.address() else { return };
        let server = SocketAddrV4::new(address, SERVER);
        let by = Some(SocketAddrV4::new(node, host));
        let tcp = |from| tcp_by(from, a, server, by).map(|client| format!("from {client}"));
        let udp = |from| udp_by(from, a, server, by, SMALL).map(|client| format!("from {client}"));
        self.step("node to pod a's host port, TCP", || tcp(Place::Node));
        self.step("pod b to pod a's host port, TCP", || tcp(b));
        self.step("pod b to pod a's host port, UDP", || udp(b));
        self.step("pod a to its own host port, TCP", || tcp(a));
        self.step("pod a to its own host port, UDP", || udp(a));
    }
}
