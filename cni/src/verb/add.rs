//! ADD.

use std::net::Ipv4Addr;
use std::time::Duration;

use hooks::Hook;
use rpc::{Endpoint, Key, MacAddr};

use super::address::{Known, give_back};
use super::connect::{Plan, connect};
use super::{Node, UNDO, key};
use crate::delegate::{Delegate, DelegateError};
use crate::error::Error;
use crate::link::Netlink;
use crate::loader::LoaderError;
use crate::lock::Lock;
use crate::names;
use crate::netns::Netns;
use crate::output;
use crate::program::Call;
use crate::record::Record;
use crate::signals;
use crate::teardown::disconnect;
use netconf::Args;
use netconf::code;
use netconf::{Address, Dns};
use netconf::{Leaving, Netconf};

/// How long to wait for another call on the same attachment. A loader and an IPAM plug-in that are late, too, must still find
/// the time to say so.
const PATIENCE: Duration = Duration::from_secs(4);
/// ADD cannot do what it is asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AddError {
    #[error(
        "create {ifname} in the pod: an interface of that name is there already; delete it or use another CNI_IFNAME"
    )]
    InterfaceExists { ifname: String },
    #[error("name the host veth: {owners}; delete that pod first")]
    NamesTaken { owners: String },
    #[error(
        "route {address} to the pod: the node has a route to it already{}; the IPAM plug-in gave an address that is in use, see its own records",
        owner.as_ref().map(|owner| format!(", that of {owner}")).unwrap_or_default()
    )]
    AddressTaken {
        address: Ipv4Addr,
        owner: Option<String>,
    },
    #[error("write the draft of the endpoint record: {source}; this is a bug, please report it")]
    Draft { source: serde_json::Error },
}

impl AddError {
    /// The CNI code.
    pub(crate) fn code(&self) -> u32 {
        match self {
            Self::InterfaceExists { .. } | Self::NamesTaken { .. } | Self::AddressTaken { .. } => {
                code::PLUGIN
            }
            Self::Draft { .. } => code::BUG,
        }
    }
}

/// A request that has been validated as far as that is possible without touching anything.
struct Request<'a> {
    netconf: Netconf,
    /// As it was sent.
    stdin: &'a [u8],
    args: Args,
    /// The Ethernet address that is asked for.
    mac: Option<MacAddr>,
    netns: Netns,
    ipam: Delegate<'a>,
    key: Key,
    /// Names that the host veth may have, best first.
    host_names: Vec<String>,
}

/// Connects a pod and prints the result.
pub(super) fn add(call: &mut Call) -> Result<(), Error> {
    call.with_stdin(add_from)
}

fn add_from(call: &mut Call, stdin: &[u8]) -> Result<(), Error> {
    let request = validate(call, stdin)?;
    call.require_root()?;

    call.steps.begin("lock");
    let node = Node::open(&call.deadline)?;
    let pod = Netlink::inside(&request.netns, &node.runtime)?;
    let path = node.lock_of(&request.key);
    let mut lock = Lock::acquire(&path, node.deadline.spare(PATIENCE))?;

    call.steps.begin("existing");
    if let Some(mut record) = existing(call, &node, &request, &mut lock, &pod)? {
        // The same namespace may have another path today.
        record.endpoint.netns.clone_from(&call.env.netns);
        output::print(&record.result().to_json(request.netconf.version))?;
        return Ok(());
    }

    // Before the IPAM plug-in is asked: undoing its ADD could free the address of a pod that lives without a record.
    if pod.find(&request.key.ifname)?.is_some() {
        node.records.require_whole(&request.key)?;
        let ifname = request.key.ifname.clone();
        return Err(AddError::InterfaceExists { ifname }.into());
    }
    let added = make(call, &node, &request, &mut lock, &pod);
    // What could not be undone stays in the draft, for DEL.
    let is_over = !matches!(&added, Err(Error::At { left, .. }) if !left.is_empty());
    if is_over && let Err(error) = lock.end() {
        // The answer is out, and a draft that stays makes the next call take this pod down first: it must be told.
        call.warn(&error);
    }
    added
}

/// Everything that can be wrong with the request.
fn validate<'a>(call: &Call, stdin: &'a [u8]) -> Result<Request<'a>, Error> {
    let netconf = Netconf::parse(stdin)?;
    netconf.prev_result()?;
    netconf.refuse_previous_interfaces()?;
    let mut args = Args::parse(&call.env.args)?;
    let plugin = netconf.ipam_plugin()?;
    let key = key(call, &netconf.name);
    let host_names = names::host_veths(netconf.mode, &key, &args);
    if netconf.allow_non_kubernetes {
        args.name_after(&call.env.container_id);
    }
    args.require_pod()?;
    let ipam = Delegate::find(call, plugin, stdin)?;
    Ok(Request {
        netns: Netns::open(&call.env.netns)?,
        key,
        host_names,
        mac: netconf.mac(&args)?,
        ipam,
        args,
        stdin,
        netconf,
    })
}

/// The attachment, if it is there and whole. What an interrupted call or a dead pod has left is taken away.
fn existing(
    call: &mut Call,
    node: &Node,
    request: &Request<'_>,
    lock: &mut Lock,
    pod: &Netlink,
) -> Result<Option<Record>, Error> {
    let record = node.records.get(&request.key)?;
    let interrupted = !lock.draft().is_empty();
    if let Some(record) = &record
        && !interrupted
        && is_healthy(node, record, pod)?
    {
        return Ok(Some(record.clone()));
    }
    if record.is_none() && !interrupted {
        return Ok(None);
    }
    let known = Known::of(node, &request.key, lock)?;
    if let Some(leftover) = &known.record {
        disconnect(node, leftover)?;
        // A loader that is not there will be asked before anything is made, so that its answer does not matter here.
        drop(node.loader.unregister(&leftover.endpoint));
    }
    // Not every IPAM plug-in answers a second ADD of the same attachment.
    let current = Leaving::parse(request.stdin)?;
    give_back(call, node, Some(&current), &request.key, &known)?;
    node.records.remove(&request.key)?;
    node.records.sweep(&request.key)?;
    lock.clear_draft()?;
    Ok(None)
}

/// Whether pod and node are still connected, with everything that forwards the pod's packets. A live pod is not taken away
/// because nobody can tell: then that is the error.
fn is_healthy(node: &Node, record: &Record, pod: &Netlink) -> Result<bool, Error> {
    let Endpoint {
        key,
        host_ifname,
        host_ifindex,
        ..
    } = &record.endpoint;
    let host = node.netlink.find(host_ifname)?;
    let host = host.filter(|link| link.index == *host_ifindex);
    let (Some(host), Some(inside)) = (host, pod.find(&key.ifname)?) else {
        return Ok(false);
    };
    // The attachment is in another namespace, and lives there.
    if (host.peer, inside.peer) != (Some(inside.index), Some(host.index)) {
        let ifname = key.ifname.clone();
        return Err(AddError::InterfaceExists { ifname }.into());
    }
    match node.loader.inspect(key) {
        Ok(()) => Ok(Hook::POD
            .into_iter()
            .all(|hook| hooks::runs(&node.pins, hook, host_ifname))),
        Err(LoaderError::Refused(_)) => Ok(false),
        Err(unknown) => Err(unknown.into()),
    }
}

/// Makes the attachment, and prints the result while everything can still be undone.
fn make(
    call: &mut Call,
    node: &Node,
    request: &Request<'_>,
    lock: &mut Lock,
    pod: &Netlink,
) -> Result<(), Error> {
    call.steps.begin("loader");
    let view = node.loader.node()?;

    call.steps.begin("ipam");
    lock.write_draft(&Known::begun(&request.key, request.stdin)?)?;
    let (address, dns) = request
        .ipam
        .add(&node.runtime)
        .map_err(|refusal| without_address(call, node, request, refusal))?;

    let mut plan = Plan {
        netns: &request.netns,
        pod,
        host_names: &request.host_names,
        record: draft(call, node, request, address, dns, view.mtu),
    };
    let made = connect(node, &mut plan, lock, &mut call.steps).and_then(|()| {
        call.steps.begin("print");
        if signals::told_to_end() {
            return Err(Error::Interrupted);
        }
        output::print(&plan.record.result().to_json(request.netconf.version))
    });
    made.map_err(|error| {
        let step = call.steps.current();
        call.steps.begin("undo");
        node.deadline.extend(UNDO);
        Error::At {
            step,
            source: Box::new(error),
            left: undo(node, request, &plan.record, step),
        }
    })
}

/// The specification wants a failed delegate deleted. One that could not be started has given nothing.
fn without_address(
    call: &mut Call,
    node: &Node,
    request: &Request<'_>,
    refusal: DelegateError,
) -> Error {
    let left = if refusal.has_run() {
        node.deadline.extend(UNDO);
        request.ipam.del(&node.runtime).err()
    } else {
        None
    };
    Error::At {
        step: call.steps.current(),
        source: Box::new(refusal.into()),
        left: left.into_iter().map(Error::from).collect(),
    }
}

/// Takes back what [`make`] did up to `step`; returns what could not be.
fn undo(node: &Node, request: &Request<'_>, record: &Record, step: &str) -> Vec<Error> {
    let mut left: Vec<Error> = Vec::new();
    let veth = if record.endpoint.host_ifname.is_empty() {
        Ok(())
    } else {
        disconnect(node, record)
    };
    if matches!(step, "register" | "print") {
        let unregistered = node.loader.unregister(&record.endpoint);
        left.extend(unregistered.err().map(Error::from));
    }
    // The loader writes the record of a pod that lives again, so that goes first.
    left.extend(node.records.remove(&request.key).err().map(Error::from));
    match veth {
        Ok(()) => left.extend(request.ipam.del(&node.runtime).err().map(Error::from)),
        // An address whose veth is still there must not be given to another pod.
        Err(stuck) => left.push(stuck),
    }
    left
}

/// The record of what is about to be made; the host veth has no name and index yet.
fn draft(
    call: &Call,
    node: &Node,
    request: &Request<'_>,
    address: Address,
    dns: Dns,
    mtu: u32,
) -> Record {
    let (host_mac, own_mac) = names::macs(&request.key);
    Record {
        endpoint: Endpoint {
            key: request.key.clone(),
            boot_id: node.records.boot_id().to_owned(),
            netns: call.env.netns.clone(),
            pod_namespace: request.args.pod_namespace.clone(),
            pod_name: request.args.pod_name.clone(),
            mode: request.netconf.mode.as_str().to_owned(),
            host_ifname: String::new(),
            host_ifindex: 0,
            host_mac,
            mac: request.mac.unwrap_or(own_mac),
            address: address.address,
            gateway: address.gateway.unwrap_or(Ipv4Addr::UNSPECIFIED),
            via_host: request.netconf.via_host.clone(),
        },
        mtu,
        own_table: None,
        dns: request.netconf.dns(dns),
        netconf: String::from_utf8_lossy(request.stdin).into_owned(),
    }
}
