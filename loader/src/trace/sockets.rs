//! Would a socket of the node get what arrives at one of its ports? What `bpf_sk_lookup` answers to the programs.

use std::fs;
use std::net::Ipv4Addr;

use abi::{BindingKey, proto};

/// Whether a socket of this network namespace listens for, or is connected with, the remote end of `key` at the binding's
/// port of `primary`. Of sockets for IPv6 too, which may take IPv4 as well.
pub(super) fn node_uses(primary: Ipv4Addr, key: &BindingKey) -> bool {
    let (tables, listens) = match key.proto {
        proto::TCP => (["tcp", "tcp6"], "0A"),
        proto::UDP => (["udp", "udp6"], "07"),
        _ => return false,
    };
    let remote = (Ipv4Addr::from(key.remote), key.remote_port.get());
    tables.iter().any(|table| {
        let text = fs::read_to_string(format!("/proc/net/{table}")).unwrap_or_default();
        text.lines().skip(1).any(|line| {
            Socket::parse(line).is_some_and(|socket| {
                let here = socket.local.1 == key.nat_port.get()
                    && (socket.local.0 == primary || socket.local.0.is_unspecified());
                here && (socket.remote == remote
                    || (socket.state == listens && socket.remote.1 == 0))
            })
        })
    })
}

struct Socket<'a> {
    local: (Ipv4Addr, u16),
    remote: (Ipv4Addr, u16),
    state: &'a str,
}

impl<'a> Socket<'a> {
    /// A line of `/proc/net/tcp` and its like.
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.split_whitespace().skip(1);
        Some(Self {
            local: end(fields.next()?)?,
            remote: end(fields.next()?)?,
            state: fields.next()?,
        })
    }
}

/// `0100007F:0016`; of IPv6 the unspecified address and IPv4's own range.
fn end(text: &str) -> Option<(Ipv4Addr, u16)> {
    let (addr, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let bits = match addr.len() {
        8 => addr,
        32 => match addr.split_at(24) {
            ("0000000000000000FFFF0000" | "000000000000000000000000", bits) => bits,
            _ => return None,
        },
        _ => return None,
    };
    let bits = u32::from_str_radix(bits, 16).ok()?;
    Some((Ipv4Addr::from(bits.to_ne_bytes()), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_both_families_are_read() {
        for (line, local, remote) in [
            (
                "   0: 0100007F:0016 00000000:0000 0A 00000000:00000000",
                "127.0.0.1:22",
                "0.0.0.0:0",
            ),
            (
                "   1: 0000000000000000FFFF00000400F00A:0400 0000000000000000FFFF00000A7100CB:01BB 01 0",
                "10.240.0.4:1024",
                "203.0.113.10:443",
            ),
            (
                "   2: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A 0",
                "0.0.0.0:80",
                "0.0.0.0:0",
            ),
        ] {
            let socket = Socket::parse(line).unwrap();
            let text = |(addr, port): (Ipv4Addr, u16)| format!("{addr}:{port}");
            assert_eq!(
                (text(socket.local).as_str(), text(socket.remote).as_str()),
                (local, remote)
            );
        }
        assert!(Socket::parse("  sl  local_address rem_address   st").is_none());
    }
}
