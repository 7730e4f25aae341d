//! What `vnetctl status` shows, gathered and rendered.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::Ipv4Addr;

use abi::{Counter, DropReason, MAX_CLASSES, MAX_PODS, Path, Slot, pins};
use aya::maps::MapError;
use hooks::{Hook, Look, Maps, Pins, total};
use rpc::{
    Attached, Classified, ConfigView, Counted, DestinationView, Endpoint, NodeView, PodView,
    PoolView, Pools, Status, TableView,
};

use crate::config::key;
use crate::daemon::Daemon;
use crate::gc::Swept;
use crate::veths::PodVeth;
use crate::words::{duration, protocol, reason, why};
use crate::{pools, reconcile};

impl Daemon {
    /// Gathers the status.
    pub(crate) fn status(&self) -> anyhow::Result<Status> {
        let registry = self.registry.borrow();
        let pools = self.pools.borrow();
        Ok(Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            abi_version: abi::ABI_VERSION,
            uptime_s: self.started.elapsed().as_secs(),
            adopted: self.adopted,
            node: self.node.borrow().nic.clone(),
            config: self.configuration.borrow().view(),
            nat_ports: {
                let ports = self.configuration.borrow().ports;
                (ports.first, ports.last)
            },
            pools: pools.as_ref().map(pool_view).map_err(Clone::clone),
            attached: attached(&self.pins, &self.node.borrow().nic, &registry.host_veths()?),
            tables: tables(&registry.maps, &self.swept.borrow()),
            destinations: destinations(&self.swept.borrow()),
            classes: self.rules.borrow().iter().map(Into::into).collect(),
            pods: pods(&registry.maps, &reconcile::endpoints(&self.run))?,
            guard: self.guard.borrow().clone(),
            drops: drops(&registry.maps)?,
            leaks_freed: self.reclaim.borrow().freed,
            unready: self.readiness().err(),
            limits: self.troubles.borrow().limiting(),
            warnings: self.warnings(),
        })
    }

    pub(crate) fn warnings(&self) -> Vec<String> {
        let mut warnings = self.configuration.borrow().warnings();
        warnings.extend(self.oddities());
        let own: Vec<String> = self
            .own_secondaries
            .borrow()
            .iter()
            .map(ToString::to_string)
            .collect();
        if !own.is_empty() {
            warnings.push(format!(
                "the node has given itself {} of the NIC's secondary addresses, which pods cannot get then ({}): remove them \
                 with `ip address del`, and tell cloud-init or netplan not to set them up",
                own.len(),
                own.join(", ")
            ));
        }
        warnings.extend(self.troubles.borrow().all().cloned());
        warnings.extend(self.reclaim.borrow().warnings());
        warnings.extend(self.filtered());
        warnings.extend(self.unseen());
        let sizes = self.configuration.borrow().config.sizes;
        let swept = self.swept.borrow();
        for (key, wanted, is) in [
            (key::FLOWS_MAX, sizes.flows, swept.flows_capacity),
            (key::SNAT_MAX, sizes.bindings, swept.bindings_capacity),
        ] {
            if is != wanted && is != 0 {
                warnings.push(format!(
                    "{key} is {wanted}, but the table has room for {is}: it is made anew at the next boot"
                ));
            }
        }
        warnings.extend(self.guard.borrow().warning.clone());
        if self.flows_full.get() {
            warnings.push(
                "the flow table is nearly full: flows that are not in it take the kernel's path"
                    .into(),
            );
        }
        warnings
    }
}

pub(crate) fn pool_view(pools: &Pools) -> PoolView {
    let subnets = pools
        .interfaces
        .iter()
        .flat_map(|interface| &interface.subnets);
    PoolView {
        source: pools.source.clone(),
        age_s: pools::boottime_ms().saturating_sub(pools.read_at_ms) / 1000,
        addresses: subnets.map(|subnet| subnet.secondary.len()).sum(),
    }
}

/// How full the tables are. Flows and bindings are those of the last sweep: counting up to half a million entries would
/// keep everybody else waiting.
pub(crate) fn tables(maps: &Maps, swept: &Swept) -> Vec<TableView> {
    let view = |name: &str, used: u32, capacity: u32| TableView {
        name: name.to_owned(),
        used,
        capacity,
    };
    let count = |entries: usize| u32::try_from(entries).unwrap_or(u32::MAX);
    vec![
        view(pins::map::PODS, count(maps.pods.keys().count()), MAX_PODS),
        view(
            pins::map::DST4,
            count(maps.dst4.keys().count()),
            MAX_CLASSES,
        ),
        view(pins::map::FLOWS, swept.flows, swept.flows_capacity),
        view(pins::map::SNAT, swept.bindings, swept.bindings_capacity),
    ]
}

/// The remote ends that take the most SNAT ports, as of the last sweep.
pub(crate) fn destinations(swept: &Swept) -> Vec<DestinationView> {
    let busiest = swept.census.busiest().into_iter();
    busiest
        .map(|((addr, port, proto), ports)| DestinationView {
            address: Ipv4Addr::from(addr.octets()),
            port: port.get(),
            protocol: protocol(proto),
            ports,
        })
        .collect()
}

/// The programs that the kernel runs on the NIC and on the pods' host veths.
fn attached(pins: &Pins, nic: &NodeView, host_veths: &[PodVeth]) -> Vec<Attached> {
    let Ok(look) = Look::open(pins, &Hook::ALL) else {
        return Vec::new();
    };
    let on_nic = Hook::NIC.map(|hook| (nic.nic_ifindex, nic.nic.as_str(), hook));
    let on_pods = host_veths
        .iter()
        .flat_map(|veth| Hook::POD.map(|hook| (veth.ifindex, veth.name.as_str(), hook)));
    let all = on_nic.into_iter().chain(on_pods);
    let running = all.filter(|(ifindex, _, hook)| look.runs(*hook, *ifindex));
    running
        .map(|(_, ifname, hook)| Attached {
            ifname: ifname.to_owned(),
            program: hook.program.to_owned(),
        })
        .collect()
}

/// Pods with their counters; names come from the endpoint records.
fn pods(maps: &Maps, endpoints: &[Endpoint]) -> Result<Vec<PodView>, MapError> {
    let mut views = Vec::new();
    for entry in &maps.pods {
        let (addr, pod) = entry?;
        let address = Ipv4Addr::from(addr.0);
        let endpoint = endpoints
            .iter()
            .find(|endpoint| endpoint.address.addr() == address);
        views.push(PodView {
            namespace: endpoint.map_or_else(String::new, |endpoint| endpoint.pod_namespace.clone()),
            name: endpoint.map_or_else(String::new, |endpoint| endpoint.pod_name.clone()),
            address,
            host_ifname: endpoint.map_or_else(String::new, |endpoint| endpoint.host_ifname.clone()),
            paths: paths(maps, pod.0.slot)?,
        });
    }
    views.sort_by_key(|view| view.address);
    Ok(views)
}

/// A pod's packets by path.
pub(crate) fn paths(maps: &Maps, slot: Slot) -> Result<BTreeMap<String, Counted>, MapError> {
    let mut paths = BTreeMap::new();
    for path in Path::ALL {
        insert(
            &mut paths,
            path.name(),
            total(&maps.stats, path.index(slot))?,
        );
    }
    Ok(paths)
}

/// Drops by reason.
fn drops(maps: &Maps) -> Result<BTreeMap<String, Counted>, MapError> {
    let mut drops = BTreeMap::new();
    for reason in DropReason::ALL {
        insert(
            &mut drops,
            reason.name(),
            total(&maps.drops, reason.index())?,
        );
    }
    Ok(drops)
}

fn insert(counters: &mut BTreeMap<String, Counted>, name: &str, counter: Counter) {
    if counter.packets > 0 {
        counters.insert(
            name.to_owned(),
            Counted {
                packets: counter.packets,
                bytes: counter.bytes,
            },
        );
    }
}

/// Rows of pods and of classes that fit on a screen with all the rest.
const ROWS: usize = 20;

/// The status as text, one screen; `wide` is all of it.
pub fn render(status: &Status, wide: bool) -> String {
    let mut text = String::new();
    let rows = if wide { usize::MAX } else { ROWS };
    // Writing to a String cannot fail.
    let _infallible = write_status(&mut text, status, rows);
    text
}

fn write_more(out: &mut String, all: usize, rows: usize, where_else: &str) -> std::fmt::Result {
    match all.saturating_sub(rows) {
        0 => Ok(()),
        more => writeln!(out, "… and {more} more: vnetctl {where_else}"),
    }
}

fn write_status(out: &mut String, status: &Status, rows: usize) -> std::fmt::Result {
    let node = &status.node;
    let (first, last) = status.nat_ports;
    writeln!(
        out,
        "Loader      {} (ABI {}), up {}",
        status.version,
        status.abi_version,
        duration(status.uptime_s)
    )?;
    writeln!(
        out,
        "Node        {} {} on {} ({}, MTU {})",
        node.nic, node.primary, node.nic_ifindex, node.nic_mac, node.mtu
    )?;
    writeln!(out, "SNAT        to {} ports {first}-{last}", node.primary)?;
    write_addresses(out, status)?;
    let tables: Vec<String> = status
        .tables
        .iter()
        .map(|table| format!("{} {}/{}", table.name, table.used, table.capacity))
        .collect();
    writeln!(out, "Tables      {}", tables.join(", "))?;
    let on_nic: Vec<&str> = status
        .attached
        .iter()
        .filter(|at| at.ifname == node.nic)
        .map(|at| at.program.as_str())
        .collect();
    writeln!(
        out,
        "Programs    {} on {}, {} on pods",
        on_nic.join(" and "),
        node.nic,
        status.attached.len() - on_nic.len()
    )?;
    write_config(out, &status.config)?;
    writeln!(
        out,
        "XDP guard   {}, {} prefixes denied",
        status.guard.mode, status.guard.denied
    )?;
    if let Some(why) = &status.unready {
        writeln!(out, "NOT READY   {why}")?;
    }
    for warning in &status.warnings {
        writeln!(out, "WARNING     {warning}")?;
    }

    writeln!(
        out,
        "\n{:<40} {:<16} {:<15} PACKETS",
        "POD", "ADDRESS", "HOST VETH"
    )?;
    for pod in status.pods.iter().take(rows) {
        let name = format!("{}/{}", pod.namespace, pod.name);
        let paths: Vec<String> = pod
            .paths
            .iter()
            .map(|(path, count)| format!("{path} {}", count.packets))
            .collect();
        let address = pod.address.to_string();
        writeln!(
            out,
            "{name:<40} {address:<16} {:<15} {}",
            pod.host_ifname,
            paths.join(", ")
        )?;
    }
    write_more(out, status.pods.len(), rows, "status -o wide")?;

    if !status.destinations.is_empty() {
        writeln!(out, "\n{:<30} {:>10}", "SNAT TOWARDS", "PORTS")?;
    }
    for end in &status.destinations {
        let name = format!("{} {}:{}", end.protocol, end.address, end.port);
        writeln!(out, "{name:<30} {:>10}", end.ports)?;
    }

    writeln!(out, "\n{:<20} {:<12} WHY", "DESTINATION", "CLASS")?;
    for class in status.classes.iter().take(rows) {
        let prefix = class.prefix.to_string();
        writeln!(out, "{prefix:<20} {:<12} {}", class.class, why(class))?;
    }
    write_more(out, status.classes.len(), rows, "classes")?;

    writeln!(out, "\n{:<20} {:>10} {:>12}", "DROPPED", "PACKETS", "BYTES")?;
    for (reason, count) in &status.drops {
        writeln!(
            out,
            "{reason:<20} {:>10} {:>12}",
            count.packets, count.bytes
        )?;
    }
    Ok(())
}

fn write_addresses(out: &mut String, status: &Status) -> std::fmt::Result {
    match &status.pools {
        Ok(pools) => {
            writeln!(
                out,
                "Pools       {} addresses from {}, read {} ago",
                pools.addresses,
                pools.source,
                duration(pools.age_s)
            )?;
        }
        Err(why) => writeln!(out, "Pools       none: {why}")?,
    }
    if status.leaks_freed > 0 {
        let freed = status.leaks_freed;
        writeln!(
            out,
            "Leaks       {freed} addresses of pods that are gone were freed"
        )?;
    }
    Ok(())
}

fn write_config(out: &mut String, config: &ConfigView) -> std::fmt::Result {
    let files: Vec<String> = config
        .files
        .iter()
        .map(|file| file.display().to_string())
        .collect();
    match files.as_slice() {
        [] => writeln!(out, "Config      defaults")?,
        files => writeln!(out, "Config      {}", files.join(", "))?,
    }
    for why in &config.rejected {
        writeln!(out, "REJECTED    {why}; the earlier configuration stays")?;
    }
    Ok(())
}

/// Classes as text: of addresses, or the whole table.
pub fn render_classes(classes: &[Classified]) -> String {
    let mut text = format!("{:<20} {:<12} {:>3}  WHY\n", "DESTINATION", "CLASS", "ROW");
    for Classified { address, class } in classes {
        let prefix = class.prefix.to_string();
        let (destination, why) = match address {
            Some(address) => (address.to_string(), reason(class, &format!(" {prefix}"))),
            None => (prefix, why(class)),
        };
        // Writing to a String cannot fail.
        let _infallible = writeln!(
            text,
            "{destination:<20} {:<12} {:>3}  {why}",
            class.class, class.row
        );
    }
    text
}
