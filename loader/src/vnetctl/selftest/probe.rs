//! One exchange between two places, and what the far end saw.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::socket::sockopt::ReceiveTimeout;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, recv, sendto,
    setsockopt, socket,
};
use nix::sys::time::{TimeVal, TimeValLike as _};

use super::place::Place;

/// What works on one node works within this.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);
/// What never comes, comes not within this.
pub(super) const NEVER: Duration = Duration::from_millis(300);

/// What each end of a connection says: so much that segments are as long as they can be.
const BYTES: usize = 1 << 20;

/// The identifier of our pings.
pub(super) const PING: u16 = 0x5e1f;

/// Connects to a server at `to`, which has `address`; then both say a lot. The client as the server saw it.
pub(super) fn tcp(from: Place<'_>, to: Place<'_>, address: Ipv4Addr) -> Result<IpAddr> {
    tcp_by(from, to, SocketAddrV4::new(address, 0), None)
}

/// The same with the port of the server, and an address that stands for it.
pub(super) fn tcp_by(
    from: Place<'_>,
    to: Place<'_>,
    server: SocketAddrV4,
    by: Option<SocketAddrV4>,
) -> Result<IpAddr> {
    let listener = to
        .run(move || Ok(TcpListener::bind(server)?))
        .context("listen")?;
    // Somebody else may answer at the address that stands for it.
    setsockopt(&listener, ReceiveTimeout, &TimeVal::new(1, 0))?;
    let at = by.map_or_else(|| listener.local_addr(), |by| Ok(by.into()))?;
    let mut client = from.run(move || connect(at, PATIENCE))?;
    let (mut server, peer) = listener.accept().context("accept")?;
    for end in [&client, &server] {
        end.set_read_timeout(Some(PATIENCE))?;
        end.set_write_timeout(Some(PATIENCE))?;
    }
    thread::scope(|scope| {
        let serving = scope.spawn(|| {
            say(&mut server)?;
            hear(&mut server).context("hear from the client")
        });
        hear(&mut client).context("hear from the server")?;
        say(&mut client)?;
        serving
            .join()
            .unwrap_or_else(|_| bail!("the server panics"))
    })?;
    Ok(peer.ip())
}

fn speech() -> Vec<u8> {
    (0..=250).cycle().take(BYTES).collect()
}

fn say(end: &mut TcpStream) -> Result<()> {
    end.write_all(&speech()).context("send")
}

fn hear(end: &mut TcpStream) -> Result<()> {
    let mut heard = vec![0; BYTES];
    end.read_exact(&mut heard)?;
    ensure!(heard == speech(), "other bytes come than were sent");
    Ok(())
}

/// Connects to somebody else's server.
pub(super) fn connect(at: SocketAddr, limit: Duration) -> Result<TcpStream> {
    TcpStream::connect_timeout(&at, limit).with_context(|| format!("connect to {at}"))
}

/// Sends a datagram of `bytes` to a server at `to`, and gets one back. The client as the server saw it.
pub(super) fn udp(
    from: Place<'_>,
    to: Place<'_>,
    address: Ipv4Addr,
    bytes: usize,
) -> Result<IpAddr> {
    udp_by(from, to, SocketAddrV4::new(address, 0), None, bytes)
}

/// The same with the port of the server, and an address that stands for it: the answer must come from there.
pub(super) fn udp_by(
    from: Place<'_>,
    to: Place<'_>,
    server: SocketAddrV4,
    by: Option<SocketAddrV4>,
    bytes: usize,
) -> Result<IpAddr> {
    let server = to.run(move || bound_to(server))?;
    let at = by.map_or_else(|| server.local_addr(), |by| Ok(by.into()))?;
    let client = from.run(|| bound(Ipv4Addr::UNSPECIFIED))?;
    client.connect(at)?;
    client.send(&vec![b'x'; bytes]).context("send")?;
    let mut datagram = vec![0; bytes + 1];
    let (length, peer) = server
        .recv_from(&mut datagram)
        .context("the server receives nothing")?;
    if length != bytes {
        bail!("{length} of {bytes} bytes came");
    }
    server.send_to(b"well", peer)?;
    client
        .recv(&mut datagram)
        .context("the answer does not come")?;
    Ok(peer.ip())
}

/// A socket of either end.
pub(super) fn bound(address: Ipv4Addr) -> Result<UdpSocket> {
    bound_to(SocketAddrV4::new(address, 0))
}

fn bound_to(at: SocketAddrV4) -> Result<UdpSocket> {
    let socket = UdpSocket::bind(at).with_context(|| format!("bind to {at}"))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

/// Asks a resolver for the root's name servers; any answer will do.
pub(super) fn dns(from: Place<'_>, resolver: Ipv4Addr) -> Result<usize> {
    const QUERY: &[u8] = b"\x5e\x1f\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x01";
    let socket = from.run(|| bound(Ipv4Addr::UNSPECIFIED))?;
    socket.send_to(QUERY, (resolver, 53)).context("send")?;
    let mut answer = [0; 1500];
    socket.recv(&mut answer).context("no answer")
}

/// Echo request, and reply within `patience` (RFC 792).
pub(super) fn ping(from: Place<'_>, to: Ipv4Addr, patience: Duration) -> Result<()> {
    const ID: [u8; 2] = PING.to_be_bytes();
    let patience = TimeVal::microseconds(i64::try_from(patience.as_micros())?);
    let socket = from.run(move || {
        let socket = socket(
            AddressFamily::Inet,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::Icmp,
        )?;
        setsockopt(&socket, ReceiveTimeout, &patience)?;
        Ok(socket)
    })?;
    // Type 8, its checksum, identifier, sequence number 1.
    let sum = !(0x0800 + u32::from(PING) + 1);
    let [_, _, high, low] = sum.to_be_bytes();
    let request = [8, 0, high, low, ID[0], ID[1], 0, 1];
    sendto(
        socket.as_raw_fd(),
        &request,
        &SockaddrIn::from(SocketAddrV4::new(to, 0)),
        MsgFlags::empty(),
    )?;
    loop {
        let mut packet = [0; 128];
        recv(socket.as_raw_fd(), &mut packet, MsgFlags::empty()).context("no reply")?;
        // Behind the IP header.
        if packet.get(20) == Some(&0) && packet.get(24..26) == Some(&ID) {
            return Ok(());
        }
    }
}
