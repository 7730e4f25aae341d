//! The way out for packets between pods of this node that shall cross the fabric: to the gateway, although the node
//! knows a shorter way.
//!
//! One routing rule for the mark that `from_pod` sets, and one table with a default route. Only while there are such pods,
//! because the first rule of a node makes all its route look-ups slower. The fabric, like any router, sends what is for
//! this node back to it.

use std::net::Ipv4Addr;

use abi::TUNNEL_MARK;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use rpc::Endpoint;
use rtnetlink::{Error, Handle, RouteMessageBuilder};

use crate::daemon::Daemon;
use crate::trouble::Topic;

/// The routing table, and the priority of the rule that leads to it: before the main table's, after the local one's.
pub(crate) const TABLE: u32 = 7320;

/// The way out cannot be made or removed.
#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    /// There is no connection to netlink.
    #[error("open a netlink socket: {0}")]
    Socket(#[from] std::io::Error),
    /// The kernel refuses.
    #[error("{what}: {source}")]
    Netlink {
        /// What was attempted.
        what: String,
        /// The kernel's reason.
        source: Error,
    },
    /// There is no gateway.
    #[error(
        "send packets between pods to the fabric: {nic} has no default gateway; add a default route, or use mode \
         transparent or bridge"
    )]
    NoGateway {
        /// The NIC.
        nic: String,
    },
}

impl Daemon {
    /// Puts a pod in a tunnel mode into the maps. First the rules for what comes back, and the way out, which `from_pod` uses as soon as the maps say so; and
    /// nobody takes it away again before they do.
    pub(crate) async fn register_tunnelled(&self, endpoint: &Endpoint) -> anyhow::Result<()> {
        self.nft.want_tunnels();
        // Where nft fails or takes too long, the pod is there all the same, and the trouble is told.
        if !self.fallback.borrow().tunnels {
            self.nft.settled().await;
        }
        let _tunnels = self.tunnels.lock().await;
        self.open_tunnel().await?;
        Ok(self.registry.borrow_mut().register(&self.pins, endpoint)?)
    }

    /// Makes the way out for pods in a tunnel mode while there are any, and takes it away when there are none.
    pub(crate) async fn follow_tunnels(&self) {
        let followed = self.try_follow_tunnels().await;
        self.judge(Topic::Tunnel, followed.err().map(|error| error.to_string()));
    }

    async fn try_follow_tunnels(&self) -> anyhow::Result<()> {
        let _tunnels = self.tunnels.lock().await;
        let wanted = self.registry.borrow().has_tunnels()?;
        if wanted {
            self.nft.want_tunnels();
            self.open_tunnel().await?;
        } else {
            close().await?;
        }
        Ok(())
    }

    async fn open_tunnel(&self) -> Result<(), TunnelError> {
        let node = self.node.borrow().clone();
        let gateway = node
            .gateway
            .ok_or(TunnelError::NoGateway { nic: node.nic.nic })?;
        open(node.nic.nic_ifindex, gateway).await
    }
}

/// Makes the way out, or corrects it. Idempotent.
async fn open(nic: u32, gateway: Ipv4Addr) -> Result<(), TunnelError> {
    with_netlink(async |handle| {
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .output_interface(nic)
            .gateway(gateway)
            .table_id(TABLE)
            .build();
        let add = handle.route().add(route).replace().execute().await;
        add.map_err(|source| TunnelError::Netlink {
            what: format!("add the default route over {gateway} to table {TABLE}"),
            source,
        })?;
        let mut rule = handle.rule().add();
        *rule.message_mut() = rule_message();
        tolerate(
            rule.execute().await,
            nix::libc::EEXIST,
            "add a routing rule",
        )
    })
    .await
}

/// Takes the way out away. Not there is success. The table may stay: without the rule nothing leads to it.
async fn close() -> Result<(), TunnelError> {
    with_netlink(async |handle| {
        let removed = handle.rule().del(rule_message()).execute().await;
        tolerate(removed, nix::libc::ENOENT, "remove the routing rule")
    })
    .await
}

/// Takes all of it away, the table too.
pub(crate) async fn remove() -> Result<(), TunnelError> {
    close().await?;
    with_netlink(async |handle| {
        let route = RouteMessageBuilder::<Ipv4Addr>::new().table_id(TABLE);
        let removed = handle.route().del(route.build()).execute().await;
        tolerate(
            removed,
            nix::libc::ESRCH,
            "remove the default route of our table",
        )
    })
    .await
}

/// `fwmark 0x20/0x20 lookup 7320`.
fn rule_message() -> RuleMessage {
    let mut rule = RuleMessage::default();
    rule.header.family = AddressFamily::Inet;
    rule.header.action = RuleAction::ToTable;
    rule.attributes = vec![
        RuleAttribute::Priority(TABLE),
        RuleAttribute::FwMark(TUNNEL_MARK),
        RuleAttribute::FwMask(TUNNEL_MARK),
        RuleAttribute::Table(TABLE),
    ];
    rule
}

async fn with_netlink(
    work: impl AsyncFnOnce(Handle) -> Result<(), TunnelError>,
) -> Result<(), TunnelError> {
    let (connection, handle, _messages) = rtnetlink::new_connection()?;
    let connection = tokio::spawn(connection);
    let done = work(handle).await;
    connection.abort();
    done
}

fn tolerate(done: Result<(), Error>, errno: i32, what: &str) -> Result<(), TunnelError> {
    match done {
        Err(Error::NetlinkError(error)) if error.raw_code() == -errno => Ok(()),
        done => done.map_err(|source| TunnelError::Netlink {
            what: what.to_owned(),
            source,
        }),
    }
}
