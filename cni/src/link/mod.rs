//! Netlink, all of it: one connection per network namespace, made there and used from here.
//!
//! [`change`] creates and configures, [`query`] looks. The calls block; the runtime behind them is current-thread.

mod change;
mod query;

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use futures_util::StreamExt as _;
use futures_util::stream::{LocalBoxStream, Stream};
use rpc::MacAddr;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage, State};
use rtnetlink::sys::SocketAddr;
use rtnetlink::{Handle, MulticastGroup};
use tokio::runtime::Runtime;

pub(crate) use change::Pair;
pub(crate) use query::Route;

use crate::deadline::Patience;
use crate::netns::{Netns, NetnsError};

/// The routing table that is looked at by default (`RT_TABLE_MAIN`).
pub(crate) const MAIN_TABLE: u32 = 254;

/// The kernel refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    #[error("{doing}: {source}; see the kernel's log (dmesg)")]
    Netlink { doing: String, source: io::Error },
    #[error(transparent)]
    Netns(#[from] NetnsError),
    #[error(
        "bring up {ifname} in the pod: no carrier within {patience}; see `ip link` on both sides"
    )]
    NoCarrier { ifname: String, patience: Patience },
    #[error(
        "look at {ifname}, just made: it is gone; somebody else deletes interfaces on this node"
    )]
    Vanished { ifname: String },
}

impl LinkError {
    /// True when something of that name or address is there already.
    pub(crate) fn exists(&self) -> bool {
        matches!(self, Self::Netlink { source, .. } if source.kind() == io::ErrorKind::AlreadyExists)
    }

    /// True when the interface is not there (any more).
    fn is_no_such_link(&self) -> bool {
        matches!(self, Self::Netlink { source, .. } if source.raw_os_error() == Some(nix::libc::ENODEV))
    }
}

/// An interface, as the kernel tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) mac: Option<MacAddr>,
    /// Bytes.
    pub(crate) mtu: u32,
    /// Administratively up.
    pub(crate) up: bool,
    /// Up and with carrier: the kernel really sends.
    pub(crate) running: bool,
    /// Of a veth: the index that the other end has in its namespace.
    pub(crate) peer: Option<u32>,
}

type Event = (NetlinkMessage<RouteNetlinkMessage>, SocketAddr);

/// A connection in one network namespace.
pub(crate) struct Netlink {
    runtime: Rc<Runtime>,
    handle: Handle,
    /// Changes of links in this namespace; nothing for the node's own.
    events: RefCell<Option<LocalBoxStream<'static, Event>>>,
}

impl Netlink {
    /// In the caller's namespace.
    pub(crate) fn here(runtime: &Rc<Runtime>) -> Result<Self, LinkError> {
        let _context = runtime.enter();
        let (connection, handle, events) = rtnetlink::new_connection().map_err(connect)?;
        runtime.spawn(connection);
        Ok(Self::new(runtime, handle, events))
    }

    /// In `netns`, subscribed to what happens to its links.
    pub(crate) fn inside(netns: &Netns, runtime: &Rc<Runtime>) -> Result<Self, LinkError> {
        let context = runtime.handle().clone();
        let (connection, handle, events) = netns
            .enter(move || {
                let _context = context.enter();
                rtnetlink::new_multicast_connection(&[MulticastGroup::Link])
            })?
            .map_err(connect)?;
        runtime.spawn(connection);
        Ok(Self::new(runtime, handle, events))
    }

    fn new(
        runtime: &Rc<Runtime>,
        handle: Handle,
        events: impl Stream<Item = Event> + 'static,
    ) -> Self {
        Self {
            runtime: Rc::clone(runtime),
            handle,
            events: RefCell::new(Some(events.boxed_local())),
        }
    }

    /// Waits until the kernel sends over `link`, told by its own notice.
    ///
    /// Between carrier and notice the interface drops what it should send; nobody may be told that the pod is ready. Can be
    /// waited for once.
    pub(crate) fn wait_until_running(
        &self,
        link: &Link,
        patience: Patience,
    ) -> Result<(), LinkError> {
        let events = self.events.take();
        let notice = async {
            let Some(mut events) = events else {
                return false;
            };
            while let Some((message, _)) = events.next().await {
                if let NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(news)) =
                    message.payload
                    && read(&news).is_some_and(|news| news.index == link.index && news.running)
                {
                    return true;
                }
            }
            false
        };
        let heard = self
            .runtime
            .block_on(async { tokio::time::timeout(patience.limit(), notice).await });
        if heard == Ok(true) {
            return Ok(());
        }
        Err(LinkError::NoCarrier {
            ifname: link.name.clone(),
            patience,
        })
    }

    fn run<T>(
        &self,
        doing: impl FnOnce() -> String,
        request: impl Future<Output = Result<T, rtnetlink::Error>>,
    ) -> Result<T, LinkError> {
        self.runtime
            .block_on(request)
            .map_err(|error| LinkError::Netlink {
                doing: doing(),
                source: io_error(&error),
            })
    }
}

/// What we need of a link message.
fn read(message: &LinkMessage) -> Option<Link> {
    let mut name = None;
    let mut mac = None;
    let mut mtu = 0;
    let mut running = false;
    let mut peer = None;
    for attribute in &message.attributes {
        if let LinkAttribute::IfName(text) = attribute {
            name = Some(text.clone());
        } else if let LinkAttribute::Address(bytes) = attribute {
            mac = bytes.as_slice().try_into().ok().map(MacAddr);
        } else if let LinkAttribute::Mtu(bytes) = attribute {
            mtu = *bytes;
        } else if let LinkAttribute::OperState(state) = attribute {
            running = *state == State::Up;
        } else if let LinkAttribute::Link(index) = attribute {
            peer = Some(*index);
        }
    }
    Some(Link {
        index: message.header.index,
        name: name?,
        mac,
        mtu,
        up: message.header.flags.contains(LinkFlags::Up),
        running,
        peer,
    })
}

fn connect(source: io::Error) -> LinkError {
    LinkError::Netlink {
        doing: "open a netlink socket".into(),
        source,
    }
}

fn io_error(error: &rtnetlink::Error) -> io::Error {
    if let rtnetlink::Error::NetlinkError(message) = error {
        message.to_io()
    } else {
        io::Error::other(error.to_string())
    }
}
