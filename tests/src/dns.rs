//! What does the platform's DNS answer? The address of the client that asks, so that a test sees it.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use simple_dns::rdata::{A, RData};
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, ResourceRecord, TYPE};

use crate::service::{Connection, Serve};

const TTL: u32 = 30;

/// The resolver at 168.63.129.16.
pub(crate) struct Resolver;

impl Serve for Resolver {
    fn stream(&self, connection: &mut Connection<'_>) -> io::Result<()> {
        let mut length = [0; 2];
        connection.read_exact(&mut length)?;
        let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
        connection.read_exact(&mut query)?;
        let reply = reply(&query, *connection.client.ip()).map_err(io::Error::other)?;
        let length = u16::try_from(reply.len()).map_err(io::Error::other)?;
        connection.write_all(&[&length.to_be_bytes()[..], &reply].concat())
    }

    fn datagram(&self, query: &[u8], client: SocketAddrV4, _: u16) -> Option<Vec<u8>> {
        reply(query, *client.ip()).ok()
    }
}

/// Every name has one A record: the client's address.
fn reply(query: &[u8], client: Ipv4Addr) -> Result<Vec<u8>, simple_dns::SimpleDnsError> {
    let query = Packet::parse(query)?;
    let mut reply = Packet::new_reply(query.id());
    reply.set_flags(PacketFlag::RECURSION_AVAILABLE | PacketFlag::RECURSION_DESIRED);
    for question in query.questions {
        if question.qtype == QTYPE::TYPE(TYPE::A) {
            let address = RData::A(A::from(client));
            let name = question.qname.clone();
            let record = ResourceRecord::new(name, CLASS::IN, TTL, address);
            reply.answers.push(record);
        }
        reply.questions.push(question);
    }
    reply.build_bytes_vec()
}

/// Asks `server` for the A record of `name`, over UDP and then over TCP, from the calling thread's namespace.
pub(crate) fn ask(server: Ipv4Addr, name: &str, limit: Duration) -> Result<[Ipv4Addr; 2]> {
    let over_udp = ask_udp(server, name, limit).context("over UDP")?;
    let over_tcp = ask_tcp(server, name, limit).context("over TCP")?;
    Ok([over_udp, over_tcp])
}

/// Asks over UDP only.
pub(crate) fn ask_udp(server: Ipv4Addr, name: &str, limit: Duration) -> Result<Ipv4Addr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.set_read_timeout(Some(limit))?;
    socket.connect((server, 53))?;
    let id = socket.local_addr()?.port();
    socket.send(&query(id, name)?).context("send the query")?;
    let mut bytes = [0; 512];
    let length = socket
        .recv(&mut bytes)
        .with_context(|| format!("answer of {server}"))?;
    address(bytes.get(..length).unwrap_or_default(), id, name)
}

fn ask_tcp(server: Ipv4Addr, name: &str, limit: Duration) -> Result<Ipv4Addr> {
    let at = SocketAddrV4::new(server, 53);
    let mut stream = TcpStream::connect_timeout(&at.into(), limit)?;
    stream.set_read_timeout(Some(limit))?;
    let id = stream.local_addr()?.port();
    let query = query(id, name)?;
    let length = u16::try_from(query.len())?.to_be_bytes();
    stream
        .write_all(&[&length[..], &query].concat())
        .context("send the query")?;
    let mut length = [0; 2];
    stream.read_exact(&mut length).context("read the answer")?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer).context("read the answer")?;
    address(&answer, id, name)
}

fn query(id: u16, name: &str) -> Result<Vec<u8>> {
    let mut query = Packet::new_query(id);
    let (class, kind) = (QCLASS::CLASS(CLASS::IN), QTYPE::TYPE(TYPE::A));
    query
        .questions
        .push(Question::new(Name::new(name)?, kind, class, false));
    Ok(query.build_bytes_vec()?)
}

/// The address in the answer to query `id`.
fn address(answer: &[u8], id: u16, name: &str) -> Result<Ipv4Addr> {
    let reply = Packet::parse(answer)?;
    ensure!(reply.id() == id, "the answer is to another query");
    let address = reply.answers.iter().find_map(|record| {
        if let RData::A(a) = &record.rdata {
            Some(Ipv4Addr::from(a.address))
        } else {
            None
        }
    });
    address.with_context(|| format!("no A record for {name}"))
}
