//! How does a test say "this namespace talks to that address"?

use std::io::{BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream, UdpSocket};

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::RcvBufForce;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::http::{self, Response};
use crate::namespace::Namespace;
use crate::platform::WIRESERVER;
use crate::wait::pass;
use crate::{dns, ping};

/// How long a probe waits unless told otherwise with [`Namespace::within`].
const PATIENCE: Duration = Duration::from_secs(3);

/// What a successful exchange showed.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    seen: SocketAddrV4,
    own: SocketAddrV4,
    elapsed: Duration,
}

impl Probe {
    /// The client's address and port as the server saw them.
    pub fn peer_addr(&self) -> SocketAddrV4 {
        self.seen
    }

    /// The client's address as the server saw it.
    pub fn peer_ip(&self) -> Ipv4Addr {
        *self.seen.ip()
    }

    /// The client's address and port as the client sees them.
    pub fn local_addr(&self) -> SocketAddrV4 {
        self.own
    }

    /// From the first packet to the checked echo.
    pub fn elapsed(&self) -> Duration {
        self.elapsed
    }
}

/// How many of the paced datagrams came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paced {
    pub sent: u32,
    pub received: u32,
    /// From the first datagram to the last one.
    pub took: Duration,
}

impl Paced {
    /// Datagrams sent per second.
    pub fn rate(&self) -> f64 {
        f64::from(self.sent) / self.took.as_secs_f64()
    }
}

/// Probes out of a namespace with a time-out of their own.
#[derive(Clone, Copy, Debug)]
pub struct Within<'a> {
    namespace: &'a Namespace,
    limit: Duration,
}

impl Within<'_> {
    /// Connects to an echo server of the lab, reads who it thinks we are, and checks the echo.
    pub fn tcp(&self, server: Ipv4Addr, port: u16) -> Result<Probe> {
        let limit = self.limit;
        let exchange = || {
            let started = Instant::now();
            let address = SocketAddrV4::new(server, port);
            let mut stream = TcpStream::connect_timeout(&address.into(), limit)?;
            stream.set_read_timeout(Some(limit))?;
            stream.set_write_timeout(Some(limit))?;
            let own = v4(stream.local_addr()?)?;
            let mut reader = BufReader::new(stream.try_clone()?);
            let seen = seen_as(&mut reader)?;
            let question = format!("from {own} to {server}\n");
            stream.write_all(question.as_bytes()).context("send")?;
            let mut echo = vec![0; question.len()];
            reader.read_exact(&mut echo).context("read the echo")?;
            ensure!(echo == question.as_bytes(), "the echo is not what was sent");
            let elapsed = started.elapsed();
            Ok(Probe { seen, own, elapsed })
        };
        let what = || format!("tcp to {server}:{port}");
        self.namespace.run(|| exchange().with_context(what))
    }

    /// Sends one datagram to an echo server of the lab and checks the answer.
    pub fn udp(&self, server: Ipv4Addr, port: u16) -> Result<Probe> {
        let limit = self.limit;
        let exchange = || {
            let started = Instant::now();
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            socket.connect((server, port))?;
            socket.set_read_timeout(Some(limit))?;
            let own = v4(socket.local_addr()?)?;
            let question = format!("from {own} to {server}\n");
            socket.send(question.as_bytes()).context("send")?;
            let mut bytes = vec![0; 64 * 1024];
            let length = socket.recv(&mut bytes).context("receive")?;
            let mut answer = bytes.get(..length).unwrap_or_default();
            let seen = seen_as(&mut answer)?;
            ensure!(
                answer == question.as_bytes(),
                "the echo is not what was sent"
            );
            let elapsed = started.elapsed();
            Ok(Probe { seen, own, elapsed })
        };
        let what = || format!("udp to {server}:{port}");
        self.namespace.run(|| exchange().with_context(what))
    }

    /// One ICMP echo; returns the round-trip time.
    pub fn ping(&self, target: Ipv4Addr) -> Result<Duration> {
        let limit = self.limit;
        let what = || format!("ping {target}");
        self.namespace
            .run(|| ping::echo(target, limit).with_context(what))
    }

    /// Asks the platform's DNS, which answers with the address that it saw asking.
    pub fn dns(&self, name: &str) -> Result<Ipv4Addr> {
        let limit = self.limit;
        let what = || format!("resolve {name}");
        self.namespace
            .run(|| dns::ask_udp(WIRESERVER, name, limit).with_context(what))
    }

    /// Asks a resolver of the lab over UDP and over TCP; the addresses that it saw asking.
    pub fn dns_at(&self, server: Ipv4Addr, name: &str) -> Result<[Ipv4Addr; 2]> {
        let limit = self.limit;
        let what = || format!("resolve {name} at {server}");
        self.namespace
            .run(|| dns::ask(server, name, limit).with_context(what))
    }

    /// A GET.
    pub fn http(
        &self,
        server: Ipv4Addr,
        port: u16,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<Response> {
        let (limit, server) = (self.limit, SocketAddrV4::new(server, port));
        let what = || format!("GET http://{server}{path}");
        self.namespace
            .run(|| http::get(server, path, headers, limit).with_context(what))
    }
}

impl Namespace {
    /// Probes that give up after `limit`: `a.within(ms).tcp(b, 80)`.
    pub fn within(&self, limit: Duration) -> Within<'_> {
        Within {
            namespace: self,
            limit,
        }
    }

    /// [`Within::tcp`] with the usual patience.
    pub fn tcp(&self, server: Ipv4Addr, port: u16) -> Result<Probe> {
        self.within(PATIENCE).tcp(server, port)
    }

    /// [`Within::udp`] with the usual patience.
    pub fn udp(&self, server: Ipv4Addr, port: u16) -> Result<Probe> {
        self.within(PATIENCE).udp(server, port)
    }

    /// [`Within::ping`] with the usual patience.
    pub fn ping(&self, target: Ipv4Addr) -> Result<Duration> {
        self.within(PATIENCE).ping(target)
    }

    /// [`Within::dns`] with the usual patience.
    pub fn dns(&self, name: &str) -> Result<Ipv4Addr> {
        self.within(PATIENCE).dns(name)
    }

    /// [`Within::dns_at`] with the usual patience.
    pub fn dns_at(&self, server: Ipv4Addr, name: &str) -> Result<[Ipv4Addr; 2]> {
        self.within(PATIENCE).dns_at(server, name)
    }

    /// [`Within::http`] with the usual patience.
    pub fn http(
        &self,
        server: Ipv4Addr,
        port: u16,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<Response> {
        self.within(PATIENCE).http(server, port, path, headers)
    }

    /// `count` numbered datagrams to an echo server, `rate` a second; waits a second for late answers.
    pub fn udp_paced(&self, server: Ipv4Addr, port: u16, rate: u32, count: u32) -> Result<Paced> {
        self.udp_while(server, port, rate, |sent| sent < count)
    }

    /// The same until `stop` is set.
    pub fn udp_until(
        &self,
        server: Ipv4Addr,
        port: u16,
        rate: u32,
        stop: &AtomicBool,
    ) -> Result<Paced> {
        self.udp_while(server, port, rate, |_| !stop.load(Ordering::Relaxed))
    }

    fn udp_while(
        &self,
        server: Ipv4Addr,
        port: u16,
        rate: u32,
        go_on: impl Fn(u32) -> bool,
    ) -> Result<Paced> {
        let socket = self.run(|| {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            socket.connect((server, port))?;
            Ok(socket)
        })?;
        patient(&socket)?;
        let pace = Duration::from_secs(1) / rate.max(1);
        let started = Instant::now();
        let mut answered = Vec::new();
        let mut received = 0;
        let mut sent = 0_u32;
        while go_on(sent) {
            socket.send(&sent.to_be_bytes())?;
            sent += 1;
            answered.push(false);
            let next = started + pace * sent;
            received += answers(&socket, next, sent - received, &mut answered)?;
            pass(next.saturating_duration_since(Instant::now()));
        }
        let took = started.elapsed();
        let late = Instant::now() + Duration::from_secs(1);
        received += answers(&socket, late, sent - received, &mut answered)?;
        Ok(Paced {
            sent,
            received,
            took,
        })
    }
}

/// Makes room for what arrives while its reader waits for a CPU, so that a busy machine does not look like a lossy one.
pub(crate) fn patient(socket: &UdpSocket) -> Result<()> {
    const ROOM: usize = 16 << 20;
    setsockopt(socket, RcvBufForce, &ROOM).context("make room for datagrams")
}

/// Counts answers until the moment, or until there are `most`: one for each number, at the end of it.
fn answers(socket: &UdpSocket, until: Instant, most: u32, answered: &mut [bool]) -> Result<u32> {
    let mut count = 0;
    let mut buffer = [0; 256];
    while count < most {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        socket.set_read_timeout(Some(left))?;
        match socket.recv(&mut buffer) {
            Ok(length) => {
                let answer = buffer.get(..length).unwrap_or_default();
                let number = answer.last_chunk().context("a short answer")?;
                let number = usize::try_from(u32::from_be_bytes(*number))?;
                let answered = answered.get_mut(number).context("answers nothing")?;
                count += u32::from(!std::mem::replace(answered, true));
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(count)
}

/// The first line of an echo server's answer.
fn seen_as(answer: &mut impl std::io::BufRead) -> Result<SocketAddrV4> {
    let mut line = String::new();
    answer
        .read_line(&mut line)
        .context("read the server's line")?;
    let line = line.trim_end();
    line.parse()
        .with_context(|| format!("`{line}` is no address"))
}

fn v4(address: std::net::SocketAddr) -> Result<SocketAddrV4> {
    match address {
        std::net::SocketAddr::V4(address) => Ok(address),
        std::net::SocketAddr::V6(address) => anyhow::bail!("{address} is not IPv4"),
    }
}
