//! What else works on a node's packets? Rules of ip-masq-agent, the documented MASQUERADE rule, NodeLocal DNS.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};

use crate::dns::Resolver;
use crate::node::Node;
use crate::service::{Service, Sockets};
use crate::vnet::SUBNET;

/// Where NodeLocal DNS listens.
pub const NODE_LOCAL_DNS: Ipv4Addr = Ipv4Addr::new(169, 254, 20, 10);

/// NodeLocal DNS on a node; it stops on drop, its rules stay.
#[derive(Debug)]
pub struct NodeLocalDns {
    _resolver: Service,
}

impl Node {
    /// Installs the chain that ip-masq-agent keeps: everything that leaves is masqueraded, but for these destinations, to
    /// which link-local ones belong unless `masq_link_local`.
    pub fn ip_masq_agent(&self, not: &[&str], masq_link_local: bool) -> Result<()> {
        let link_local = (!masq_link_local).then_some("169.254.0.0/16");
        let mut rules = String::from(
            "*nat\n:IP-MASQ-AGENT - [0:0]\n\
             -A POSTROUTING -m addrtype ! --dst-type LOCAL -j IP-MASQ-AGENT\n",
        );
        for cidr in link_local.iter().chain(not) {
            writeln!(
                rules,
                "-A IP-MASQ-AGENT -d {cidr} -m addrtype ! --dst-type LOCAL -j RETURN"
            )?;
        }
        rules += "-A IP-MASQ-AGENT -m addrtype ! --dst-type LOCAL -j MASQUERADE --random-fully\nCOMMIT\n";
        self.iptables(&rules)
    }

    /// Installs the rule that azure-vnet's documentation asks for.
    pub fn documented_masquerade(&self) -> Result<()> {
        self.iptables(&format!(
            "*nat\n-A POSTROUTING -m iprange ! --dst-range 168.63.129.16 -m addrtype ! --dst-type local ! -d {SUBNET} \
             -j MASQUERADE\nCOMMIT\n"
        ))
    }

    /// Starts NodeLocal DNS: an interface with its address, rules that keep its packets out of connection tracking, and a
    /// resolver that answers every name with the client's address.
    pub fn node_local_dns(&self) -> Result<NodeLocalDns> {
        // node-cache makes a dummy interface, which not every kernel has; any interface that leads nowhere will do.
        self.ip(&format!(
            "link add nodelocaldns type veth peer name nodelocalpeer\nlink set nodelocaldns up\n\
             addr add {NODE_LOCAL_DNS}/32 dev nodelocaldns\n"
        ))?;
        let (mut raw, mut filter) = (String::from("*raw\n"), String::from("*filter\n"));
        for protocol in ["udp", "tcp"] {
            for (chain, address, port) in [
                ("PREROUTING", "-d", "--dport"),
                ("OUTPUT", "-d", "--dport"),
                ("OUTPUT", "-s", "--sport"),
            ] {
                writeln!(
                    raw,
                    "-A {chain} {address} {NODE_LOCAL_DNS}/32 -p {protocol} -m {protocol} {port} 53 -j NOTRACK"
                )?;
            }
            for (chain, address, port) in [("INPUT", "-d", "--dport"), ("OUTPUT", "-s", "--sport")]
            {
                writeln!(
                    filter,
                    "-A {chain} {address} {NODE_LOCAL_DNS}/32 -p {protocol} -m {protocol} {port} 53 -j ACCEPT"
                )?;
            }
        }
        self.iptables(&format!("{raw}COMMIT\n{filter}COMMIT\n"))?;
        let at = [(NODE_LOCAL_DNS, 53)];
        let sockets = Sockets::default().tcp(self, &at)?.udp(self, &at)?;
        Ok(NodeLocalDns {
            _resolver: Service::start("node-local-dns", sockets, Resolver)?,
        })
    }

    /// Adds rules, as `iptables-save` writes them, to those that are there.
    pub fn iptables(&self, rules: &str) -> Result<()> {
        self.feed(&["iptables-restore", "--noflush"], rules.as_bytes())?
            .success()
            .with_context(|| format!("install:\n{rules}"))
            .map(drop)
    }
}
