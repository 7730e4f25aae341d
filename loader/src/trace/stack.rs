//! What will the kernel do with what the programs leave to it? Asked of its routing table and of our own nftables table; rules of
//! others are named, not followed.

use std::fs;
use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};
use futures_util::TryStreamExt as _;
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use rtnetlink::RouteMessageBuilder;
use serde::Serialize;
use serde_json::Value;

use crate::bounded::{RunError, run};
use crate::foreign::{self, Filter};
use crate::{fallback, nic};

/// What the kernel does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "documents", derive(schemars::JsonSchema))]
pub struct Stack {
    /// Where its routing leads, before anybody's rules translate the packet.
    pub route: Route,
    /// Whether our own table masquerades it; `None` when nobody knows, because `nft` does not tell.
    pub masquerade: Option<bool>,
    /// Chains of others that may translate the packet first, as kube-proxy's do.
    pub translators: Vec<String>,
    /// Who filters what is forwarded, and may drop it: a place and its rule each.
    pub filters: Vec<String>,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "documents", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case", tag = "to")]
pub enum Route {
    /// A socket of the node.
    Node,
    /// Out of an interface.
    Interface {
        /// Its name.
        interface: String,
        /// The next hop, where it is not the destination itself.
        gateway: Option<Ipv4Addr>,
    },
    /// Nowhere; the sender may be told.
    Nowhere {
        /// What the kernel says.
        why: String,
    },
}

/// The packet as it comes to the kernel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arriving {
    pub(super) src: Ipv4Addr,
    pub(super) dst: Ipv4Addr,
    pub(super) ifindex: u32,
    pub(super) mark: u32,
}

/// Asks the kernel. `nic` is the one that packets are masqueraded for.
pub(super) fn ask(packet: Arriving, nic: u32) -> Result<Stack> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .context("start a runtime")?;
    let route = runtime.block_on(route(packet))?;
    let leaves = |index| nic::ifname(index).is_some_and(|name| route.interface() == Some(&name));
    let from_pod = nic::ifname(packet.ifindex).is_some_and(|name| nic::is_host_veth(&name));
    let masquerade = if leaves(nic) && from_pod {
        masquerades(packet.dst)
    } else {
        Some(false)
    };
    Ok(Stack {
        masquerade,
        translators: translators(),
        filters: match &route {
            Route::Interface { .. } => filters(),
            Route::Node | Route::Nowhere { .. } => Vec::new(),
        },
        route,
    })
}

impl Route {
    fn interface(&self) -> Option<&String> {
        match self {
            Self::Interface { interface, .. } => Some(interface),
            Self::Node | Self::Nowhere { .. } => None,
        }
    }
}

async fn route(packet: Arriving) -> Result<Route> {
    let (connection, handle, _messages) =
        rtnetlink::new_connection().context("open a netlink socket")?;
    let connection = tokio::spawn(connection);
    let question = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(packet.dst, 32)
        .source_prefix(packet.src, 32)
        .input_interface(packet.ifindex)
        .mark(packet.mark)
        .build();
    let answer: Result<Vec<RouteMessage>, _> =
        handle.route().get(question).execute().try_collect().await;
    connection.abort();
    match answer {
        Ok(routes) => Ok(routes
            .first()
            .map_or_else(|| nowhere("no route"), of_message)),
        Err(rtnetlink::Error::NetlinkError(error)) => Ok(nowhere(&error.to_io().to_string())),
        Err(error) => Err(error).context("ask the kernel for a route"),
    }
}

fn nowhere(why: &str) -> Route {
    Route::Nowhere {
        why: why.to_owned(),
    }
}

fn of_message(message: &RouteMessage) -> Route {
    let (mut index, mut gateway) = (0, None);
    for attribute in &message.attributes {
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "the kernel tells many other things"
        )]
        match attribute {
            RouteAttribute::Oif(oif) => index = *oif,
            RouteAttribute::Gateway(RouteAddress::Inet(addr)) => gateway = Some(*addr),
            _ => {}
        }
    }
    match (message.header.kind, nic::ifname(index)) {
        (RouteType::Local | RouteType::Broadcast, _) => Route::Node,
        (RouteType::Unicast, Some(interface)) => Route::Interface { interface, gateway },
        (kind, _) => nowhere(&format!("{kind:?}").to_lowercase()),
    }
}

/// Whether our table translates what goes out of the NIC to `dst`.
fn masquerades(dst: Ipv4Addr) -> Option<bool> {
    if !fallback::is_installed().unwrap_or(false) {
        return None;
    }
    let element = format!("{{ {dst} }}");
    let get = ["get", "element", "ip", "azure-vnet", "no_masquerade"];
    match run("nft", &[&get[..], &[&element]].concat()) {
        Ok(_) => Some(false),
        Err(RunError::Failed { .. }) => Some(true),
        Err(_) => None,
    }
}

/// Filters of others on the way of what is forwarded.
fn filters() -> Vec<String> {
    let of = |filter: &Filter| {
        let Filter { owner, place, rule } = filter;
        format!("{} ({place}: {rule})", owner.title())
    };
    let unknown = |error| format!("nobody knows who: {error}");
    match foreign::look() {
        Ok((found, unread)) => found.iter().map(of).chain(unread.map(unknown)).collect(),
        Err(error) => vec![unknown(error)],
    }
}

/// Chains that translate destinations before the kernel routes.
fn translators() -> Vec<String> {
    let text = run("nft", &["-j", "list", "chains"]).unwrap_or_default();
    let listed: Value = serde_json::from_str(&text).unwrap_or_default();
    let objects = listed.pointer("/nftables").and_then(Value::as_array);
    let chains = objects.into_iter().flatten();
    let translators = chains.filter_map(|object| {
        let chain = object.get("chain")?;
        let is = |key: &str, value: &str| chain.get(key).and_then(Value::as_str) == Some(value);
        let word = |key: &str| chain.get(key).and_then(Value::as_str);
        (is("type", "nat") && is("hook", "prerouting"))
            .then_some([word("family")?, word("table")?, word("name")?].join(" "))
    });
    // To ask iptables-legacy would load its modules.
    let tables = fs::read_to_string("/proc/thread-self/net/ip_tables_names").unwrap_or_default();
    let legacy = tables.lines().find(|table| *table == "nat");
    translators
        .chain(legacy.map(|_| "iptables-legacy nat".to_owned()))
        .collect()
}
