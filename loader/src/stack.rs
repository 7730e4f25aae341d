//! What does the kernel's own way to a pod need? A host veth that is up, the `/32` route, the permanent neighbour. ADD makes
//! them; who takes them away finds them made again.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use abi::{IfIndex, Ip4, Pod};
use futures_util::TryStreamExt as _;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope,
};
use rtnetlink::{Error, Handle, LinkUnspec, RouteMessageBuilder};

use crate::devconf::Devices;
use crate::nic::ifname;
use crate::trouble::WrongLinks;
use crate::veths::is_alive;

/// A pod's address and what the maps say of it.
pub(crate) type Known = (Ip4, Pod);

/// Part of a pod's way cannot be seen or mended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StackError {
    #[error("open a netlink socket: {0}")]
    Socket(#[from] std::io::Error),
    #[error("list the interfaces: {0}")]
    Links(#[source] std::io::Error),
    #[error("{what}: {source}")]
    Netlink { what: String, source: Error },
}

/// What was mended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mended {
    Link,
    Route,
    Neighbour,
}

/// What came of a look.
#[derive(Debug, Default)]
pub(crate) struct Mending {
    /// What was mended, for whom.
    pub(crate) mended: Vec<(Ipv4Addr, Mended)>,
    /// What could not be.
    pub(crate) wrong: WrongLinks,
}

impl Mending {
    /// One bad veth does not keep the others from being mended.
    fn note(&mut self, (addr, pod): Known, what: Mended, done: Result<bool, StackError>) {
        match done {
            Ok(true) => self.mended.push((addr.into(), what)),
            Ok(false) => {}
            // What follows from it is not told.
            Err(error) => {
                let wrong = self.wrong.entry(pod.ifindex.get());
                wrong.or_insert_with(|| error.to_string());
            }
        }
    }
}

/// Looks at the ways to these pods, and mends them.
pub(crate) async fn mend(pods: &[Known]) -> Mending {
    if pods.is_empty() {
        return Mending::default();
    }
    match try_mend(pods).await {
        Ok(mending) => mending,
        Err(error) => {
            let all = pods.iter().map(|(_, pod)| pod.ifindex.get());
            Mending {
                mended: Vec::new(),
                wrong: all.map(|ifindex| (ifindex, error.to_string())).collect(),
            }
        }
    }
}

async fn try_mend(pods: &[Known]) -> Result<Mending, StackError> {
    let (connection, handle, _messages) = rtnetlink::new_connection()?;
    let connection = tokio::spawn(connection);
    let mended = mend_over(&handle, pods).await;
    connection.abort();
    mended
}

async fn mend_over(handle: &Handle, pods: &[Known]) -> Result<Mending, StackError> {
    let mut mending = Mending::default();
    // Taking a link down takes the other two away.
    let down = Devices::take().map_err(StackError::Links)?.down;
    for (addr, pod) in pods {
        let ifindex = pod.ifindex.get();
        if down.contains(&ifindex) {
            let done = bring_up(handle, ifindex).await;
            mending.note((*addr, *pod), Mended::Link, done);
        }
    }
    let routed = routes(handle).await?;
    let resolved = neighbours(handle).await?;
    for known in pods {
        let (addr, pod) = known;
        let (addr, ifindex) = (Ipv4Addr::from(*addr), pod.ifindex.get());
        if !routed.contains(&(ifindex, addr)) {
            let done = add_route(handle, ifindex, addr).await;
            mending.note(*known, Mended::Route, done);
        }
        let mac = pod.mac.octets();
        if !resolved.contains(&(ifindex, addr, mac)) {
            let done = add_neighbour(handle, ifindex, addr, mac).await;
            mending.note(*known, Mended::Neighbour, done);
        }
    }
    Ok(mending)
}

async fn bring_up(handle: &Handle, ifindex: u32) -> Result<bool, StackError> {
    let up = LinkUnspec::new_with_index(ifindex).up().build();
    let set = handle.link().set(up).execute().await;
    let name = ifname(ifindex).unwrap_or_else(|| ifindex.to_string());
    done(set, ifindex, &format!("bring {name} up"))
}

/// Interface and destination of every route to one address in the main table.
async fn routes(handle: &Handle) -> Result<BTreeSet<(u32, Ipv4Addr)>, StackError> {
    let query = RouteMessageBuilder::<Ipv4Addr>::new().build();
    let told = handle.route().get(query).execute().try_collect::<Vec<_>>();
    let told = told.await.map_err(failed("list the routes"))?;
    Ok(told.iter().filter_map(single).collect())
}

fn single(route: &RouteMessage) -> Option<(u32, Ipv4Addr)> {
    if route.header.destination_prefix_length != 32 || u32::from(route.header.table) != MAIN_TABLE {
        return None;
    }
    let (mut to, mut by) = (None, None);
    for attribute in &route.attributes {
        if let RouteAttribute::Destination(RouteAddress::Inet(addr)) = attribute {
            to = Some(*addr);
        } else if let RouteAttribute::Oif(index) = attribute {
            by = Some(*index);
        }
    }
    Some((by?, to?))
}

/// `RT_TABLE_MAIN`.
const MAIN_TABLE: u32 = 254;

/// As ADD makes it, in the place of one that leads elsewhere.
async fn add_route(handle: &Handle, ifindex: u32, addr: Ipv4Addr) -> Result<bool, StackError> {
    let route = RouteMessageBuilder::<Ipv4Addr>::new()
        .output_interface(ifindex)
        .protocol(RouteProtocol::Static)
        .destination_prefix(addr, 32)
        .scope(RouteScope::Link)
        .build();
    let added = handle.route().add(route).replace().execute().await;
    done(added, ifindex, &format!("add the route to {addr}"))
}

/// Interface, address and Ethernet address of every permanent neighbour.
async fn neighbours(handle: &Handle) -> Result<BTreeSet<(u32, Ipv4Addr, [u8; 6])>, StackError> {
    let asked = handle
        .neighbours()
        .get()
        .set_address_family(AddressFamily::Inet);
    let told = asked.execute().try_collect::<Vec<_>>();
    let told = told.await.map_err(failed("list the neighbours"))?;
    Ok(told.iter().filter_map(permanent).collect())
}

fn permanent(neighbour: &NeighbourMessage) -> Option<(u32, Ipv4Addr, [u8; 6])> {
    if neighbour.header.state != NeighbourState::Permanent {
        return None;
    }
    let (mut addr, mut mac) = (None, None);
    for attribute in &neighbour.attributes {
        if let NeighbourAttribute::Destination(NeighbourAddress::Inet(found)) = attribute {
            addr = Some(*found);
        } else if let NeighbourAttribute::LinkLayerAddress(bytes) = attribute {
            mac = bytes.as_slice().try_into().ok();
        }
    }
    Some((neighbour.header.ifindex, addr?, mac?))
}

async fn add_neighbour(
    handle: &Handle,
    ifindex: u32,
    addr: Ipv4Addr,
    mac: [u8; 6],
) -> Result<bool, StackError> {
    let neighbour = handle.neighbours().add(ifindex, IpAddr::V4(addr));
    let added = neighbour.link_layer_address(&mac).replace().execute();
    done(added.await, ifindex, &format!("add the neighbour {addr}"))
}

/// `false`: the interface went meanwhile, and the pod with it. The kernel says the same of one whose MTU is too small for IPv4.
fn done(done: Result<(), Error>, ifindex: u32, what: &str) -> Result<bool, StackError> {
    match done {
        Ok(()) => Ok(true),
        Err(error) if is_gone(&error) && !is_alive(IfIndex::new(ifindex)) => Ok(false),
        Err(source) => Err(failed(what)(source)),
    }
}

fn is_gone(error: &Error) -> bool {
    matches!(error, Error::NetlinkError(error) if error.raw_code() == -nix::libc::ENODEV)
}

fn failed(what: &str) -> impl FnOnce(Error) -> StackError {
    let what = what.to_owned();
    move |source| StackError::Netlink { what, source }
}
