//! Two nodes with loaders, a neighbour on each, and what a pod of the first must reach.

use std::net::Ipv4Addr;

use std::sync::LazyLock;

use lab::{AZURE_CONFLIST, EchoServer, Lab, Namespace, Pod, Snapshot};

/// For runtimes that do not say which pod they add.
pub(crate) static WITHOUT_KUBERNETES: LazyLock<String> = LazyLock::new(|| {
    let ours = "\"type\":\"azure-vnet\",";
    let allowed = AZURE_CONFLIST.replace(ours, &format!("{ours} \"allowNonKubernetes\": true,"));
    assert_ne!(allowed, AZURE_CONFLIST);
    allowed
});

/// The list with the host veths named after the pods.
pub(crate) fn transparent(conflist: &str) -> String {
    let changed = conflist.replace("\"mode\":\"bridge\"", "\"mode\":\"transparent\"");
    assert_ne!(changed, conflist);
    changed
}

/// Files that the runtimes keep, or make once.
const RUNTIMES: [&str; 8] = [
    "/containerd/",
    "/containers/",
    "/cni/results/",
    "/podman-storage/",
    "/libpod/",
    "/run/azure-vnet-docker/",
    "/run/runc/",
    "/var/lib/cni/",
];

pub(crate) struct Scene {
    pub(crate) lab: Lab,
    neighbours: [(Pod, EchoServer); 2],
}

/// A port that pods of the tests answer on.
const PORT: u16 = 8081;

impl Scene {
    pub(crate) fn new() -> Self {
        Self::with(AZURE_CONFLIST)
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

    /// What pods of the first node have left there since, but for the runtimes' own files.
    pub(crate) fn left(&self, before: &Snapshot) -> Vec<String> {
        let now = self.lab.node(1).snapshot().unwrap();
        let runtimes = |line: &String| RUNTIMES.iter().any(|part| line.contains(part));
        let left = before.left(&now).into_iter();
        left.filter(|line| !runtimes(line)).collect()
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

/// The address of the pod's interface, for runtimes that do not tell it.
pub(crate) fn address_of(pod: &Namespace) -> Ipv4Addr {
    let shown = pod.exec(&["ip", "-j", "address", "show", "eth0"]).unwrap();
    let links: serde_json::Value = serde_json::from_str(&shown).unwrap();
    let address = links[0]["addr_info"][0]["local"].as_str().unwrap();
    address.parse().unwrap()
}
