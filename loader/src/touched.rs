//! What has somebody done to pods' links, filters, routes and neighbours, to the NIC's, to sysctls, or to our nft table?
//!
//! Read as bytes: of a message only its type, the interface and the destination matter, and one that a library cannot
//! decode must not be missed.

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::io;
use std::mem;
use std::net::Ipv4Addr;
use std::time::Duration;

use abi::{Ip4, Pod};
use rtnetlink::sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use rtnetlink::sys::{AsyncSocket as _, SocketAddr, TokioSocket};
use tokio::time::{sleep, timeout};
use tracing::warn;

use crate::fallback::TABLE;
use crate::tunnel;

/// A burst has ended after this long without another change …
const QUIET: Duration = Duration::from_millis(50);
/// … or is not waited for any longer.
const PATIENCE: Duration = Duration::from_millis(300);

/// Of `linux/rtnetlink.h`: link, neighbours, tc, IPv4 routes and rules, settings of IPv4 and of IPv6.
const ROUTE_GROUPS: [u32; 7] = [1, 3, 4, 7, 8, 24, 25];
/// `NFNLGRP_NFTABLES`.
const NFT_GROUPS: [u32; 1] = [7];
/// `struct nlmsghdr`.
const HEADER: usize = 16;
/// `NFTA_TABLE_NAME`, `NFTA_CHAIN_TABLE`, `NFTA_RULE_TABLE`, `NFTA_SET_TABLE` and `NFTA_SET_ELEM_LIST_TABLE` all are.
const NFT_TABLE: u16 = 1;
/// `RTA_DST`.
const DESTINATION: u16 = 1;

/// `NETCONFA_IFINDEX`; negative for those of all interfaces.
const SETTINGS_OF: u16 = 1;
/// `RTA_TABLE`.
const IN_TABLE: u16 = 15;

/// What may not be any more as it was.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Touched {
    /// Everything: the kernel had more to tell than the socket could hold.
    pub(crate) all: bool,
    /// The way out of pods in a tunnel mode.
    pub(crate) tunnels: bool,
    /// Our nft table.
    pub(crate) fallback: bool,
    /// Interfaces, by index: themselves, their qdiscs, filters or settings.
    pub(crate) links: BTreeSet<u32>,
    /// Interfaces whose neighbours came, went or changed: the NIC's do all the time.
    pub(crate) neighbours: BTreeSet<u32>,
    /// Destinations whose route came or went.
    pub(crate) routes: BTreeSet<Ipv4Addr>,
}

impl Touched {
    /// As if all had been.
    pub(crate) fn everything() -> Self {
        Self {
            all: true,
            ..Self::default()
        }
    }

    /// Whether something is ours: much happens on a busy node to interfaces, neighbours and routes of others.
    pub(crate) fn concerns(&self, nic: u32, pods: &BTreeMap<Ip4, Pod>) -> bool {
        // Negative: settings of all interfaces.
        let is_all = |ifindex: &u32| *ifindex > i32::MAX.cast_unsigned();
        let is_pods = |(addr, pod): (&Ip4, &Pod)| {
            let ifindex = pod.ifindex.get();
            self.links.contains(&ifindex)
                || self.neighbours.contains(&ifindex)
                || self.routes.contains(&(*addr).into())
        };
        self.all
            || self.tunnels
            || self.fallback
            || self.links.contains(&nic)
            || self.links.iter().any(is_all)
            || pods.iter().any(is_pods)
    }
}

/// Listens in this network namespace.
pub(crate) struct Events {
    route: TokioSocket,
    nft: TokioSocket,
    /// What was told and not asked for yet.
    pending: Touched,
}

impl Events {
    /// Starts to listen; what was done earlier is not told.
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self {
            route: subscribe(NETLINK_ROUTE, &ROUTE_GROUPS)?,
            nft: subscribe(NETLINK_NETFILTER, &NFT_GROUPS)?,
            pending: Touched::default(),
        })
    }

    /// Waits for something and for the end of the burst that it belongs to. Who stops waiting misses nothing.
    pub(crate) async fn next(&mut self) -> Touched {
        while self.pending == Touched::default() {
            self.receive().await;
        }
        let settled = async { while timeout(QUIET, self.receive()).await.is_ok() {} };
        // Out of patience is as good as settled: what comes later is told at the next call.
        let _settled = timeout(PATIENCE, settled).await;
        mem::take(&mut self.pending)
    }

    async fn receive(&mut self) {
        let (told, read): (_, fn(&[u8], &mut Touched)) = tokio::select! {
            told = receive(&self.route) => (told, route_message),
            told = receive(&self.nft) => (told, nft_message),
        };
        let touched = &mut self.pending;
        match told {
            Ok(bytes) => messages(&bytes).for_each(|message| read(message, touched)),
            Err(error) => {
                touched.all = true;
                if error.raw_os_error() != Some(nix::libc::ENOBUFS) {
                    warn!(%error, "listen to the kernel's announcements");
                    sleep(PATIENCE).await;
                }
            }
        }
    }
}

fn subscribe(protocol: isize, groups: &[u32]) -> io::Result<TokioSocket> {
    let mut socket = TokioSocket::new(protocol)?;
    let inner = socket.socket_mut();
    inner.bind(&SocketAddr::new(0, 0))?;
    groups
        .iter()
        .try_for_each(|group| inner.add_membership(*group))?;
    Ok(socket)
}

async fn receive(socket: &TokioSocket) -> io::Result<Vec<u8>> {
    let (bytes, _from) = poll_fn(|context| socket.poll_recv_from_full(context)).await?;
    Ok(bytes)
}

/// The messages of a datagram, headers included.
fn messages(mut rest: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let length = usize::try_from(u32_at(rest, 0)?).ok()?;
        let message = rest
            .get(..length)
            .filter(|message| message.len() >= HEADER)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// `ifinfomsg`, `ndmsg` and `tcmsg` have the interface at the same place.
fn route_message(message: &[u8], touched: &mut Touched) {
    match u16_at(message, 4) {
        // RTM_NEWNEIGH, RTM_DELNEIGH.
        Some(28 | 29) => touched.neighbours.extend(u32_at(message, HEADER + 4)),
        // RTM_NEWLINK, RTM_DELLINK; …QDISC, …TCLASS, …TFILTER.
        Some(16 | 17 | 36 | 37 | 40 | 41 | 44 | 45) => {
            touched.links.extend(u32_at(message, HEADER + 4));
        }
        // RTM_NEWROUTE, RTM_DELROUTE.
        Some(24 | 25) => {
            let destination = attribute(message, 12, DESTINATION);
            let octets = destination.and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
            touched.routes.extend(octets.map(Ipv4Addr::from));
            let table = attribute(message, 12, IN_TABLE).and_then(|bytes| u32_at(bytes, 0));
            touched.tunnels |= table == Some(tunnel::TABLE);
        }
        // RTM_NEWRULE, RTM_DELRULE.
        Some(32 | 33) => touched.tunnels = true,
        // RTM_NEWNETCONF, RTM_DELNETCONF.
        Some(80 | 81) => {
            let ifindex = attribute(message, 4, SETTINGS_OF);
            touched
                .links
                .extend(ifindex.and_then(|bytes| u32_at(bytes, 0)));
        }
        _ => {}
    }
}

fn nft_message(message: &[u8], touched: &mut Touched) {
    let table = attribute(message, 4, NFT_TABLE);
    touched.fallback |=
        table.is_some_and(|name| name.strip_suffix(b"\0") == Some(TABLE.as_bytes()));
}

/// The first attribute of this type, behind a header of the family's own of `skip` bytes.
fn attribute(message: &[u8], skip: usize, kind: u16) -> Option<&[u8]> {
    let mut rest = message.get(HEADER + skip..)?;
    loop {
        let length = usize::from(u16_at(rest, 0)?);
        let value = rest.get(4..length)?;
        // The upper two bits say how the value is to be read.
        if u16_at(rest, 2)? & 0x3fff == kind {
            return Some(value);
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at + 2)?;
    Some(u16::from_ne_bytes(bytes.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(HEADER + body.len()).unwrap();
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.resize(HEADER, 0);
        bytes.extend(body);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn attribute_of(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(4 + value.len()).unwrap();
        let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn what_happens_to_others_is_no_reason_to_look() {
        let pod = Pod {
            ifindex: abi::IfIndex::new(7),
            mac: abi::Mac::new([2; 6]),
            host_mac: abi::Mac::new([3; 6]),
            slot: abi::Slot::new(1),
            generation: 1,
            flags: abi::EndpointFlags::NONE,
        };
        let addr = Ipv4Addr::new(10, 240, 1, 10);
        let pods = BTreeMap::from([(Ip4::from(addr), pod)]);
        let links = |links: &[u32]| Touched {
            links: links.iter().copied().collect(),
            ..Touched::default()
        };
        let neighbours = |ifindex| Touched {
            neighbours: [ifindex].into(),
            ..Touched::default()
        };
        let route = |addr| Touched {
            routes: [addr].into(),
            ..Touched::default()
        };
        let ours = [
            links(&[2]),
            links(&[9, 7]),
            links(&[u32::MAX]),
            neighbours(7),
            route(addr),
        ];
        for touched in ours {
            assert!(touched.concerns(2, &pods), "{touched:?}");
        }
        for touched in [
            links(&[9]),
            neighbours(9),
            neighbours(2),
            route(Ipv4Addr::LOCALHOST),
        ] {
            assert!(!touched.concerns(2, &pods), "{touched:?}");
        }
    }

    #[test]
    fn links_filters_neighbours_routes_and_settings_are_told_apart() {
        let on = |ifindex: u32| [[0; 4], ifindex.to_ne_bytes()].concat();
        let route = [
            vec![0; 12],
            attribute_of(15, &[254, 0, 0, 0]),
            attribute_of(DESTINATION, &[10, 240, 1, 10]),
        ];
        let settings = [
            vec![2, 0, 0, 0],
            attribute_of(SETTINGS_OF, &11_u32.to_ne_bytes()),
        ];
        let datagram = [
            message(17, &on(7)),
            message(45, &on(8)),
            message(29, &on(9)),
            message(25, &route.concat()),
            message(33, &[0; 12]),
            message(80, &settings.concat()),
            message(99, &on(10)),
        ];
        let mut touched = Touched::default();
        messages(&datagram.concat()).for_each(|message| route_message(message, &mut touched));
        let expected = Touched {
            tunnels: true,
            links: [7, 8, 11].into(),
            neighbours: [9].into(),
            routes: [Ipv4Addr::new(10, 240, 1, 10)].into(),
            ..Touched::default()
        };
        assert_eq!(touched, expected);
    }

    #[test]
    fn only_our_own_nft_table_matters() {
        for (name, expected) in [
            ("azure-vnet\0", true),
            ("azure-vnet2\0", false),
            ("kube-proxy\0", false),
        ] {
            let body = [vec![2, 0, 0, 0], attribute_of(NFT_TABLE, name.as_bytes())].concat();
            let mut touched = Touched::default();
            messages(&message(0x0a01, &body))
                .for_each(|message| nft_message(message, &mut touched));
            assert_eq!(touched.fallback, expected, "{name:?}");
        }
    }

    #[test]
    fn what_is_cut_off_or_nonsense_is_nothing() {
        for bytes in [
            &[][..],
            &[1],
            &[0; 16],
            &[255; 64],
            &[8, 0, 0, 0, 17, 0, 0, 0],
        ] {
            let mut touched = Touched::default();
            messages(bytes).for_each(|message| route_message(message, &mut touched));
            assert_eq!(touched, Touched::default(), "{bytes:?}");
        }
    }
}
