//! Connect, request, response, close: the load that costs a data path most, because every connection is new.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use lab::Namespace;

/// Where the server listens.
pub(crate) const PORT: u16 = 9000;

/// Serves until the process ends: one byte in, one byte out, and the server closes first, so that the client's port
/// is free again at once.
pub(crate) fn serve(server: &Namespace, port: u16) -> Result<()> {
    let listener = server
        .run(|| Ok(TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?))
        .context("start the server")?;
    thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            // A client that is gone is the client's affair.
            drop(answer(connection));
        }
    });
    Ok(())
}

fn answer(mut connection: TcpStream) -> std::io::Result<()> {
    let mut byte = [0];
    connection.read_exact(&mut byte)?;
    connection.write_all(&byte)
}

/// Connections per second out of `client` during `time`, one after the other. A connection that fails is an error.
pub(crate) fn rate(client: &Namespace, server: Ipv4Addr, time: Duration) -> Result<f64> {
    let address = SocketAddrV4::new(server, PORT);
    client.run(|| {
        let start = Instant::now();
        let mut done = 0_u32;
        while start.elapsed() < time {
            let mut connection =
                TcpStream::connect(address).with_context(|| format!("connect to {address}"))?;
            connection.write_all(b"x")?;
            let mut answer = Vec::new();
            connection.read_to_end(&mut answer)?;
            done += 1;
        }
        Ok(f64::from(done) / start.elapsed().as_secs_f64())
    })
}
