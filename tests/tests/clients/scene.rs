//! Two nodes with loaders, a neighbour on each, and what a pod of the first must reach.

use std::net::Ipv4Addr;

use lab::{EchoServer, Lab, Namespace, Pod};

pub(crate) struct Scene {
    pub(crate) lab: Lab,
    neighbours: [(Pod, EchoServer); 2],
}

/// A port that pods of the tests answer on.
const PORT: u16 = 8081;

impl Scene {
    pub(crate) fn new() -> Self {
        Self::with(lab::AZURE_CONFLIST)
    }

    pub(crate) fn with(conflist: &str) -> Self {
        let lab = Lab::new().nodes(2).conflist(conflist).build().unwrap();
        let neighbours = [1, 2].map(|number| {
            let node = lab.node(number);
            node.start_loader().unwrap();
            let pod = node.add_pod("neighbour").unwrap();
            let echo = pod.serve_echo(80).unwrap();
            (pod, echo)
        });
        Self { lab, neighbours }
    }

    /// Pods on both nodes, there and back, by the pod's own address; the Internet by the node's.
    #[track_caller]
    pub(crate) fn assert_reaches_all(&self, pod: &Namespace, address: Ipv4Addr) {
        let echo = pod.serve_echo(PORT).unwrap();
        for (neighbour, _echo) in &self.neighbours {
            let seen = pod.tcp(neighbour.addr(), 80).unwrap().peer_ip();
            assert_eq!(seen, address, "{} asked by TCP", neighbour.name());
            let seen = pod.udp(neighbour.addr(), 80).unwrap().peer_ip();
            assert_eq!(seen, address, "{} asked by UDP", neighbour.name());
            let seen = neighbour.tcp(address, PORT).unwrap().peer_ip();
            assert_eq!(seen, neighbour.addr(), "{} asks", neighbour.name());
        }
        let inet = self.lab.inet().addr();
        assert_eq!(
            pod.tcp(inet, 8080).unwrap().peer_ip(),
            self.lab.node(1).addr()
        );
        drop(echo);
    }
}
