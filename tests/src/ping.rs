//! Does an address answer an ICMP echo, and how fast?

use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use socket2::{Domain, Protocol, Socket, Type};

use crate::frame::checksum;

const REPLY: u8 = 0;
const UNREACHABLE: u8 = 3;
const REQUEST: u8 = 8;
const TIME_EXCEEDED: u8 = 11;

/// Sends one echo request from the calling thread's namespace and waits for its reply.
pub(crate) fn echo(target: Ipv4Addr, limit: Duration) -> Result<Duration> {
    static NEXT_ID: AtomicU16 = AtomicU16::new(1);
    let id = NEXT_ID.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    let mut request = vec![REQUEST, 0, 0, 0, id[0], id[1], 0, 1];
    request.extend(b"azure-vnet-ebpf lab");
    let sum = checksum(&request).to_be_bytes();
    request.splice(2..4, sum);

    // Raw, so that the identifier is ours: to SNAT it is what a port is to UDP.
    let mut socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))?;
    let started = Instant::now();
    socket
        .send_to(&request, &SocketAddrV4::new(target, 0).into())
        .context("send")?;
    let mut packet = [0; 2048];
    loop {
        let left = limit.saturating_sub(started.elapsed());
        if left.is_zero() {
            bail!("no answer within {limit:?}");
        }
        socket.set_read_timeout(Some(left))?;
        let length = match socket.read(&mut packet) {
            Ok(length) => length,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error).context("receive"),
        };
        let packet = packet.get(..length).unwrap_or_default();
        match answer(packet, target, &request) {
            Some(REPLY) => return Ok(started.elapsed()),
            Some(kind) => bail!("ICMP error of type {kind}"),
            None => {}
        }
    }
}

/// The ICMP type, if the packet is about our request.
fn answer(packet: &[u8], target: Ipv4Addr, request: &[u8]) -> Option<u8> {
    let (source, icmp) = ip_payload(packet)?;
    let kind = *icmp.first()?;
    let ours = match kind {
        REPLY => source == target && icmp.get(4..) == request.get(4..),
        UNREACHABLE | TIME_EXCEEDED => {
            let (_, inner) = ip_payload(icmp.get(8..)?)?;
            inner.get(4..8) == request.get(4..8)
        }
        _ => false,
    };
    ours.then_some(kind)
}

fn ip_payload(packet: &[u8]) -> Option<(Ipv4Addr, &[u8])> {
    let header = usize::from(packet.first()? & 0x0f) * 4;
    let source: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
    Some((source.into(), packet.get(header..)?))
}
