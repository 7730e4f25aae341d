//! Which packet is traced?

use std::net::Ipv4Addr;
use std::str::FromStr;

use abi::{Mac, proto};
use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use etherparse::PacketBuilder;

/// The packet that `vnetctl trace` follows.
#[derive(Clone, Debug, Args)]
pub struct Query {
    /// The pod: its name, NAMESPACE/NAME where several have it, or its address.
    #[arg(value_name = "POD")]
    pub pod: String,
    /// Where to: ADDRESS, or ADDRESS:PORT for TCP and UDP.
    #[arg(value_name = "DESTINATION")]
    pub remote: Remote,
    /// The protocol; without it TCP where there is a port, else a ping.
    #[arg(long, value_enum)]
    pub proto: Option<Protocol>,
    /// The pod's own port, or the identifier of its ping: that of a connection that exists tells what happens to that one.
    #[arg(long, value_name = "PORT", default_value_t = 50_000)]
    pub pod_port: u16,
    /// A segment in the middle of a TCP connection, instead of its first.
    #[arg(long)]
    pub established: bool,
    /// The other way round: what DESTINATION sends to the pod's own address, as the NIC receives it.
    #[arg(long)]
    pub from_wire: bool,
}

/// Protocols that the data path knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// A ping.
    Icmp,
}

impl Protocol {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Icmp => "icmp",
        }
    }

    /// The IP protocol's number.
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => proto::TCP,
            Self::Udp => proto::UDP,
            Self::Icmp => proto::ICMP,
        }
    }
}

/// An address, and a port for protocols that have them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remote {
    /// The address.
    pub addr: Ipv4Addr,
    /// The port.
    pub port: Option<u16>,
}

impl FromStr for Remote {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (addr, port) = match text.split_once(':') {
            Some((addr, port)) => (addr, Some(port)),
            None => (text, None),
        };
        let addr = addr.parse().map_err(|_why| {
            format!("`{addr}` is no IPv4 address; write one such as 10.0.0.10 or 10.0.0.10:443")
        })?;
        let port = port.map(|port| match port.parse() {
            Ok(0) | Err(_) => Err(format!("`{port}` is no port; ports are 1 to 65535")),
            Ok(port) => Ok(port),
        });
        Ok(Self {
            addr,
            port: port.transpose()?,
        })
    }
}

impl Query {
    /// The protocol, and the remote end's port: of a ping none.
    pub fn protocol(&self) -> Result<(Protocol, u16)> {
        let port = self.remote.port;
        let protocol = self.proto.unwrap_or(match port {
            Some(_) => Protocol::Tcp,
            None => Protocol::Icmp,
        });
        match (protocol, port) {
            (Protocol::Icmp, None) => Ok((protocol, 0)),
            (Protocol::Icmp, Some(_)) => {
                bail!("a ping has no port; leave :PORT or --proto icmp out")
            }
            (_, Some(port)) => Ok((protocol, port)),
            (_, None) => bail!(
                "{} needs a port; write {}:PORT",
                protocol.name(),
                self.remote.addr
            ),
        }
    }
}

/// One end of the packet's link: an interface with an address behind it.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    pub(super) mac: Mac,
    pub(super) addr: Ipv4Addr,
    pub(super) port: u16,
}

/// The first packet of a flow, or a later one of TCP.
pub(super) fn frame(from: End, to: End, protocol: Protocol, established: bool) -> Result<Vec<u8>> {
    const PAYLOAD: &[u8] = b"vnetctl trace";
    let packet = PacketBuilder::ethernet2(from.mac.octets(), to.mac.octets()).ipv4(
        from.addr.octets(),
        to.addr.octets(),
        64,
    );
    let mut bytes = Vec::new();
    match protocol {
        Protocol::Tcp => {
            let segment = packet.tcp(from.port, to.port, 1, u16::MAX);
            if established {
                segment.ack(1).write(&mut bytes, &[])
            } else {
                segment.syn().write(&mut bytes, &[])
            }
        }
        Protocol::Udp => packet.udp(from.port, to.port).write(&mut bytes, PAYLOAD),
        Protocol::Icmp => {
            let identifier = from.port.max(to.port);
            packet
                .icmpv4_echo_request(identifier, 1)
                .write(&mut bytes, PAYLOAD)
        }
    }
    .context("build the packet")?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_is_an_address_with_or_without_a_port_and_nothing_else() {
        let remote = |text: &str| text.parse::<Remote>();
        assert_eq!(remote("10.0.0.10").unwrap().port, None);
        assert_eq!(remote("10.0.0.10:443").unwrap().port, Some(443));
        for wrong in [
            "",
            "10.0.0",
            "::1",
            "10.0.0.10:",
            "10.0.0.10:0",
            "10.0.0.10:65536",
            "10.0.0.10:http",
            "example.com",
            "10.0.0.0/8",
            "10.0.0.1:2:3",
        ] {
            let error = remote(wrong).unwrap_err();
            assert!(error.contains("is no"), "{wrong}: {error}");
        }
    }
}
