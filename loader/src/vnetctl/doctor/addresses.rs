//! Are there addresses for pods?

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use rpc::leases;

use super::node::Node;
use super::{Problem, some};

const WIRESERVER: Ipv4Addr = Ipv4Addr::new(168, 63, 129, 16);
/// It is on the same host.
const PATIENCE: Duration = Duration::from_secs(2);

pub(super) fn source(node: &Node) -> Option<Problem> {
    let remedy = "root must reach TCP port 80 of 168.63.129.16: look at `iptables -S OUTPUT`, `nft list ruleset`, `ip route get \
                  168.63.129.16`; is this an Azure VM?";
    match node.status.as_ref().map(|status| &status.pools) {
        Ok(Err(why)) => Some(Problem::error(
            format!("the node's addresses are not known: {why}"),
            "every ADD fails",
            remedy,
        )),
        Ok(Ok(pools)) if pools.source == crate::pools::IMDS => Some(Problem::warning(
            "the wireserver does not answer; the addresses are IMDS's",
            "IMDS is slower to tell of new addresses, and is the last source there is",
            remedy,
        )),
        Ok(Ok(_)) => None,
        Err(_) => {
            let error =
                TcpStream::connect_timeout(&SocketAddr::from((WIRESERVER, 80)), PATIENCE).err()?;
            Some(Problem::error(
                format!("the wireserver at {WIRESERVER} does not answer: {error}"),
                "the loader cannot tell which addresses pods may have",
                remedy,
            ))
        }
    }
}

pub(super) fn used_up(node: &Node) -> Option<Problem> {
    let interfaces = node.pools.as_ref()?.interfaces.iter();
    let all: usize = interfaces
        .flat_map(|interface| &interface.subnets)
        .map(|subnet| subnet.secondary.len())
        .sum();
    let given = leases(&node.run).len();
    (all > 0 && given >= all).then(|| {
        Problem::error(
            format!("all {all} addresses for pods are given"),
            "ADD fails with code 100, `No available addresses`",
            "give the NIC more secondary addresses, or the node fewer pods (`max-pods`); `vnetctl ipam show` tells who has which",
        )
    })
}

pub(super) fn leaked(_node: &Node) -> Option<Problem> {
    let leaked = crate::ipam::check().ok()?;
    let addresses: Vec<String> = leaked.iter().map(|one| one.address.to_string()).collect();
    (!addresses.is_empty()).then(|| {
        Problem::warning(
            format!(
                "{} addresses are given to pods that are gone: {}",
                addresses.len(),
                some(&addresses)
            ),
            "nobody gives them back, so the node runs out of them",
            "`vnetctl ipam check` says why, `vnetctl ipam gc` frees them",
        )
    })
}
