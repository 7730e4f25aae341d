//! Much data over one connection, and back.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::namespace::Namespace;

impl Namespace {
    /// Sends `length` bytes to an echo server as fast as they go, and checks what comes back.
    pub fn bulk(&self, server: Ipv4Addr, port: u16, length: usize) -> Result<()> {
        let sent: Vec<u8> = (0..=250_u8).cycle().take(length).collect();
        self.run(|| {
            let mut connection = TcpStream::connect((server, port))?;
            connection.set_read_timeout(Some(Duration::from_secs(5)))?;
            let mut writer = connection.try_clone()?;
            thread::scope(|scope| {
                let writing = scope.spawn(|| writer.write_all(&sent));
                // The server says first who it thinks we are.
                let mut byte = [0];
                while byte != *b"\n" {
                    connection.read_exact(&mut byte)?;
                }
                let mut echoed = vec![0; length];
                connection
                    .read_exact(&mut echoed)
                    .context("read the echo")?;
                ensure!(echoed == sent, "another echo than what was sent");
                Ok(writing.join().unwrap_or(Ok(()))?)
            })
        })
        .with_context(|| format!("{length} bytes to {server}:{port} and back"))
    }
}
