//! How does a test keep one TCP connection, and say a word over it when it likes?

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use socket2::{Domain, Socket, Type};

use crate::namespace::Namespace;

/// How long each word may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// An open TCP connection to an echo server of the lab.
#[derive(Debug)]
pub struct Conversation {
    stream: TcpStream,
    seen: SocketAddrV4,
}

impl Namespace {
    /// Connects from port `from` (0: any) to an echo server.
    pub fn converse(&self, from: u16, server: Ipv4Addr, port: u16) -> Result<Conversation> {
        self.converse_from(Ipv4Addr::UNSPECIFIED, from, server, port)
    }

    /// The same from one of the namespace's addresses.
    pub fn converse_from(
        &self,
        source: Ipv4Addr,
        from: u16,
        server: Ipv4Addr,
        port: u16,
    ) -> Result<Conversation> {
        let open = || {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            socket.set_reuse_address(true)?;
            socket.bind(&SocketAddrV4::new(source, from).into())?;
            socket.set_read_timeout(Some(PATIENCE))?;
            socket.connect_timeout(&SocketAddrV4::new(server, port).into(), PATIENCE)?;
            let mut stream = TcpStream::from(socket);
            stream.set_nodelay(true)?;
            let seen = line(&mut stream)?;
            let seen = seen
                .parse()
                .with_context(|| format!("`{seen}` is no address"))?;
            anyhow::Ok(Conversation { stream, seen })
        };
        self.run(|| open().with_context(|| format!("converse with {server}:{port}")))
    }
}

impl Conversation {
    /// The client as the server saw it.
    pub fn seen(&self) -> SocketAddrV4 {
        self.seen
    }

    /// Sends a word and gets it back.
    pub fn say(&mut self, word: &str) -> Result<()> {
        self.stream
            .write_all(format!("{word}\n").as_bytes())
            .context("send")?;
        let echo = line(&mut self.stream).context("read the echo")?;
        ensure!(echo == word, "`{echo}` came back for `{word}`");
        Ok(())
    }
}

fn line(stream: &mut TcpStream) -> Result<String> {
    let mut line = Vec::new();
    loop {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        match byte {
            [b'\n'] => return Ok(String::from_utf8(line)?),
            byte => line.extend(byte),
        }
    }
}
