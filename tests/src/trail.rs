//! What lies behind a network beyond the fabric? A router with a narrow link, and a host at its end.

use std::net::Ipv4Addr;

use anyhow::Result;

use crate::namespace::Namespace;
use crate::outside::Outside;

/// Two routers, the outside network itself and one behind it, and a host at the end. Vanishes when dropped.
#[derive(Debug)]
pub struct Trail {
    routers: [Ipv4Addr; 2],
    router: Namespace,
    end: Namespace,
    addr: Ipv4Addr,
}

impl Trail {
    /// The routers' addresses, the nearest first.
    pub fn routers(&self) -> [Ipv4Addr; 2] {
        self.routers
    }

    /// The second router.
    pub fn router(&self) -> &Namespace {
        &self.router
    }

    /// The host at the end.
    pub fn end(&self) -> &Namespace {
        &self.end
    }

    /// The address of the host at the end.
    pub fn addr(&self) -> Ipv4Addr {
        self.addr
    }
}

impl Outside {
    /// Builds a trail behind this network: the second router has address `router`, and its link to the host at `end` the
    /// MTU `mtu`, which the host announces to nobody: TCP has to discover it. Both addresses must lie in what the fabric sends
    /// here. Nobody on the way limits ICMP errors.
    pub fn trail(&self, router: Ipv4Addr, end: Ipv4Addr, mtu: u32) -> Result<Trail> {
        let first = self.addr();
        let trail = Trail {
            routers: [first, router],
            router: Namespace::network(&format!("{}-router", self.name()))?,
            end: Namespace::network(&format!("{}-end", self.name()))?,
            addr: end,
        };
        for namespace in [&**self, &trail.router, &trail.end] {
            namespace.sysctl("net.ipv4.ip_forward", "1")?;
            namespace.sysctl("net.ipv4.icmp_ratemask", "0")?;
        }
        let (to_router, to_end) = (trail.router.net_path(), trail.end.net_path());
        self.ip(&format!(
            "link add trail type veth peer name eth0 netns {to_router}\nlink set trail up\n\
             route add {router} dev trail\nroute add {end} via {router} dev trail\n"
        ))?;
        trail.router.ip(&format!(
            "link set lo up\nlink set eth0 up\naddr add {router}/32 dev eth0\nroute add {first} dev eth0\n\
             route add default via {first} dev eth0\n\
             link add trail mtu {mtu} type veth peer name eth0 mtu {mtu} netns {to_end}\n\
             link set trail up\nroute add {end} dev trail\n"
        ))?;
        trail.end.ip(&format!(
            "link set lo up\nlink set eth0 up\naddr add {end}/32 dev eth0\nroute add {router} dev eth0\n\
             route add default via {router} dev eth0 advmss 1460\n"
        ))?;
        Ok(trail)
    }
}
