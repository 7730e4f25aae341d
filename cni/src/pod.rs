//! The inside of a pod: what it must have, set up by ADD and looked for by CHECK.

use std::net::Ipv4Addr;

use crate::link::{Link, LinkError, MAIN_TABLE, Netlink, Route};
use crate::record::Record;

/// The pod's next hop: an address that nobody has, with the host veth's Ethernet address as permanent neighbour, so that a
/// pod never sends ARP and sees no other pod on its link.
pub(crate) const NEXT_HOP: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

/// First routing table for interfaces that are not a pod's first; the interface's index is added.
const FURTHER_TABLES: u32 = 10_000;

/// The routing table that an interface gets of its own, unless it is its pod's first.
///
/// A pod that has a default route already keeps it. What comes from this interface's address goes by this table then, as
/// `from_pod` takes no other source from it.
pub(crate) fn own_table(pod: &Netlink, link: &Link) -> Result<Option<u32>, LinkError> {
    let is_further = pod.routes()?.iter().any(Route::is_default);
    Ok(is_further.then_some(FURTHER_TABLES + link.index))
}

/// Brings up the pod's interface, which has no carrier yet, and gives it its address and its way out.
pub(crate) fn configure(pod: &Netlink, link: &Link, record: &Record) -> Result<(), LinkError> {
    let endpoint = &record.endpoint;
    pod.bring_up("lo")?;
    pod.bring_up(&link.name)?;
    pod.add_address(link, endpoint.address)?;
    pod.add_neighbour(link, NEXT_HOP, endpoint.host_mac)?;
    let table = record.own_table.unwrap_or(MAIN_TABLE);
    pod.add_link_route(link, NEXT_HOP, table)?;
    pod.add_default_route(link, NEXT_HOP, table)?;
    match record.own_table {
        Some(table) => pod.add_source_rule(endpoint.address.addr(), table),
        None => Ok(()),
    }
}

/// What is missing in the pod. More than we made or another MTU is fine: later plug-ins may.
pub(crate) fn missing(pod: &Netlink, record: &Record) -> Result<Vec<String>, LinkError> {
    let endpoint = &record.endpoint;
    let ifname = &endpoint.key.ifname;
    let Some(link) = pod.find(ifname)? else {
        return Ok(vec![format!("interface {ifname} in the pod")]);
    };
    let mut missing = Vec::new();
    if !link.up {
        missing.push(format!("interface {ifname} in the pod being up"));
    }
    if !pod.addresses(&link)?.contains(&endpoint.address) {
        missing.push(format!(
            "address {} on {ifname} in the pod",
            endpoint.address
        ));
    }
    let has_default = pod.routes()?.iter().any(|route| {
        route.is_default() && route.gateway == Some(NEXT_HOP) && route.link == Some(link.index)
    });
    if !has_default {
        missing.push(format!("default route via {NEXT_HOP} in the pod"));
    }
    if pod.permanent_neighbour(&link, NEXT_HOP)? != Some(endpoint.host_mac) {
        missing.push(format!(
            "permanent neighbour {NEXT_HOP} = {} in the pod",
            endpoint.host_mac
        ));
    }
    let source = endpoint.address.addr();
    if let Some(table) = record.own_table
        && !pod.has_source_rule(source, table)?
    {
        missing.push(format!("rule from {source} lookup {table} in the pod"));
    }
    Ok(missing)
}
