//! Who can be called beyond the virtual network? The Internet, a peered virtual network and a network over VPN.

use std::net::Ipv4Addr;
use std::ops::Deref;

use anyhow::Result;

use crate::echo::{Client, Clients, EchoServer};
use crate::http::{Http, Request, Response, at};
use crate::namespace::Namespace;
use crate::service::{Connection, Service, Sockets};

/// Ports of the echo servers.
pub const ECHO_PORTS: [u16; 2] = [7, 8080];

/// A network beyond the fabric: echo servers (TCP and UDP) on [`ECHO_PORTS`], HTTP on port 80.
/// Dereferences to its namespace.
#[derive(Debug)]
pub struct Outside {
    namespace: Namespace,
    addresses: Vec<Ipv4Addr>,
    clients: Clients,
    services: Vec<Service>,
    echo: Option<EchoServer>,
}

impl Deref for Outside {
    type Target = Namespace;

    fn deref(&self) -> &Namespace {
        &self.namespace
    }
}

impl Outside {
    pub(crate) fn new(name: &str, addresses: &[Ipv4Addr]) -> Result<Self> {
        Ok(Self {
            namespace: Namespace::network(name)?,
            addresses: addresses.to_vec(),
            clients: Clients::default(),
            services: Vec::new(),
            echo: None,
        })
    }

    /// Starts the servers, once the addresses are there.
    pub(crate) fn serve(&mut self) -> Result<()> {
        let places: Vec<_> = ECHO_PORTS
            .iter()
            .flat_map(|port| at(&self.addresses, *port))
            .collect();
        self.echo = Some(EchoServer::start(
            &self.namespace,
            &places,
            self.clients.clone(),
        )?);
        let sockets = Sockets::default().tcp(&self.namespace, &at(&self.addresses, 80))?;
        let who_am_i = Http(|request: &Request, _: &Connection<'_>| {
            Ok(Response::text(200, format!("{}\n", request.client)))
        });
        self.services
            .push(Service::start("web", sockets, who_am_i)?);
        Ok(())
    }

    /// The first address.
    pub fn addr(&self) -> Ipv4Addr {
        self.addresses
            .first()
            .copied()
            .unwrap_or(Ipv4Addr::UNSPECIFIED)
    }

    pub fn addresses(&self) -> &[Ipv4Addr] {
        &self.addresses
    }

    /// The newest client of the echo servers, as they saw it.
    pub fn last_client(&self) -> Option<Client> {
        self.clients.last()
    }

    /// The newest clients of the echo servers, the last one last.
    pub fn clients(&self) -> Vec<Client> {
        self.clients.all()
    }
}
