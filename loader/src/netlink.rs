//! When have the node's links, addresses, routes or routing rules changed?

use std::io;
use std::time::Duration;

use futures_util::StreamExt as _;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_packet_route::route::{RouteAttribute, RouteMessage};
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::sys::SocketAddr;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::nic;

/// A burst has ended after this long without another change …
const QUIET: Duration = Duration::from_millis(50);
/// … or is not waited for any longer.
const PATIENCE: Duration = Duration::from_millis(300);

type Messages =
    futures_util::stream::BoxStream<'static, (NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>;

/// Listens to the kernel's announcements in this network namespace.
pub(crate) struct Changes {
    messages: Messages,
    connection: JoinHandle<()>,
}

impl Changes {
    /// Starts to listen; what changed earlier is not told.
    pub(crate) fn listen() -> io::Result<Self> {
        let (connection, _handle, messages) = rtnetlink::new_multicast_connection(&[
            MulticastGroup::Link,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv4Rule,
        ])?;
        Ok(Self {
            messages: messages.boxed(),
            connection: tokio::spawn(connection),
        })
    }

    /// Waits for a change and for the end of the burst that it belongs to; `false` when nothing will be told any more.
    pub(crate) async fn next(&mut self) -> bool {
        loop {
            match self.messages.next().await {
                Some((message, _)) if matters(&message.payload) => break,
                Some(_) => {}
                None => return false,
            }
        }
        let settled =
            async { while let Ok(Some(_)) = timeout(QUIET, self.messages.next()).await {} };
        // Out of patience is as good as settled: what comes later is told at the next call.
        let _settled = timeout(PATIENCE, settled).await;
        true
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// Pods come and go all the time, and no class depends on their own links and routes. Everything else counts, above all
/// an overrun: the kernel had more to tell than the socket could hold.
fn matters(payload: &NetlinkPayload<RouteNetlinkMessage>) -> bool {
    let NetlinkPayload::InnerMessage(message) = payload else {
        return true;
    };
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the kernel tells what we subscribed to"
    )]
    match message {
        RouteNetlinkMessage::NewLink(link) | RouteNetlinkMessage::DelLink(link) => {
            !name(link).is_some_and(nic::is_host_veth)
        }
        RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route) => {
            !outgoing(route)
                .and_then(nic::ifname)
                .is_some_and(|name| nic::is_host_veth(&name))
        }
        _ => true,
    }
}

fn name(link: &LinkMessage) -> Option<&str> {
    link.attributes.iter().find_map(|attribute| {
        let LinkAttribute::IfName(name) = attribute else {
            return None;
        };
        Some(name.as_str())
    })
}

fn outgoing(route: &RouteMessage) -> Option<u32> {
    route.attributes.iter().find_map(|attribute| {
        let RouteAttribute::Oif(index) = attribute else {
            return None;
        };
        Some(*index)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overrun_is_a_change_and_a_pods_link_is_none() {
        assert!(matters(&NetlinkPayload::Overrun(Vec::new())));
        for (name, expected) in [("azv0123456789a", false), ("docker0", true)] {
            let mut link = LinkMessage::default();
            link.attributes.push(LinkAttribute::IfName(name.into()));
            let message = RouteNetlinkMessage::NewLink(link);
            assert_eq!(
                matters(&NetlinkPayload::InnerMessage(message)),
                expected,
                "{name}"
            );
        }
    }
}
