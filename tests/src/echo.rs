//! What do the echo servers answer? First who they think the client is, then what it sends.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::{Arc, Mutex};

use anyhow::Result;

use crate::namespace::Namespace;
use crate::service::{Connection, Serve, Service, Sockets};
use crate::wait::lock;

/// Clients remembered.
const CLIENTS: usize = 4096;

/// The transport over which a client came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Tcp,
    Udp,
}

/// A client as a server saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    pub transport: Transport,
    pub address: SocketAddrV4,
    /// The server's port.
    pub port: u16,
}

/// The clients of a group of servers, the newest last.
#[derive(Clone, Debug, Default)]
pub(crate) struct Clients(Arc<Mutex<VecDeque<Client>>>);

impl Clients {
    fn note(&self, client: Client) {
        let mut clients = lock(&self.0);
        if clients.len() == CLIENTS {
            clients.pop_front();
        }
        clients.push_back(client);
    }

    pub(crate) fn last(&self) -> Option<Client> {
        lock(&self.0).back().copied()
    }

    pub(crate) fn all(&self) -> Vec<Client> {
        lock(&self.0).iter().copied().collect()
    }
}

/// TCP and UDP echo servers: both answer first with the line `<client address>:<client port>`.
///
/// TCP then echoes; over UDP the line is followed by the datagram. Stopped on drop.
#[derive(Debug)]
pub struct EchoServer {
    _service: Service,
    clients: Clients,
}

impl EchoServer {
    pub(crate) fn start(ns: &Namespace, at: &[(Ipv4Addr, u16)], clients: Clients) -> Result<Self> {
        let sockets = Sockets::default().tcp(ns, at)?.udp(ns, at)?;
        let echo = Echo {
            clients: clients.clone(),
        };
        Ok(Self {
            _service: Service::start("echo", sockets, echo)?,
            clients,
        })
    }

    /// The newest client, over TCP or UDP.
    pub fn last_client(&self) -> Option<Client> {
        self.clients.last()
    }

    /// The newest clients, the last one last.
    pub fn clients(&self) -> Vec<Client> {
        self.clients.all()
    }
}

impl Namespace {
    /// Starts TCP and UDP echo servers on all addresses of the namespace; they stop on drop.
    pub fn serve_echo(&self, port: u16) -> Result<EchoServer> {
        EchoServer::start(self, &[(Ipv4Addr::UNSPECIFIED, port)], Clients::default())
    }
}

struct Echo {
    clients: Clients,
}

impl Serve for Echo {
    fn stream(&self, connection: &mut Connection<'_>) -> io::Result<()> {
        self.clients.note(Client {
            transport: Transport::Tcp,
            address: connection.client,
            port: connection.port(),
        });
        connection.write_all(format!("{}\n", connection.client).as_bytes())?;
        let mut buffer = vec![0; 64 * 1024];
        loop {
            // An idle client is welcome to stay.
            let read = connection.read(&mut buffer, None)?;
            match buffer.get(..read) {
                Some([]) | None => return Ok(()),
                Some(bytes) => connection.write_all(bytes)?,
            }
        }
    }

    fn datagram(&self, datagram: &[u8], client: SocketAddrV4, here: u16) -> Option<Vec<u8>> {
        self.clients.note(Client {
            transport: Transport::Udp,
            address: client,
            port: here,
        });
        Some([format!("{client}\n").as_bytes(), datagram].concat())
    }
}
