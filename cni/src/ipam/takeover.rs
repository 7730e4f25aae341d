//! A node that Azure's own plug-ins served until now: the addresses of its pods are in their state files, and must not be given
//! to others while these pods live.
//!
//! Each call looks at the two files. As long as one is theirs, every address in use becomes a lease, and then the file gets a
//! second name, which tells that this is done; the loader replaces the first one by a file in the same shape, so that it is never
//! missing. What is killed half-way is done again.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::net::Ipv4Addr;
use std::path::Path;

use ipnet::Ipv4Net;
use rpc::azure::{text_of, values};
use rpc::{
    Key, Lease, NetnsId, RunDirectory, StateError, View, azure, netns_lives, remove_durably, routed,
};
use serde_json::Value;

use super::IpamError;
use super::store::{Change, Store};
use crate::error::Error;
use crate::record::make_directory;

/// 16,000 pods take 16 MB.
const MOST_BYTES: u64 = 64 << 20;

/// An address that Azure's plug-in has given.
#[derive(Default)]
struct Used {
    container_id: String,
    network: String,
    netns: String,
    prefix: u8,
    gateway: Option<Ipv4Addr>,
}

/// Makes leases of what Azure's plug-ins have given to pods that may live.
pub(super) fn take_over(run: &RunDirectory, store: &Store) -> Result<(), Error> {
    let addresses = original(run, &run.azure_ipam(), "IPAM")?;
    let endpoints = original(run, &run.azure_network(), "Network")?;
    if addresses.is_none() && endpoints.is_none() {
        return Ok(());
    }
    let mut used = BTreeMap::new();
    given(addresses.as_ref(), &mut used);
    held(endpoints.as_ref(), &mut used);
    let known = store.ledger()?.leased;
    let routed = routed()?;
    for (ip, used) in used {
        // A path that is gone proves nothing while the node still sends the address's packets to a pod.
        let is_gone = netns_lives(&used.netns) == Some(false) && !routed.contains(&ip);
        if is_gone || known.contains(&ip) {
            continue;
        }
        let lease = used.lease(ip, store.boot_id());
        store.apply(&Change::WriteOwner(lease.clone()))?;
        store.apply(&Change::WriteLease(lease))?;
    }
    if addresses.is_some() {
        keep(run, &run.azure_ipam())?;
    }
    if endpoints.is_some() {
        keep(run, &run.azure_network())?;
    }
    Ok(())
}

/// The object `root` of a file that Azure's plug-in wrote and that is not taken over yet. An empty file is none, as it is to them.
fn original(run: &RunDirectory, path: &Path, root: &str) -> Result<Option<Value>, IpamError> {
    if run.is_kept(path) {
        return Ok(None);
    }
    let error = |why: String| IpamError::TakeOver {
        path: path.to_owned(),
        why,
    };
    let text = match read(path) {
        Ok(text) => text,
        Err(absent) if absent.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(error(source.to_string())),
    };
    if azure::is_ours(&text) || azure::is_blank(&text) {
        return Ok(None);
    }
    let mut value: Value =
        serde_json::from_slice(&text).map_err(|source| error(source.to_string()))?;
    match value.get_mut(root).map(Value::take) {
        Some(found @ Value::Object(_)) => Ok(Some(found)),
        Some(_) | None => Err(error(format!("there is no object `{root}` in it"))),
    }
}

/// The file, or of one of ours the beginning.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let mut text = Vec::new();
    let start = azure::WRITER_BYTES as u64;
    (&mut file).take(start).read_to_end(&mut text)?;
    if !azure::is_ours(&text) {
        file.take(MOST_BYTES).read_to_end(&mut text)?;
    }
    Ok(text)
}

/// What the IPAM plug-in's file says.
fn given(ipam: Option<&Value>, used: &mut BTreeMap<Ipv4Addr, Used>) {
    let spaces = ipam
        .into_iter()
        .flat_map(|ipam| values(ipam, "AddressSpaces"));
    for pool in spaces.flat_map(|space| values(space, "Pools")) {
        let Some(prefix) = text_of(pool, "Id").parse::<Ipv4Net>().ok() else {
            continue;
        };
        let in_use = |address: &&Value| address.get("InUse") == Some(&Value::Bool(true));
        for address in values(pool, "Addresses").filter(in_use) {
            if let Ok(ip) = text_of(address, "Addr").parse() {
                let found: &mut Used = used.entry(ip).or_default();
                text_of(address, "ID").clone_into(&mut found.container_id);
                found.prefix = prefix.prefix_len();
                found.gateway = text_of(pool, "Gateway").parse().ok();
            }
        }
    }
}

/// What the main plug-in's file says: it knows the network and the namespace, too.
fn held(network: Option<&Value>, used: &mut BTreeMap<Ipv4Addr, Used>) {
    for (name, _, endpoint) in network.map(azure::endpoints).unwrap_or_default() {
        for address in azure::addresses(endpoint) {
            let Ok(ip) = text_of(address, "IP").parse() else {
                continue;
            };
            let found = used.entry(ip).or_insert_with(|| Used {
                prefix: azure::prefix_len(text_of(address, "Mask")).unwrap_or(32),
                ..Used::default()
            });
            let netns = text_of(endpoint, "NetworkNameSpace");
            let owner = text_of(endpoint, "ContainerID");
            // An endpoint that Azure forgot to remove may list an address that another one has by now.
            let is_anothers = !found.container_id.is_empty() && found.container_id != owner;
            if is_anothers && netns_lives(&found.netns) != Some(false) {
                continue;
            }
            name.clone_into(&mut found.network);
            owner.clone_into(&mut found.container_id);
            netns.clone_into(&mut found.netns);
        }
    }
}

impl Used {
    /// An address without endpoint may be a live pod's nevertheless: the file of endpoints may have been deleted or written anew.
    fn lease(self, ip: Ipv4Addr, boot_id: &str) -> Lease {
        Lease {
            key: Key {
                network: self.network,
                container_id: self.container_id,
                ifname: String::new(),
            },
            ip,
            prefix: self.prefix,
            gateway: self.gateway.unwrap_or(Ipv4Addr::UNSPECIFIED),
            boot_id: boot_id.to_owned(),
            netns_id: NetnsId::at(&self.netns),
            netns: self.netns,
            plugin: String::new(),
            view: View::here(),
        }
    }
}

/// Remembers that the file is taken over, and the file.
fn keep(run: &RunDirectory, path: &Path) -> Result<(), StateError> {
    let Some(name) = path.file_name() else {
        return Ok(());
    };
    make_directory(&run.originals())?;
    let kept = run.originals().join(name);
    remove_durably(&kept)?;
    fs::hard_link(path, &kept)
        .map_err(|source| StateError::io("keep Azure's file as", &kept, source))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ALIVE: &str = "/proc/self/ns/net";

    /// Azure's plug-in was killed before it forgot the endpoint that had the address before.
    #[test]
    fn an_address_is_its_owners_whatever_a_stale_endpoint_says() {
        let endpoint = |id: &str, netns: &str| {
            json!({"ContainerID": id, "NetworkNameSpace": netns,
                   "IPAddresses": [{"IP": "10.0.0.5", "Mask": "////AA=="}]})
        };
        for [first, last] in [["aaa", "bbb"], ["bbb", "aaa"]] {
            let of = |id| endpoint(id, if id == "aaa" { ALIVE } else { "/nowhere" });
            let network = json!({"ExternalInterfaces": {"eth0": {"Networks": {"azure": {
                "Endpoints": {"1": of(first), "2": of(last)}}}}}});
            for known in ["aaa", ""] {
                let mut used = BTreeMap::new();
                if !known.is_empty() {
                    let owner = Used {
                        container_id: known.into(),
                        ..Used::default()
                    };
                    used.insert(Ipv4Addr::new(10, 0, 0, 5), owner);
                }
                held(Some(&network), &mut used);
                let found = &used[&Ipv4Addr::new(10, 0, 0, 5)];
                assert_eq!(
                    (found.container_id.as_str(), found.netns.as_str()),
                    ("aaa", ALIVE),
                    "{first} first, known: {known:?}"
                );
            }
        }
    }
}
