//! How does a server inside a namespace start and, above all, stop?
//!
//! The sockets are made inside the namespace, the threads run outside of it and end when the service is
//! dropped, whatever their clients do: a forgotten connection would keep the namespace alive.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd as _;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::poll::PollFlags;

use crate::namespace::Namespace;
use crate::probe::patient;
use crate::wait::{Deadline, ready};

/// How long a client may be silent within a request, or not read its answer.
const CLIENT_PATIENCE: Duration = Duration::from_secs(10);

/// What a service does for its clients.
pub(crate) trait Serve: Send + Sync + 'static {
    /// Talks over one TCP connection; an error is the client's fault or the lab's end, and closes it.
    fn stream(&self, connection: &mut Connection<'_>) -> io::Result<()>;

    /// The answer to one datagram.
    fn datagram(&self, datagram: &[u8], client: SocketAddrV4, here: u16) -> Option<Vec<u8>>;
}

/// Sockets to serve on, made inside a namespace.
#[derive(Debug, Default)]
pub(crate) struct Sockets {
    tcp: Vec<TcpListener>,
    udp: Vec<UdpSocket>,
}

impl Sockets {
    pub(crate) fn tcp(mut self, ns: &Namespace, at: &[(Ipv4Addr, u16)]) -> Result<Self> {
        for &(address, port) in at {
            let place = || format!("listen on tcp {address}:{port}");
            let bind = || TcpListener::bind((address, port)).with_context(place);
            self.tcp.push(ns.run(bind)?);
        }
        Ok(self)
    }

    pub(crate) fn udp(mut self, ns: &Namespace, at: &[(Ipv4Addr, u16)]) -> Result<Self> {
        for &(address, port) in at {
            let place = || format!("listen on udp {address}:{port}");
            let bind = || UdpSocket::bind((address, port)).with_context(place);
            let socket = ns.run(bind)?;
            patient(&socket)?;
            self.udp.push(socket);
        }
        Ok(self)
    }
}

/// A running service. Stops, and all its threads with it, on drop.
#[derive(Debug)]
pub(crate) struct Service {
    stop: Option<io::PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

impl Service {
    pub(crate) fn start(name: &str, sockets: Sockets, service: impl Serve) -> Result<Self> {
        let (stopped, stop) = io::pipe()?;
        for listener in &sockets.tcp {
            // A client that gives up between poll and accept must not block the others.
            listener.set_nonblocking(true)?;
        }
        for socket in &sockets.udp {
            socket.set_nonblocking(true)?;
        }
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || accept(&sockets, &stopped, &service))?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap_or_default();
        }
    }
}

fn accept(sockets: &Sockets, stopped: &io::PipeReader, service: &impl Serve) {
    let mut watched = vec![(stopped.as_fd(), PollFlags::POLLIN)];
    watched.extend(sockets.tcp.iter().map(|s| (s.as_fd(), PollFlags::POLLIN)));
    watched.extend(sockets.udp.iter().map(|s| (s.as_fd(), PollFlags::POLLIN)));
    // The scope joins the connections' threads; they see `stopped` too.
    thread::scope(|scope| {
        loop {
            let Ok(states) = ready(&watched, None) else {
                return;
            };
            let mut states = states.into_iter();
            if states.next() == Some(true) {
                return;
            }
            for listener in &sockets.tcp {
                if states.next() == Some(true)
                    && let Ok((stream, SocketAddr::V4(client))) = listener.accept()
                {
                    scope.spawn(move || {
                        if let Ok(mut connection) = Connection::new(stream, client, stopped) {
                            service.stream(&mut connection).unwrap_or_default();
                        }
                    });
                }
            }
            for socket in &sockets.udp {
                if states.next() == Some(true) {
                    answer(socket, service).unwrap_or_default();
                }
            }
        }
    });
}

fn answer(socket: &UdpSocket, service: &impl Serve) -> io::Result<()> {
    let mut datagram = vec![0; 64 * 1024];
    let (length, client) = socket.recv_from(&mut datagram)?;
    datagram.truncate(length);
    if let SocketAddr::V4(client) = client
        && let Some(reply) = service.datagram(&datagram, client, socket.local_addr()?.port())
    {
        socket.send_to(&reply, client)?;
    }
    Ok(())
}

/// A client's TCP connection whose reads and writes end when the service stops.
#[derive(Debug)]
pub(crate) struct Connection<'a> {
    stream: TcpStream,
    pub(crate) client: SocketAddrV4,
    stopped: &'a io::PipeReader,
}

impl<'a> Connection<'a> {
    fn new(
        stream: TcpStream,
        client: SocketAddrV4,
        stopped: &'a io::PipeReader,
    ) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            client,
            stopped,
        })
    }

    /// The service's own port.
    pub(crate) fn port(&self) -> u16 {
        self.stream.local_addr().map_or(0, |here| here.port())
    }

    /// Waits, without a client's byte being an end to it; an error when the service stops meanwhile.
    pub(crate) fn pause(&self, time: Duration) -> io::Result<()> {
        let watched = [(self.stopped.as_fd(), PollFlags::POLLIN)];
        match ready(&watched, Some(Deadline::after(time)))?.as_slice() {
            [true] => Err(io::ErrorKind::ConnectionAborted.into()),
            _ => Ok(()),
        }
    }

    /// Waits for the next bytes, for ever if `patience` is `None`. No bytes: the client closed.
    pub(crate) fn read(
        &mut self,
        buffer: &mut [u8],
        patience: Option<Duration>,
    ) -> io::Result<usize> {
        self.until(PollFlags::POLLIN, patience)?;
        self.stream.read(buffer)
    }

    /// Reads within the usual patience.
    pub(crate) fn read_soon(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.read(buffer, Some(CLIENT_PATIENCE))
    }

    pub(crate) fn read_exact(&mut self, mut buffer: &mut [u8]) -> io::Result<()> {
        while !buffer.is_empty() {
            match self.read_soon(buffer)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => buffer = buffer.get_mut(read..).unwrap_or_default(),
            }
        }
        Ok(())
    }

    pub(crate) fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            self.until(PollFlags::POLLOUT, Some(CLIENT_PATIENCE))?;
            let written = self.stream.write(bytes)?;
            bytes = bytes.get(written..).unwrap_or_default();
        }
        Ok(())
    }

    fn until(&self, flags: PollFlags, patience: Option<Duration>) -> io::Result<()> {
        let watched = [
            (self.stopped.as_fd(), PollFlags::POLLIN),
            (self.stream.as_fd(), flags),
        ];
        match ready(&watched, patience.map(Deadline::after))?.as_slice() {
            [false, true] => Ok(()),
            [false, false] => Err(io::ErrorKind::TimedOut.into()),
            _ => Err(io::ErrorKind::ConnectionAborted.into()),
        }
    }
}
