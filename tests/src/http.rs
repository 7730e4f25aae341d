//! How much HTTP does the lab speak? One GET per connection, over `httparse`.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::service::{Connection, Serve};

const MAX_HEADERS: usize = 64;
const MAX_HEAD: usize = 64 * 1024;

/// A request as a server sees it.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) client: SocketAddrV4,
    /// Path and query.
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Response {
    pub(crate) fn new(status: u16, content_type: &str, body: impl Into<String>) -> Self {
        Self {
            status,
            headers: vec![("Content-Type".into(), content_type.into())],
            body: body.into(),
        }
    }

    pub(crate) fn text(status: u16, body: impl Into<String>) -> Self {
        Self::new(status, "text/plain", body)
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }
}

fn find<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let mut headers = headers.iter();
    let found = headers.find(|(key, _)| key.eq_ignore_ascii_case(name));
    found.map(|(_, value)| value.as_str())
}

/// Answers each request with what the function says; it gets the connection in order to pause.
pub(crate) struct Http<F>(pub(crate) F);

impl<F> Serve for Http<F>
where
    F: Fn(&Request, &Connection<'_>) -> io::Result<Response> + Send + Sync + 'static,
{
    fn stream(&self, connection: &mut Connection<'_>) -> io::Result<()> {
        let mut head = Vec::new();
        let response = loop {
            let mut chunk = [0; 4096];
            let read = connection.read_soon(&mut chunk)?;
            head.extend(chunk.iter().take(read));
            if read == 0 || head.len() > MAX_HEAD {
                return Ok(());
            }
            match parse_request(&head, connection.client) {
                Ok(Some(request)) => break (self.0)(&request, connection)?,
                Ok(None) => {}
                Err(error) => break Response::text(400, format!("{error}\n")),
            }
        };
        let mut text = format!("HTTP/1.1 {} lab\r\n", response.status);
        for (key, value) in &response.headers {
            text.extend([key, ": ", value, "\r\n"]);
        }
        let length = response.body.len().to_string();
        text.extend(["Content-Length: ", &length, "\r\nConnection: close\r\n\r\n"]);
        text += &response.body;
        connection.write_all(text.as_bytes())
    }

    fn datagram(&self, _: &[u8], _: SocketAddrV4, _: u16) -> Option<Vec<u8>> {
        None
    }
}

fn parse_request(head: &[u8], client: SocketAddrV4) -> Result<Option<Request>, httparse::Error> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    if request.parse(head)?.is_partial() {
        return Ok(None);
    }
    Ok(Some(Request {
        client,
        target: request.path.unwrap_or_default().to_owned(),
        headers: owned(request.headers),
    }))
}

fn owned(headers: &[httparse::Header<'_>]) -> Vec<(String, String)> {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    let headers = headers.iter();
    headers
        .map(|header| (header.name.to_owned(), text(header.value)))
        .collect()
}

/// A GET from the calling thread's namespace. The answer ends where the server closes.
pub(crate) fn get(
    server: SocketAddrV4,
    path: &str,
    headers: &[(&str, &str)],
    limit: Duration,
) -> Result<Response> {
    let mut stream = TcpStream::connect_timeout(&server.into(), limit)
        .with_context(|| format!("connect to {server}"))?;
    stream.set_read_timeout(Some(limit))?;
    let mut text = format!(
        "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n",
        server.ip()
    );
    for &(key, value) in headers {
        text.extend([key, ": ", value, "\r\n"]);
    }
    text += "\r\n";
    stream
        .write_all(text.as_bytes())
        .context("send the request")?;
    let mut answer = Vec::new();
    stream
        .read_to_end(&mut answer)
        .with_context(|| format!("read the answer of {server}"))?;
    parse_response(&answer).with_context(|| format!("answer of {server}"))
}

fn parse_response(bytes: &[u8]) -> Result<Response> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head) = response.parse(bytes).context("not HTTP")? else {
        bail!("the answer stops within the headers");
    };
    Ok(Response {
        status: response.code.context("an answer without status")?,
        headers: owned(response.headers),
        body: String::from_utf8_lossy(bytes.get(head..).unwrap_or_default()).into_owned(),
    })
}

/// All addresses at one port.
pub(crate) fn at(addresses: &[Ipv4Addr], port: u16) -> Vec<(Ipv4Addr, u16)> {
    addresses.iter().map(|address| (*address, port)).collect()
}
