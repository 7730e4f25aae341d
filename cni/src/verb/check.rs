//! CHECK: is everything still there that ADD has made?

use hooks::Hook;
use ipnet::Ipv4Net;

use super::{Node, key};
use crate::delegate::Delegate;
use crate::error::Error;
use crate::link::{LinkError, Netlink};
use crate::netns::Netns;
use crate::pod;
use crate::program::Call;
use crate::record::Record;
use netconf::Netconf;
use netconf::code;

/// CHECK does not succeed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CheckError {
    #[error("check the attachment: prevResult is missing; the runtime must pass the result of ADD")]
    NoPrevResult,
    #[error("check the attachment: missing: {}; delete the pod, so that it is made anew", .0.join(", "))]
    Missing(Vec<String>),
}

impl CheckError {
    /// The CNI code.
    pub(crate) fn code(&self) -> u32 {
        match self {
            Self::NoPrevResult => code::CONFIG,
            Self::Missing(_) => code::CHECK,
        }
    }
}

/// Looks at everything, then names all that is missing.
pub(super) fn check(call: &mut Call) -> Result<(), Error> {
    let netconf = Netconf::parse(&call.stdin)?;
    call.require_verb(netconf.version)?;
    let previous = netconf.prev_result()?.ok_or(CheckError::NoPrevResult)?;
    let ipam = Delegate::find(call, netconf.ipam_plugin()?, &call.stdin)?;
    let netns = Netns::open(&call.env.netns)?;
    call.require_root()?;

    call.steps.begin("record");
    let node = Node::open(&call.deadline)?;
    let key = key(call, &netconf.name);
    node.records.require_whole(&key)?;
    let mut missing = Vec::new();
    if let Some(record) = node.records.get(&key)? {
        let endpoint = &record.endpoint;
        if !previous
            .addresses
            .iter()
            .any(|entry| entry.address == endpoint.address)
        {
            missing.push(format!("address {} in prevResult", endpoint.address));
        }
        call.steps.begin("host");
        missing.extend(missing_on_host(&node, &record)?);
        call.steps.begin("pod");
        missing.extend(pod::missing(
            &Netlink::inside(&netns, &node.runtime)?,
            &record,
        )?);
        call.steps.begin("loader");
        missing.extend(
            node.loader
                .inspect(&key)
                .err()
                .map(|error| format!("a working data path ({error})")),
        );
    } else {
        missing.push(format!("endpoint record of {key}"));
    }
    call.steps.begin("ipam");
    missing.extend(
        ipam.check(&node.runtime)
            .err()
            .map(|error| format!("IPAM's reservation ({error})")),
    );
    call.steps.begin("verdict");
    if missing.is_empty() {
        return Ok(());
    }
    Err(CheckError::Missing(missing).into())
}

fn missing_on_host(node: &Node, record: &Record) -> Result<Vec<String>, LinkError> {
    let endpoint = &record.endpoint;
    let ifname = &endpoint.host_ifname;
    let link = node
        .netlink
        .find(ifname)?
        .filter(|link| link.index == endpoint.host_ifindex);
    let Some(link) = link else {
        return Ok(vec![format!(
            "host interface {ifname} (index {})",
            endpoint.host_ifindex
        )]);
    };
    let mut missing = Vec::new();
    if !link.up {
        missing.push(format!("host interface {ifname} being up"));
    }
    let wanted = Ipv4Net::from(endpoint.address.addr());
    let routed = node
        .netlink
        .routes()?
        .iter()
        .any(|route| route.destination == wanted && route.link == Some(link.index));
    if !routed {
        missing.push(format!("route {wanted} dev {ifname}"));
    }
    for hook in Hook::POD {
        if !hooks::runs(&node.pins, hook, ifname) {
            missing.push(format!("program {} on {ifname}", hook.program));
        }
    }
    Ok(missing)
}
