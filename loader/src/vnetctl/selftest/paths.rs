//! The paths between two pods, the node and the platform.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use abi::{Config, ConfigFlags, DropReason, EndpointFlags, Ip4, Path, Pod};
use anyhow::{Context as _, Result, ensure};
use hooks::total;

use super::Selftest;
use super::place::{Place, TestPod};
use super::probe::{NEVER, PATIENCE, bound, connect, dns, ping, tcp, udp};
use crate::classes::WIRESERVER;
use crate::vnetctl::pinned::Pinned;

/// Of a datagram that needs no fragments, and of one that does.
pub(super) const SMALL: usize = 100;
const BIG: usize = 3000;
/// Nobody's (RFC 5737), and an address that no vendor has.
const FORGED: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
const FORGED_MAC: &str = "02:5e:1f:7e:57:01";

impl Selftest {
    pub(super) fn paths(&mut self, pinned: &Pinned, one: &TestPod, other: &TestPod) {
        let (a, b, node) = (Place::Pod(one), Place::Pod(other), Place::Node);
        let (Ok(to_a), Ok(to_b), Ok(config)) = (one.address(), other.address(), config(pinned))
        else {
            return;
        };
        let to_node = Ipv4Addr::from(config.primary);
        self.step("pod a to pod b, TCP", || saw(tcp(a, b, to_b), to_a));
        self.step("pod a to pod b, UDP", || saw(udp(a, b, to_b, SMALL), to_a));
        self.step("pod a to pod b, ping", || {
            ping(a, to_b, PATIENCE).map(|()| "a reply".to_owned())
        });
        self.step("pod a to pod b, UDP in fragments", || {
            saw(udp(a, b, to_b, BIG), to_a)
        });
        self.step("pod a to pod b, UDP as long as the MTU", || {
            saw(udp(a, b, to_b, longest(&config)), to_a)
        });
        self.step("pod b to pod a, TCP", || saw(tcp(b, a, to_a), to_b));
        self.step("pod b to pod a, UDP", || saw(udp(b, a, to_a, SMALL), to_b));
        if config.flags.contains(ConfigFlags::STACK) {
            self.step(
                "pod to pod took the kernel's path (datapath: stack)",
                || slow(pinned, to_a),
            );
        } else {
            self.step("pod to pod took the fast path", || fast(pinned, to_a));
        }
        self.step("node to pod a, TCP", || saw(tcp(node, a, to_a), to_node));
        self.step("node to pod a, UDP", || {
            saw(udp(node, a, to_a, SMALL), to_node)
        });
        self.step("pod a to the node, TCP", || {
            saw(tcp(a, node, to_node), to_a)
        });
        self.step("pod a to the node, UDP", || {
            saw(udp(a, node, to_node, SMALL), to_a)
        });
        self.step("pod a to the node, ping", || {
            ping(a, to_node, PATIENCE).map(|()| "a reply".to_owned())
        });
        self.step("pod a to Azure's DNS", || {
            dns(a, WIRESERVER).map(|bytes| format!("{bytes} bytes"))
        });
        self.outside(pinned, &config, one);
        self.step("pod a to the wireserver, TCP 80", || {
            wireserver(pinned, &config, a)
        });
        if let Some(port) = one.published() {
            self.published(one, other, to_node, port);
        }
        self.step("a forged source address", || {
            one.ip(&format!("address add {FORGED}/32 dev eth0"))?;
            let sent = dropped(pinned, DropReason::SourceAddress, || {
                send(a, FORGED, b, to_b)
            });
            one.ip(&format!("address del {FORGED}/32 dev eth0"))
                .and(sent)
        });
        self.step("a forged Ethernet address", || {
            let own = one.ip("-o link show dev eth0")?;
            let own = own
                .split("link/ether ")
                .nth(1)
                .and_then(|rest| rest.split(' ').next());
            let own = own.context("eth0 has no Ethernet address")?;
            one.ip(&format!("link set dev eth0 address {FORGED_MAC}"))?;
            let sent = dropped(pinned, DropReason::SourceMac, || send(a, to_a, b, to_b));
            one.ip(&format!("link set dev eth0 address {own}"))
                .and(sent)
        });
    }
}

fn saw(client: Result<IpAddr>, expected: Ipv4Addr) -> Result<String> {
    let client = client?;
    ensure!(
        client == IpAddr::V4(expected),
        "the server saw {client}, not {expected}"
    );
    Ok(format!("from {client}"))
}

fn config(pinned: &Pinned) -> Result<Config> {
    let config = pinned.maps.config.get(&0, 0);
    Ok(config.context("read the map `config`")?.0)
}

fn registered(pinned: &Pinned, pod: Ipv4Addr) -> Result<Pod> {
    let pods = pinned.pods()?;
    let pod = pods.get(&Ip4::from(pod));
    Ok(*pod.context("the pod is not in the map `pods`")?)
}

/// Nothing passes the kernel's rules by.
fn slow(pinned: &Pinned, pod: Ipv4Addr) -> Result<String> {
    let pod = registered(pinned, pod)?;
    let packets = |path: Path| anyhow::Ok(total(&pinned.maps.stats, path.index(pod.slot))?.packets);
    for path in [Path::ToPod, Path::ToVnet, Path::ToInternet] {
        let (fast, name) = (packets(path)?, path.name());
        ensure!(
            fast == 0,
            "{fast} packets went `{name}`, around the kernel's rules"
        );
    }
    Ok(format!("{} packets `to_stack`", packets(Path::ToStack)?))
}

/// Of a datagram that just needs no fragments, the bytes behind the headers of IP and UDP.
fn longest(config: &Config) -> usize {
    usize::from(config.mtu).saturating_sub(28)
}

/// On the node from veth to veth; in a tunnel mode over the fabric.
fn fast(pinned: &Pinned, pod: Ipv4Addr) -> Result<String> {
    let pod = registered(pinned, pod)?;
    let path = if pod.flags.contains(EndpointFlags::TUNNEL) {
        Path::ToVnet
    } else {
        Path::ToPod
    };
    let packets = total(&pinned.maps.stats, path.index(pod.slot))?.packets;
    let name = path.name();
    ensure!(
        packets > 0,
        "no packet went `{name}`: all of them went through the kernel"
    );
    Ok(format!("{packets} packets `{name}`"))
}

/// Open only when it is configured so.
fn wireserver(pinned: &Pinned, config: &Config, from: Place<'_>) -> Result<String> {
    let at = SocketAddr::from((WIRESERVER, 80));
    if !config.flags.contains(ConfigFlags::BLOCK_WIRESERVER) {
        return from
            .run(move || connect(at, NEVER))
            .map(|_| "open (blockWireserver: false)".to_owned());
    }
    dropped(pinned, DropReason::Wireserver, || {
        from.run(move || connect(at, NEVER)).map(drop)
    })
}

/// Something that must not arrive, and must be counted.
pub(super) fn dropped(
    pinned: &Pinned,
    reason: DropReason,
    send: impl FnOnce() -> Result<()>,
) -> Result<String> {
    let count = || total(&pinned.maps.drops, reason.index()).map(|counter| counter.packets);
    let before = count()?;
    ensure!(send().is_err(), "it arrived");
    let more = count()?.saturating_sub(before);
    ensure!(
        more > 0,
        "it did not arrive, but was not counted as `{}`",
        reason.name()
    );
    Ok(format!("dropped and counted as `{}`", reason.name()))
}

/// A datagram from `source` to another pod; an error when it does not arrive.
fn send(from: Place<'_>, source: Ipv4Addr, to: Place<'_>, address: Ipv4Addr) -> Result<()> {
    let server = to.run(move || bound(address))?;
    let at = server.local_addr()?;
    let client = from.run(move || bound(source))?;
    client.send_to(b"forged", at).context("send")?;
    server.set_read_timeout(Some(NEVER))?;
    server.recv(&mut [0; 16]).map(drop).context("nothing comes")
}
