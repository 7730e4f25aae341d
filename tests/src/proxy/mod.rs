//! What does kube-proxy install for a Service? The same rules in a node of the lab, in its iptables, nftables and IPVS shapes.

mod iptables;
mod ipvs;
mod nftables;

use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::Result;

use crate::node::Node;
use crate::vnet::SUBNET;

/// Which of kube-proxy's modes a node runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proxy {
    Iptables,
    Nftables,
    /// Needs a kernel with `CONFIG_IP_VS`, `ipset` and `ipvsadm`.
    Ipvs,
}

/// What kube-proxy knows of one port of a Service.
#[derive(Clone, Debug)]
pub struct Service {
    /// Part of the names of its chains: letters.
    pub name: String,
    pub cluster_ip: Ipv4Addr,
    pub port: u16,
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    pub node_port: Option<u16>,
    /// `externalTrafficPolicy: Local`: from outside only to backends of this node, with the client's address.
    pub local_only: bool,
    /// `sessionAffinity: ClientIP`, for three hours.
    pub session_affinity: bool,
    /// Addresses of load balancers and `externalIPs`.
    pub external_ips: Vec<Ipv4Addr>,
    pub backends: Vec<SocketAddrV4>,
}

impl Service {
    /// A TCP Service with a cluster IP.
    pub fn new(name: &str, cluster_ip: Ipv4Addr, port: u16) -> Self {
        Self {
            name: name.to_ascii_uppercase(),
            cluster_ip,
            port,
            protocol: "tcp",
            node_port: None,
            local_only: false,
            session_affinity: false,
            external_ips: Vec::new(),
            backends: Vec::new(),
        }
    }

    #[must_use]
    pub fn udp(mut self) -> Self {
        self.protocol = "udp";
        self
    }

    #[must_use]
    pub fn backend(mut self, addr: Ipv4Addr, port: u16) -> Self {
        self.backends.push(SocketAddrV4::new(addr, port));
        self
    }

    #[must_use]
    pub fn node_port(mut self, port: u16) -> Self {
        self.node_port = Some(port);
        self
    }

    #[must_use]
    pub fn local_only(mut self) -> Self {
        self.local_only = true;
        self
    }

    #[must_use]
    pub fn session_affinity(mut self) -> Self {
        self.session_affinity = true;
        self
    }

    /// An `externalIPs` entry, or the address of a load balancer.
    #[must_use]
    pub fn external_ip(mut self, addr: Ipv4Addr) -> Self {
        self.external_ips.push(addr);
        self
    }
}

/// Pods' addresses, `--cluster-cidr`: who comes from elsewhere to a cluster IP is masqueraded.
const CLUSTER_CIDR: &str = SUBNET;
/// Seconds of session affinity.
const AFFINITY: u32 = 10_800;

impl Node {
    /// Installs what kube-proxy would for these Services. Once per node.
    pub fn proxy(&self, proxy: Proxy, services: &[Service]) -> Result<()> {
        let local = self.secondaries()?;
        let iptables = &["iptables-restore", "--noflush"];
        match proxy {
            Proxy::Iptables => self.script(iptables, &iptables::rules(services, &local)),
            Proxy::Nftables => self.nft(&nftables::rules(services, &local, self.addr())),
            Proxy::Ipvs => {
                let servers = ipvs::servers(services, &local, self.addr());
                // The first loads the module that has the settings.
                self.script(&["ipvsadm", "--restore"], &servers)?;
                for (key, value) in ipvs::SETTINGS {
                    self.sysctl(key, value)?;
                }
                self.script(&["ipset", "restore"], &ipvs::sets(services, self.addr()))?;
                self.script(iptables, &ipvs::rules())?;
                self.ip(&ipvs::addresses(services))
            }
        }
    }
}

impl Service {
    /// Backends that traffic from outside may reach, by their number.
    fn external_backends(&self, local: &[Ipv4Addr]) -> Vec<usize> {
        let numbered = self.backends.iter().enumerate();
        let allowed = numbered.filter(|(_, at)| !self.local_only || local.contains(at.ip()));
        allowed.map(|(number, _)| number).collect()
    }

    fn has_external(&self) -> bool {
        self.node_port.is_some() || !self.external_ips.is_empty()
    }
}
