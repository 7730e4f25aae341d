//! What is measured, where, and of whom: the words of the report.

use std::fmt::{Display, Formatter};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub(crate) enum Measure {
    /// Bytes of TCP, by iperf3
    TcpStream,
    /// A byte there and back over a connection that stays
    TcpRr,
    /// Connect, a byte there and back, close
    TcpCrr,
    /// Small datagrams
    UdpPps,
    /// Latency while datagrams come at a fixed rate
    LatencyLoad,
    /// ADD of the whole plug-in, its IPAM included
    Add,
    /// DEL of the same
    Del,
    /// A flood that is dropped
    XdpDrop,
    /// New connections beside 10 to 250 pods
    GrowthPods,
    /// New connections beside 0 to 200,000 bindings
    GrowthBindings,
    /// New connections with 0 to 1,000 prefixes that are not masqueraded
    GrowthExclusions,
    /// New connections beside 0 to 5,000 Services of kube-proxy, in its iptables shape
    GrowthServicesIptables,
    /// The same in its nftables shape
    GrowthServicesNft,
    /// ADD beside 0 to 250 pods
    GrowthAdd,
}

impl Measure {
    /// Measures whose path is a number of something.
    pub(crate) const GROWTH: [Self; 6] = [
        Self::GrowthPods,
        Self::GrowthBindings,
        Self::GrowthExclusions,
        Self::GrowthServicesIptables,
        Self::GrowthServicesNft,
        Self::GrowthAdd,
    ];

    pub(crate) fn grows(self) -> bool {
        Self::GROWTH.contains(&self)
    }

    /// How much there is of what grows.
    pub(crate) fn points(self) -> &'static [u32] {
        match self {
            Self::GrowthPods => &[10, 50, 100, 175, 250],
            Self::GrowthAdd => &[0, 10, 50, 100, 175, 250],
            Self::GrowthBindings => &[0, 50_000, 100_000, 200_000],
            Self::GrowthExclusions => &[0, 250, 500, 1000],
            Self::GrowthServicesIptables | Self::GrowthServicesNft => &[0, 1000, 2500, 5000],
            Self::TcpStream
            | Self::TcpRr
            | Self::TcpCrr
            | Self::UdpPps
            | Self::LatencyLoad
            | Self::Add
            | Self::Del
            | Self::XdpDrop => &[],
        }
    }

    /// With what the later points are compared: the first point, but of ADD beside pods the 10 that its bar is about.
    pub(crate) fn base(self) -> u32 {
        if self == Self::GrowthAdd {
            return 10;
        }
        self.points().first().copied().unwrap_or_default()
    }

    /// A heading.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::TcpStream => "TCP stream",
            Self::TcpRr => "TCP request/response",
            Self::TcpCrr => "TCP connect, request, response, close",
            Self::UdpPps => "Small UDP packets",
            Self::LatencyLoad => "Latency under load",
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::XdpDrop => "A flood that is dropped",
            Self::GrowthPods => "New connections to the Internet, by pods on the node",
            Self::GrowthBindings => "New connections to the Internet, by bindings that are there",
            Self::GrowthExclusions => {
                "New connections to the Internet, by prefixes without masquerading"
            }
            Self::GrowthServicesIptables => {
                "New connections to the Internet, by Services (iptables)"
            }
            Self::GrowthServicesNft => "New connections to the Internet, by Services (nftables)",
            Self::GrowthAdd => "ADD, by pods on the node",
        }
    }
}

impl Display for Measure {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let value = self.to_possible_value();
        f.write_str(value.as_ref().map_or("", |value| value.get_name()))
    }
}

/// Whose figure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SideName {
    Host,
    Bridge,
    Ptp,
    Ours,
}

impl SideName {
    pub(crate) const ALL: [Self; 4] = [Self::Host, Self::Bridge, Self::Ptp, Self::Ours];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Bridge => "bridge",
            Self::Ptp => "ptp",
            Self::Ours => "ours",
        }
    }
}

impl Display for SideName {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// The way that packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Path {
    ToVnet,
    FromVnet,
    Local,
    Internet,
}

impl Path {
    pub(crate) const ALL: [Self; 4] = [Self::ToVnet, Self::FromVnet, Self::Local, Self::Internet];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::ToVnet => "pod→VNet",
            Self::FromVnet => "VNet→pod",
            Self::Local => "pod↔pod",
            Self::Internet => "pod→Internet",
        }
    }
}

impl Display for Path {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// What follows the path in `tcp_stream`: one connection, and as many as there are CPUs.
pub(crate) const STREAMS: [&str; 2] = [", 1 stream", ", n streams"];

/// What follows the path of each round's latency: half, and all but the slowest of a hundred, took no longer.
pub(crate) const HALF: &str = ", p50";
pub(crate) const SLOWEST: &str = ", p99";

/// The paths of `xdp_drop`: frames a second, of which making them is a part; that part alone; and what is left without it.
pub(crate) const FLOOD: &str = "host: nft ingress, bridge and ptp: iptables, ours: guard";
pub(crate) const MAKING: &str = "making the frame alone, dropped nowhere";
pub(crate) const DROP: &str = "the drop alone, without making the frame";

/// The path of the first point of something that grows (`Measure::base`), as it is beside a later one.
pub(crate) fn again(point: u32) -> String {
    format!("{point}, first point again")
}

/// The path of how much more a later point costs than the first one, round by round.
pub(crate) fn grown(point: u32) -> String {
    format!("{point}, × the first point")
}

/// What a figure counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Unit {
    #[serde(rename = "Gbit/s")]
    Gigabits,
    #[serde(rename = "1/s")]
    PerSecond,
    #[serde(rename = "ms")]
    Milliseconds,
    #[serde(rename = "us")]
    Microseconds,
    /// Of another figure.
    #[serde(rename = "x")]
    Times,
}

impl Unit {
    /// Whether more of it is worse.
    pub(crate) fn less_is_better(self) -> bool {
        matches!(self, Self::Milliseconds | Self::Microseconds | Self::Times)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Gigabits => "Gbit/s",
            Self::PerSecond => "1/s",
            Self::Milliseconds => "ms",
            Self::Microseconds => "µs",
            Self::Times => "×",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn add_grows_from_no_pods_and_otherwise_beside_as_many_as_connections_do() {
        let (add, connections) = (Measure::GrowthAdd, Measure::GrowthPods);
        assert_eq!(add.points(), [&[0], connections.points()].concat());
        assert_eq!((add.base(), connections.base()), (10, 10));
        assert_eq!(Measure::GrowthBindings.base(), 0);
    }
}
