//! Azure's two state files, written by us in their shape for the tools that read them (`azure-vnet.md` §1.10, §2.10).
//!
//! They follow the endpoint records and leases within a second and are never read by us. What Azure's own plug-ins wrote is left
//! alone until our IPAM plug-in has taken its addresses over; its pods stay in the files until their DEL.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use ipnet::Ipv4Net;
use rpc::{Endpoint, Interface, Lease, NodeView, Pools, RunDirectory, StateError, azure, leases};
use serde::Serialize;
use serde_json::{Map, Value, json};
use tokio::task::spawn_blocking;
use tracing::{error, warn};

use crate::daemon::Daemon;
use crate::keepsakes::Stamp;
use crate::reconcile;

/// The parts that follow `Version` and `TimeStamp`, as they were last written.
#[derive(Debug, Default)]
pub(crate) struct Written {
    network: Value,
    addresses: Value,
    /// Out of what.
    sources: Option<Sources>,
}

/// What the files are made of. As long as it is the same nothing is read; pools are announced anew every 30 s.
#[derive(Debug, PartialEq, Eq)]
struct Sources {
    nic: NodeView,
    interfaces: Vec<Interface>,
    files: BTreeMap<PathBuf, Stamp>,
}

impl Sources {
    /// As they are now; a file that goes meanwhile is none.
    fn of(run: &RunDirectory, nic: &NodeView, pools: Option<&Pools>) -> Self {
        let directories = [run.endpoints(), run.leases(), run.owners(), run.originals()];
        let entries = directories.into_iter().flat_map(fs::read_dir).flatten();
        let files = entries.filter_map(|entry| {
            let path = entry.ok()?.path();
            let stamp = Stamp::of(&path).ok()?;
            Some((path, stamp))
        });
        Self {
            nic: nic.clone(),
            interfaces: pools.map_or_else(Vec::new, |pools| pools.interfaces.clone()),
            files: files.collect(),
        }
    }
}

/// Our `Version` comes first, so that a file's beginning tells who wrote it.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Stamped<'a> {
    version: &'static str,
    time_stamp: String,
    #[serde(flatten)]
    rest: &'a Value,
}

const VERSION: &str = concat!("azure-vnet-ebpf v", env!("CARGO_PKG_VERSION"));

/// Writes what has changed.
fn write(run: &RunDirectory, nic: &NodeView, pools: Option<&Pools>, written: &mut Written) {
    let sources = Sources::of(run, nic, pools);
    let are_there = [run.azure_network(), run.azure_ipam()]
        .iter()
        .all(|path| path.exists());
    if are_there && written.sources.as_ref() == Some(&sources) {
        return;
    }
    let leases = leases(run);
    let endpoints = reconcile::endpoints(run);
    // What could not be read is tried again.
    let mut is_whole = endpoints.len() == reconcile::files(&run.endpoints(), "json").len()
        && leases.iter().all(|(_, lease)| lease.is_some());
    let leases: Vec<Lease> = leases.into_iter().filter_map(|(_, lease)| lease).collect();
    let theirs = azure::original_endpoints(run, &leases);
    let network = network(nic, &endpoints, theirs);
    let addresses = addresses(nic, pools, &leases);
    for (path, root, now, last) in [
        (
            run.azure_network(),
            "Network",
            network,
            &mut written.network,
        ),
        (run.azure_ipam(), "IPAM", addresses, &mut written.addresses),
    ] {
        if now == *last && path.exists() {
            continue;
        }
        match put(run, &path, root, &now) {
            Ok(true) => *last = now,
            Ok(false) => is_whole = false,
            Err(error) => {
                is_whole = false;
                warn!(%error, "the file for Azure's tools is not up to date");
            }
        }
    }
    written.sources = is_whole.then_some(sources);
}

/// Whether the file is ours to write, and was written.
fn put(run: &RunDirectory, path: &Path, root: &str, rest: &Value) -> Result<bool, StateError> {
    let error = |doing| move |source| StateError::io(doing, path, source);
    match fs::read(path) {
        Ok(text) if !azure::is_ours(&text) && !azure::is_blank(&text) && !run.is_kept(path) => {
            return Ok(false);
        }
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            return Err(error("read")(source));
        }
        Ok(_) | Err(_) => {}
    }
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let stamped = Stamped {
        version: VERSION,
        time_stamp: rpc::utc(since.unwrap_or_default()),
        rest,
    };
    let body = serde_json::to_string(&stamped).map_err(|source| error("write")(source.into()))?;
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    rpc::write_synced(
        Path::new(&temporary),
        format!("{{\"{root}\":{body}}}").as_bytes(),
    )
    .and_then(|()| fs::rename(&temporary, path))
    .map_err(error("write"))?;
    Ok(true)
}

/// One network.
#[derive(Default)]
struct Network {
    mode: String,
    subnets: BTreeMap<String, Value>,
    endpoints: Map<String, Value>,
}

impl Network {
    fn add(&mut self, endpoint: &Endpoint) {
        self.mode.clone_from(&endpoint.mode);
        let prefix = endpoint.address.trunc();
        let subnet = json!({
            "Family": 2, "Prefix": {"IP": prefix.network(), "Mask": azure::mask(prefix)},
            "Gateway": endpoint.gateway, "PrimaryIP": "",
        });
        self.subnets.insert(prefix.to_string(), subnet);
        let id = azure::endpoint_id(&endpoint.key, &self.endpoints);
        let value = endpoint_value(&id, endpoint);
        self.endpoints.insert(id, value);
    }

    fn value(self, name: &str) -> Value {
        let subnets: Vec<Value> = self.subnets.into_values().collect();
        json!({
            "Id": name, "Mode": self.mode, "VlanId": 0, "Subnets": subnets, "Endpoints": self.endpoints, "DNS": no_dns(),
            "EnableSnatOnHost": false, "NetNs": "", "SnatBridgeIP": "",
        })
    }
}

fn network(nic: &NodeView, endpoints: &[Endpoint], theirs: Vec<(String, String, Value)>) -> Value {
    let mut networks: BTreeMap<String, Network> = BTreeMap::new();
    for (name, id, endpoint) in theirs {
        networks
            .entry(name)
            .or_default()
            .endpoints
            .insert(id, endpoint);
    }
    for endpoint in endpoints {
        let name = endpoint.key.network.clone();
        networks.entry(name).or_default().add(endpoint);
    }
    let subnets: BTreeSet<String> = networks
        .values()
        .flat_map(|network| network.subnets.keys().cloned())
        .collect();
    let networks = networks.into_iter().map(|(name, network)| {
        let value = network.value(&name);
        (name, value)
    });
    json!({"ExternalInterfaces": {nic.nic.clone(): {
        "Name": nic.nic, "Networks": networks.collect::<Map<String, Value>>(), "Subnets": subnets, "BridgeName": "",
        "DNSInfo": no_dns(), "MacAddress": azure::base64(&nic.nic_mac.0), "IPAddresses": [], "Routes": [],
        "IPv4Gateway": "0.0.0.0", "IPv6Gateway": "::",
    }}})
}

fn no_dns() -> Value {
    json!({"Suffix": "", "Servers": null, "Options": null})
}

fn endpoint_value(id: &str, endpoint: &Endpoint) -> Value {
    let key = &endpoint.key;
    let address = endpoint.address;
    json!({
        "Id": id, "SandboxKey": "", "IfName": key.ifname, "HostIfName": endpoint.host_ifname,
        "MacAddress": azure::base64(&endpoint.mac.0), "InfraVnetIP": {"IP": "", "Mask": null}, "LocalIP": "",
        "IPAddresses": [{"IP": address.addr(), "Mask": azure::mask(address)}], "Gateways": ["0.0.0.0"],
        "DNS": no_dns(),
        "Routes": [{"Dst": {"IP": "0.0.0.0", "Mask": "AAAAAA=="}, "Src": "", "Gw": endpoint.gateway, "Protocol": 0,
            "DevName": "", "Scope": 0, "Priority": 0, "Table": 0}],
        "VlanID": 0, "EnableSnatOnHost": false, "EnableInfraVnet": false, "EnableMultitenancy": false,
        "AllowInboundFromHostToNC": false, "AllowInboundFromNCToHost": false, "NetworkContainerID": "",
        "NetworkNameSpace": endpoint.netns, "ContainerID": key.container_id, "PODName": endpoint.pod_name,
        "PODNameSpace": endpoint.pod_namespace, "SecondaryInterfaces": {}, "NICType": "InfraNIC",
    })
}

/// One pool.
struct Pool {
    ifname: String,
    gateway: Ipv4Addr,
    is_primary: bool,
    is_used: bool,
    addresses: BTreeMap<String, Value>,
}

impl Pool {
    fn new(ifname: &str, gateway: Ipv4Addr, is_primary: bool) -> Self {
        Self {
            ifname: ifname.to_owned(),
            gateway,
            is_primary,
            is_used: false,
            addresses: BTreeMap::new(),
        }
    }

    fn add(&mut self, ip: Ipv4Addr, owner: Option<&str>) {
        let in_use = owner.is_some();
        let address = json!({"ID": owner.unwrap_or_default(), "Addr": ip, "InUse": in_use});
        self.addresses.insert(ip.to_string(), address);
        self.is_used |= in_use;
    }

    fn value(self, prefix: Ipv4Net) -> Value {
        json!({
            "Id": prefix, "IfName": self.ifname, "Subnet": {"IP": prefix.network(), "Mask": azure::mask(prefix)},
            "Gateway": self.gateway, "Addresses": self.addresses, "IsIPv6": false,
            "Priority": u8::from(!self.is_primary), "RefCount": u8::from(self.is_used),
        })
    }
}

/// Free addresses out of the pools, the others out of the leases, whatever the pools say by now.
fn addresses(nic: &NodeView, pools: Option<&Pools>, leases: &[Lease]) -> Value {
    let mut found: BTreeMap<Ipv4Net, Pool> = BTreeMap::new();
    for interface in pools.iter().flat_map(|pools| &pools.interfaces) {
        for subnet in &interface.subnets {
            let pool = found.entry(subnet.prefix.trunc()).or_insert_with(|| {
                Pool::new(&interface.name, subnet.gateway(), interface.is_primary)
            });
            for ip in &subnet.secondary {
                pool.add(*ip, None);
            }
        }
    }
    for lease in leases {
        let pool = found
            .entry(lease.address().trunc())
            .or_insert_with(|| Pool::new(&nic.nic, lease.gateway, true));
        pool.add(lease.ip, Some(&lease.key.container_id));
    }
    let pools = found.into_iter();
    let pools: Map<String, Value> = pools
        .map(|(prefix, pool)| (prefix.to_string(), pool.value(prefix)))
        .collect();
    json!({"AddressSpaces": {"local": {"Id": "local", "Scope": 0, "Pools": pools}}})
}

impl Daemon {
    /// Brings the files that Azure's tools read up to date.
    pub(crate) async fn tell_azures_tools(&self) {
        let (run, nic) = (self.run.clone(), self.node.borrow().nic.clone());
        let pools = self.pools.borrow().as_ref().ok().cloned();
        let mut written = self.azure.take();
        let done = spawn_blocking(move || {
            write(&run, &nic, pools.as_ref(), &mut written);
            written
        });
        match done.await {
            Ok(written) => drop(self.azure.replace(written)),
            Err(error) => error!(%error, "write the files for Azure's tools"),
        }
    }
}
