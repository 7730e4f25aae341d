//! What do the platform's own addresses answer? Wireserver and DNS at 168.63.129.16, IMDS at 169.254.169.254.

use std::io;
use std::net::Ipv4Addr;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Result;

use crate::dns::Resolver;
use crate::http::{Http, Request, Response};
use crate::namespace::Namespace;
use crate::service::{Connection, Service, Sockets};
use crate::vnet::{Nic, Vnet, imds_network, wireserver_xml};
use crate::wait::lock;

/// The wireserver, DNS, and source of health probes.
pub const WIRESERVER: Ipv4Addr = Ipv4Addr::new(168, 63, 129, 16);
/// The instance metadata service.
pub const IMDS: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

/// How the wireserver behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wireserver {
    /// Answers at once.
    #[default]
    Normal,
    /// Answers after so much time.
    Slow(Duration),
    /// Answers with this HTTP status and no interfaces.
    Status(u16),
    /// Answers 200 and something that is not XML.
    Garbage,
    /// Does not answer at all: packets to its HTTP ports vanish.
    Absent,
}

/// The namespace of the platform's addresses. Dereferences to it.
#[derive(Debug)]
pub struct Platform {
    namespace: Namespace,
    vnet: Arc<Vnet>,
    mode: Arc<Mutex<Wireserver>>,
    imds_is_broken: Arc<AtomicBool>,
    services: Vec<Service>,
}

impl Deref for Platform {
    type Target = Namespace;

    fn deref(&self) -> &Namespace {
        &self.namespace
    }
}

impl Platform {
    pub(crate) fn new(vnet: &Arc<Vnet>) -> Result<Self> {
        Ok(Self {
            namespace: Namespace::network("platform")?,
            vnet: Arc::clone(vnet),
            mode: Arc::default(),
            imds_is_broken: Arc::default(),
            services: Vec::new(),
        })
    }

    /// Starts the servers, once the addresses are there.
    pub(crate) fn serve(&mut self) -> Result<()> {
        self.namespace
            .nft("table ip lab { chain input { type filter hook input priority 0; }; }")?;
        let ns = &self.namespace;

        let sockets = Sockets::default().tcp(ns, &[(WIRESERVER, 80), (WIRESERVER, 32526)])?;
        let (vnet, mode) = (Arc::clone(&self.vnet), Arc::clone(&self.mode));
        let wireserver = Http(move |request: &Request, connection: &Connection<'_>| {
            let mode = *lock(&mode);
            wireserver(&vnet, mode, request, connection)
        });
        self.services
            .push(Service::start("wireserver", sockets, wireserver)?);

        let dns = [(WIRESERVER, 53)];
        let sockets = Sockets::default().tcp(ns, &dns)?.udp(ns, &dns)?;
        self.services
            .push(Service::start("dns", sockets, Resolver)?);

        let sockets = Sockets::default().tcp(ns, &[(IMDS, 80)])?;
        let (vnet, broken) = (Arc::clone(&self.vnet), Arc::clone(&self.imds_is_broken));
        let imds = Http(move |request: &Request, _: &Connection<'_>| {
            if broken.load(Ordering::Relaxed) {
                return Ok(Response::text(503, ""));
            }
            Ok(imds(&vnet, request))
        });
        self.services.push(Service::start("imds", sockets, imds)?);
        Ok(())
    }

    /// Whether IMDS answers, from the next request on.
    pub fn imds(&self, answers: bool) {
        self.imds_is_broken.store(!answers, Ordering::Relaxed);
    }

    /// Changes how the wireserver behaves, from the next request on.
    pub fn wireserver(&self, mode: Wireserver) -> Result<()> {
        let rules = match mode {
            Wireserver::Absent => {
                "flush chain ip lab input\n\
                 add rule ip lab input ip daddr 168.63.129.16 tcp dport { 80, 32526 } drop"
            }
            Wireserver::Normal
            | Wireserver::Slow(_)
            | Wireserver::Status(_)
            | Wireserver::Garbage => "flush chain ip lab input",
        };
        *lock(&self.mode) = mode;
        self.namespace.nft(rules)
    }
}

fn wireserver(
    vnet: &Vnet,
    mode: Wireserver,
    request: &Request,
    connection: &Connection<'_>,
) -> io::Result<Response> {
    match mode {
        Wireserver::Normal | Wireserver::Absent => {}
        Wireserver::Slow(time) => connection.pause(time)?,
        Wireserver::Status(status) => return Ok(Response::text(status, "")),
        Wireserver::Garbage => return Ok(Response::text(200, "<Interfaces><Interface Mac")),
    }
    let interfaces = "/machine/plugins?comp=nmagent&type=getinterfaceinfov1";
    let owner = vnet.owner(*request.client.ip());
    Ok(match (request.target.as_str(), owner) {
        (target, Some(nic)) if target == interfaces => {
            Response::new(200, "text/xml; charset=utf-8", wireserver_xml(&nic))
        }
        ("/health" | "/", _) => Response::text(200, "ok\n"),
        _ => Response::text(404, "no such resource\n"),
    })
}

fn imds(vnet: &Vnet, request: &Request) -> Response {
    let client = *request.client.ip();
    let of_primary = |nic: &Nic| nic.primary == client;
    let Some(nic) = vnet.owner(client).filter(of_primary) else {
        return Response::text(403, format!("{client} is no primary address\n"));
    };
    let asked = request.header("Metadata").unwrap_or_default();
    if !asked.eq_ignore_ascii_case("true") || request.header("X-Forwarded-For").is_some() {
        return Response::text(400, "{ \"error\": \"Bad request\" }\n");
    }
    let (path, query) = request.target.split_once('?').unwrap_or_default();
    if !query
        .split('&')
        .any(|part| part.starts_with("api-version="))
    {
        return Response::text(
            400,
            "{ \"error\": \"Bad request. api-version is missing\" }\n",
        );
    }
    let json = "application/json; charset=utf-8";
    match path.trim_end_matches('/') {
        "/metadata/instance/network" => Response::new(200, json, imds_network(&nic).to_string()),
        "/metadata/instance" => {
            let instance = serde_json::json!({"network": imds_network(&nic)});
            Response::new(200, json, instance.to_string())
        }
        _ => Response::text(404, "{ \"error\": \"Not found\" }\n"),
    }
}
