//! DEL: needs neither the namespace, nor `prevResult`, nor the pod's name, nor the loader, nor a good configuration.

use rpc::Key;

use super::{Node, key};
use crate::args::Args;
use crate::delegate::Delegate;
use crate::error::Error;
use crate::lock::Lock;
use crate::names;
use crate::netconf::{Netconf, NetconfError};
use crate::program::Call;
use crate::record::Record;
use crate::teardown::{Mark, PATIENCE, remove_veth};

/// Takes the attachment away. Nothing there is success.
pub(super) fn del(call: &mut Call) -> Result<(), Error> {
    let stdin = std::mem::take(&mut call.stdin);
    let done = match Netconf::parse(&stdin) {
        Ok(netconf) => del_from(call, &netconf, &stdin),
        Err(broken) => del_without_netconf(call, broken),
    };
    call.stdin = stdin;
    done
}

fn del_from(call: &mut Call, netconf: &Netconf, stdin: &[u8]) -> Result<(), Error> {
    call.require_root()?;
    let node = Node::open()?;
    release(
        call,
        &node,
        &key(call, &netconf.name),
        Some((netconf, stdin)),
    )
}

/// With a broken configuration the network's name is unknown: what was recorded for this container and interface goes.
fn del_without_netconf(call: &mut Call, broken: NetconfError) -> Result<(), Error> {
    call.require_root()?;
    let node = Node::open()?;
    let mut left = Vec::new();
    for record in node.records.all()? {
        let key = &record.endpoint.key;
        if (&key.container_id, &key.ifname) == (&call.env.container_id, &call.env.ifname) {
            left.extend(release(call, &node, key, None).err());
        }
    }
    Err(Error::At {
        step: "validate",
        source: Box::new(broken.into()),
        left,
    })
}

fn release(
    call: &mut Call,
    node: &Node,
    key: &Key,
    current: Option<(&Netconf, &[u8])>,
) -> Result<(), Error> {
    call.steps.begin("lock");
    let mut lock = Lock::acquire(&node.run.locks().join(names::file_name(key)), PATIENCE)?;
    let record = match node.records.get(key)? {
        Some(record) => Some(record),
        None => serde_json::from_slice(lock.draft()).ok(),
    };

    // The veth goes before the loader forgets it: a reconciliation in between would only take a live one back.
    call.steps.begin("links");
    match &record {
        Some(record) => remove_veth(node, &record.endpoint.host_ifname, Mark::of(record))?,
        None => remove_orphans(call, node, key, current.map(|(netconf, _)| netconf))?,
    }

    call.steps.begin("unregister");
    let known_to_loader = record
        .as_ref()
        .is_some_and(|record| node.loader.unregister(&record.endpoint).is_err());

    call.steps.begin("ipam");
    release_address(call, node, current, record.as_ref())?;

    call.steps.begin("record");
    match &record {
        Some(record) if known_to_loader => node.records.bury(record)?,
        Some(_) | None => node.records.remove(key)?,
    }
    Ok(lock.clear_draft()?)
}

/// With no readable record: the veth that ADD would have made for this attachment, if it is there.
fn remove_orphans(
    call: &Call,
    node: &Node,
    key: &Key,
    netconf: Option<&Netconf>,
) -> Result<(), Error> {
    let Some(netconf) = netconf else {
        return Ok(());
    };
    let (host_mac, _) = names::macs(key);
    let args = Args::parse(&call.env.args).unwrap_or_default();
    for name in names::host_veths(netconf.mode, key, &args.pod_namespace, &args.pod_name) {
        remove_veth(node, &name, Mark::Mac(host_mac))?;
    }
    Ok(())
}

/// The IPAM plug-in that gave the address takes it back: the one of ADD's configuration if that has another by now.
fn release_address(
    call: &Call,
    node: &Node,
    current: Option<(&Netconf, &[u8])>,
    record: Option<&Record>,
) -> Result<(), Error> {
    let stored = record.and_then(|record| {
        let bytes = record.netconf.as_bytes();
        Some((Netconf::parse(bytes).ok()?.ipam.plugin?, bytes))
    });
    let current = current
        .and_then(|(netconf, stdin)| Some((netconf.ipam.plugin.clone()?, stdin)))
        .filter(|(plugin, _)| stored.as_ref().is_none_or(|(stored, _)| stored == plugin));
    let Some((plugin, stdin)) = current.or(stored) else {
        return Ok(());
    };
    Ok(Delegate::find(&plugin, &call.env.path, stdin)?.del(&node.runtime)?)
}
