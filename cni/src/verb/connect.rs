//! The part of ADD that changes the kernel, in order.

use std::net::Ipv4Addr;
use std::time::Duration;

use hooks::Hook;
use rpc::Endpoint;

use super::{AddError, Node};
use crate::error::Error;
use crate::link::{Link, MAIN_TABLE, Netlink, Pair, Route};
use crate::lock::Lock;
use crate::netns::Netns;
use crate::pod;
use crate::record::Record;
use crate::steps::Steps;
use crate::sysctl;
use crate::teardown::{delete_veth, lock_name};

/// How long the kernel may take from "up" to "running"; it is well below a millisecond.
const CARRIER: Duration = Duration::from_secs(2);

/// What is to be connected.
pub(super) struct Plan<'a> {
    pub(super) netns: &'a Netns,
    /// The node's connection into `netns`.
    pub(super) pod: &'a Netlink,
    /// Names that the host veth may have, best first.
    pub(super) host_names: &'a [String],
    /// What the record will say; name and index of the host veth are filled in here.
    pub(super) record: Record,
}

/// Connects the pod. `draft` always holds what is to be taken away if we die or fail.
///
/// No packet of the pod is ever unguarded: the programs are on the host veth before it has carrier, and `from_pod` drops all
/// that comes from a veth that is not registered. The record is there before the loader is asked, so that a reconciliation in
/// between finds an endpoint that belongs to somebody.
pub(super) fn connect(
    node: &Node,
    plan: &mut Plan<'_>,
    draft: &mut Lock,
    steps: &mut Steps,
) -> Result<(), Error> {
    steps.begin("links");
    let ifname = plan.record.endpoint.key.ifname.clone();
    let (name, name_lock) = choose_name(node, plan)?;
    plan.record.endpoint.host_ifname = name;
    write_draft(draft, &plan.record)?;
    let host = create(node, plan)?;
    plan.record.endpoint.host_ifindex = host.index;
    write_draft(draft, &plan.record)?;

    steps.begin("pod");
    plan.netns
        .enter(|| sysctl::pod_interface(&ifname))?
        .map_err(Error::from)?;
    let inside = plan.pod.existing(&ifname)?;
    plan.record.own_table = pod::own_table(plan.pod, &inside)?;
    if plan.record.own_table.is_some() {
        write_draft(draft, &plan.record)?;
    }
    let endpoint = &plan.record.endpoint;
    pod::configure(plan.pod, &inside, &plan.record)?;

    steps.begin("attach");
    sysctl::host_veth(&host.name)?;
    for hook in Hook::POD {
        let mut program = hooks::open(&node.pins, hook)?;
        hooks::attach(&node.pins, hook, &mut program, &host.name)?;
    }

    steps.begin("up");
    node.netlink.bring_up(&host.name)?;
    add_route(node, &host, endpoint)?;
    // Without it the node's first packet to the pod would wait for ARP.
    node.netlink
        .add_neighbour(&host, endpoint.address.addr(), endpoint.mac)?;
    plan.pod
        .wait_until_running(&inside, node.deadline.spare(CARRIER))?;

    steps.begin("record");
    node.records.put(&plan.record)?;
    drop(name_lock);

    steps.begin("register");
    Ok(node.loader.register(&plan.record.endpoint)?)
}

fn add_route(node: &Node, host: &Link, endpoint: &Endpoint) -> Result<(), Error> {
    let address = endpoint.address.addr();
    match node.netlink.add_link_route(host, address, MAIN_TABLE) {
        Err(taken) if taken.exists() => {
            let owner = owner_of(node, address)?;
            Err(AddError::AddressTaken { address, owner }.into())
        }
        added => Ok(added?),
    }
}

/// The live pod that the node's route to `address` leads to.
fn owner_of(node: &Node, address: Ipv4Addr) -> Result<Option<String>, Error> {
    let leads_there = |route: &&Route| {
        route.destination.prefix_len() == 32 && route.destination.addr() == address
    };
    let routes = node.netlink.routes()?;
    let link = routes.iter().find(leads_there).and_then(|route| route.link);
    let mut records = node.records.all()?.into_iter();
    let owner = records.find(|record| Some(record.endpoint.host_ifindex) == link);
    Ok(owner.map(|record| running_pod(&record.endpoint)))
}

/// An attachment in the words of an error.
fn running_pod(endpoint: &Endpoint) -> String {
    format!(
        "the pod {}/{} ({}), which still runs",
        endpoint.pod_namespace,
        endpoint.pod_name,
        endpoint.key.file_name()
    )
}

/// The first name that no other live attachment has; what else has it is in the way and goes.
fn choose_name(node: &Node, plan: &Plan<'_>) -> Result<(String, Lock), Error> {
    let mut owners = Vec::new();
    for name in plan.host_names {
        let lock = lock_name(node, name)?;
        let Some(link) = node.netlink.find(name)? else {
            return Ok((name.clone(), lock));
        };
        let Some(owner) = other_owner(node, plan, &link)? else {
            delete_veth(node, &link)?;
            return Ok((name.clone(), lock));
        };
        owners.push(format!("{name} belongs to {owner}"));
    }
    let owners = owners.join(", ");
    Err(AddError::NamesTaken { owners }.into())
}

/// Whose the veth is, if not ours or nobody's: a pod has a record, and one whose record is lost or damaged has its route.
fn other_owner(node: &Node, plan: &Plan<'_>, link: &Link) -> Result<Option<String>, Error> {
    let own = &plan.record.endpoint;
    if link.mac == Some(own.host_mac) {
        return Ok(None);
    }
    let mut records = node.records.all()?.into_iter();
    let claims = |record: &Record| {
        record.endpoint.key != own.key
            && record.endpoint.host_ifname == link.name
            && record.endpoint.host_ifindex == link.index
    };
    if let Some(Record { endpoint, .. }) = records.find(claims) {
        return Ok(Some(running_pod(&endpoint)));
    }
    let mut routes = node.netlink.routes()?.into_iter();
    let is_to_a_pod =
        |route: &Route| route.link == Some(link.index) && route.destination.prefix_len() == 32;
    Ok(routes.find(is_to_a_pod).map(|route| {
        let address = route.destination.addr();
        format!("the pod with {address}, which still runs and has no readable record")
    }))
}

fn create(node: &Node, plan: &Plan<'_>) -> Result<Link, Error> {
    let endpoint = &plan.record.endpoint;
    let pair = Pair {
        host_name: &endpoint.host_ifname,
        host_mac: endpoint.host_mac,
        pod_name: &endpoint.key.ifname,
        pod_mac: endpoint.mac,
        mtu: plan.record.mtu,
    };
    match node.netlink.create_pair(&pair, plan.netns) {
        Err(error) if error.exists() => Err(AddError::InterfaceExists {
            ifname: endpoint.key.ifname.clone(),
        }
        .into()),
        created => Ok(created?),
    }
}

fn write_draft(draft: &mut Lock, record: &Record) -> Result<(), Error> {
    let content = serde_json::to_vec(record).map_err(|source| AddError::Draft { source })?;
    Ok(draft.write_draft(&content)?)
}
