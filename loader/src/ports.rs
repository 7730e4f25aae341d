//! Which ports of the primary address may eBPF's SNAT use? None that the node itself hands out.

use std::fmt;
use std::fs;
use std::str::FromStr;

/// An inclusive range of ports, written `1024-29999`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    /// First port.
    pub first: u16,
    /// Last port.
    pub last: u16,
}

/// eBPF SNAT's, unless configured or in somebody's way.
pub const DEFAULT_PORTS: PortRange = PortRange::new(1024, 29_999);
/// What kube-proxy gives to `NodePort`s unless the API server is told otherwise.
const NODE_PORTS: PortRange = PortRange::new(30_000, 32_767);
/// Ports of the kernel's masquerading: above the ephemeral range and `NodePort`s, and apart from eBPF SNAT's.
pub const KERNEL_PORTS: PortRange = PortRange::new(61_000, 65_535);
/// A free stretch with fewer ports than this is no good as a default.
const TOO_FEW: u16 = 1024;

impl PortRange {
    const fn new(first: u16, last: u16) -> Self {
        Self { first, last }
    }

    /// Number of ports.
    pub fn count(self) -> u16 {
        self.last - self.first + 1
    }

    /// Whether the two ranges share a port.
    pub fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    fn contains(self, other: Self) -> bool {
        self.first <= other.first && other.last <= self.last
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

/// The text is no range of ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotPorts;

impl FromStr for PortRange {
    type Err = NotPorts;

    /// A range for SNAT: ports below 1024 are never used.
    fn from_str(text: &str) -> Result<Self, NotPorts> {
        let (first, last) = text.split_once('-').ok_or(NotPorts)?;
        let port = |text: &str| text.trim().parse::<u16>().map_err(|_why| NotPorts);
        let range = Self::new(port(first)?, port(last)?);
        let fits = range.first >= 1024 && range.first <= range.last;
        fits.then_some(range).ok_or(NotPorts)
    }
}

/// The ports that the node has its own use for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortUses {
    /// `net.ipv4.ip_local_port_range`.
    pub ephemeral: Option<PortRange>,
    /// `net.ipv4.ip_local_reserved_ports`, ascending: never handed out by the kernel, so somebody asks for them by number.
    pub reserved: Vec<PortRange>,
}

impl PortUses {
    /// Reads the settings of this network namespace; what cannot be read counts as not set.
    pub fn read() -> Self {
        let read = |name: &str| fs::read_to_string(format!("/proc/sys/net/ipv4/{name}"));
        Self::parse(
            &read("ip_local_port_range").unwrap_or_default(),
            &read("ip_local_reserved_ports").unwrap_or_default(),
        )
    }

    fn parse(ephemeral: &str, reserved: &str) -> Self {
        let mut bounds = ephemeral
            .split_whitespace()
            .map_while(|text| text.parse().ok());
        let range = |text: &str| {
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            Some(PortRange::new(
                first.trim().parse().ok()?,
                last.trim().parse().ok()?,
            ))
        };
        Self {
            ephemeral: bounds
                .next()
                .zip(bounds.next())
                .map(|(first, last)| PortRange::new(first, last)),
            reserved: reserved.trim().split(',').filter_map(range).collect(),
        }
    }

    /// The first use of the node's that shares a port with `range`.
    pub fn clash(&self, range: PortRange) -> Option<Clash> {
        let fixed = [
            (NODE_PORTS, Use::NodePorts),
            (KERNEL_PORTS, Use::Masquerading),
        ];
        // All of it reserved in one piece: reserved for us, and kept out of the ephemeral ports.
        let set_aside = self
            .reserved
            .iter()
            .any(|reserved| reserved.contains(range));
        let reserved = self
            .reserved
            .iter()
            .map(|reserved| (*reserved, Use::Reserved));
        let ephemeral = self.ephemeral.map(|range| (range, Use::Ephemeral));
        let varying = reserved.chain(ephemeral).filter(|_| !set_aside);
        fixed
            .into_iter()
            .chain(varying)
            .find(|(other, _)| other.overlaps(range))
            .map(|(other, of)| Clash { other, of })
    }

    /// The longest stretch of ports, from 1024, that the node has no use for.
    fn longest_free(&self) -> Option<PortRange> {
        let mut longest: Option<PortRange> = None;
        let mut open: Option<PortRange> = None;
        for port in 1024..=u16::MAX {
            let is_free = self.clash(PortRange::new(port, port)).is_none()
                && !self
                    .reserved
                    .iter()
                    .any(|range| range.overlaps(PortRange::new(port, port)));
            open = is_free.then(|| PortRange::new(open.map_or(port, |range| range.first), port));
            if let Some(range) = open
                && longest.is_none_or(|longest| longest.count() < range.count())
            {
                longest = Some(range);
            }
        }
        longest
    }
}

/// Two parties want the same ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clash {
    /// The other party's ports.
    pub other: PortRange,
    /// The other party.
    pub of: Use,
}

/// What the node does with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Gives them to its own connections.
    Ephemeral,
    /// Keeps them for somebody who asks by number.
    Reserved,
    /// kube-proxy's.
    NodePorts,
    /// The kernel's masquerading's.
    Masquerading,
}

impl fmt::Display for Clash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = match self.of {
            Use::Ephemeral => "the node's ephemeral ports (net.ipv4.ip_local_port_range)",
            Use::Reserved => {
                "ports that are reserved on the node (net.ipv4.ip_local_reserved_ports)"
            }
            Use::NodePorts => "the cluster's NodePorts",
            Use::Masquerading => "the ports of the kernel's own masquerading",
        };
        write!(f, "{}, {of}", self.other)
    }
}

/// The ports to use when none are configured, and what the operator should know about them.
pub fn default_ports(node: &PortUses) -> (PortRange, Option<String>) {
    let Some(clash) = node.clash(DEFAULT_PORTS) else {
        return (DEFAULT_PORTS, None);
    };
    match node.longest_free() {
        Some(free) if free.count() >= TOO_FEW => {
            let warning = format!(
                "SNAT uses ports {free} instead of {DEFAULT_PORTS}, which overlap {clash}; set `natPorts` in loader.yaml to choose others"
            );
            (free, Some(warning))
        }
        _ => {
            let warning = format!(
                "SNAT ports {DEFAULT_PORTS} overlap {clash}, and no stretch of {TOO_FEW} ports is free: a connection of the node's own may clash with a pod's to the same \
                 server; `sysctl -w net.ipv4.ip_local_reserved_ports={DEFAULT_PORTS}` keeps them apart"
            );
            (DEFAULT_PORTS, Some(warning))
        }
    }
}

/// The ports for SNAT, and how many of them a pod may hold.
#[derive(Clone, Copy, Debug)]
pub struct Shares {
    /// All of them.
    pub ports: PortRange,
    /// A pod's share.
    pub per_pod: u16,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(ephemeral: &str, reserved: &str) -> PortUses {
        PortUses::parse(ephemeral, reserved)
    }

    fn range(text: &str) -> PortRange {
        text.parse().unwrap()
    }

    #[test]
    fn the_kernels_settings_are_read_as_it_writes_them() {
        let read = node("32768\t60999\n", "8080,9148-9150\n");
        assert_eq!(read.ephemeral, Some(PortRange::new(32_768, 60_999)));
        assert_eq!(
            read.reserved,
            [PortRange::new(8080, 8080), PortRange::new(9148, 9150)]
        );
        assert_eq!(node("", "\n"), PortUses::default());
        assert!(PortUses::read().ephemeral.is_some());
    }

    #[test]
    fn nobody_is_in_the_way_of_the_default_on_an_ordinary_node() {
        assert_eq!(
            default_ports(&node("32768 60999", "")),
            (DEFAULT_PORTS, None)
        );
    }

    #[test]
    fn the_default_makes_room_for_the_node() {
        for (ephemeral, reserved, expected) in [
            ("15000 60999", "", "1024-14999"),
            ("1024 29999", "", "32768-60999"),
            ("32768 60999", "8080", "8081-29999"),
            ("10000 65535", "", "1024-9999"),
        ] {
            let (ports, warning) = default_ports(&node(ephemeral, reserved));
            assert_eq!(ports, range(expected), "{ephemeral}, {reserved}");
            assert!(
                warning.is_some_and(|text| text.contains(expected)),
                "{ephemeral}"
            );
        }
    }

    #[test]
    fn a_node_that_uses_all_ports_is_told_how_to_set_some_aside() {
        let (ports, warning) = default_ports(&node("1024 65535", ""));
        assert_eq!(ports, DEFAULT_PORTS);
        assert!(warning.is_some_and(|text| text.contains("ip_local_reserved_ports=1024-29999")));
        let set_aside = node("1024 65535", "1024-29999");
        assert_eq!(default_ports(&set_aside), (DEFAULT_PORTS, None));
    }

    #[test]
    fn every_use_of_the_node_can_be_in_the_way() {
        let node = node("40000 50000", "8080");
        for (ports, of) in [
            ("2000-30000", Some(Use::NodePorts)),
            ("60000-61000", Some(Use::Masquerading)),
            ("2000-9000", Some(Use::Reserved)),
            ("39000-40000", Some(Use::Ephemeral)),
            ("2000-8079", None),
            ("51000-60999", None),
        ] {
            assert_eq!(
                node.clash(range(ports)).map(|clash| clash.of),
                of,
                "{ports}"
            );
        }
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for text in ["", "1024", "80-90", "3000-2000", "1024-70000", "a-b"] {
            assert_eq!(text.parse::<PortRange>(), Err(NotPorts), "{text}");
        }
    }
}
