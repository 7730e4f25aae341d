//! Requests over TCP: a byte there and back, over one connection or over a new one each time.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddrV4, TcpListener, TcpStream};
use std::thread::{self, JoinHandle};

use anyhow::{Context as _, Result};
use socket2::SockRef;

use super::cpu::Cpu;
use super::{Counted, PATIENCE, Times, closed_loop};

/// What a client sends when the server is to close.
const LAST: u8 = b'x';
/// What it sends when more follows.
const MORE: u8 = b'm';

/// Answers one client after the other with what it sends. Stops on drop.
#[derive(Debug)]
pub(crate) struct Server {
    listener: TcpListener,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// The listener's namespace is the server's.
    pub(crate) fn start(listener: TcpListener) -> Result<Self> {
        let accepting = listener.try_clone()?;
        let serve = move || {
            // A figure from the wrong CPU is a worse one, not a wrong one.
            Cpu::Server.pin().unwrap_or_default();
            while let Ok((connection, _)) = accepting.accept() {
                // A client that is gone is the client's affair.
                answer(connection).unwrap_or_default();
            }
        };
        let thread = thread::Builder::new().name("tcp".into()).spawn(serve)?;
        Ok(Self {
            listener,
            thread: Some(thread),
        })
    }

    /// Waits until somebody else ends it.
    pub(crate) fn join(mut self) {
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap_or_default();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Wakes the thread from accept.
        let listener = SockRef::from(&self.listener);
        listener.shutdown(Shutdown::Both).unwrap_or_default();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap_or_default();
        }
    }
}

/// The server closes first, so that the client's port is free at once.
fn answer(mut connection: TcpStream) -> io::Result<()> {
    connection.set_nodelay(true)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    let mut byte = [0];
    loop {
        if connection.read(&mut byte)? == 0 {
            return Ok(());
        }
        connection.write_all(&byte)?;
        if byte == [LAST] {
            return Ok(());
        }
    }
}

/// Request and response over one connection.
pub(crate) fn request_response(server: SocketAddrV4, times: Times) -> Result<Counted> {
    let mut connection = connect(server).with_context(|| format!("connect to {server}"))?;
    let mut byte = [0];
    closed_loop(times, || {
        connection.write_all(&[MORE])?;
        connection.read_exact(&mut byte)
    })
}

/// Connect, request, response, close.
pub(crate) fn connect_close(server: SocketAddrV4, times: Times) -> Result<Counted> {
    let mut answer = Vec::with_capacity(2);
    closed_loop(times, || {
        let mut connection = connect(server)?;
        connection.write_all(&[LAST])?;
        answer.clear();
        connection.read_to_end(&mut answer)?;
        if answer == [LAST] {
            return Ok(());
        }
        Err(io::Error::other(format!("answered with {answer:?}")))
    })
}

fn connect(server: SocketAddrV4) -> io::Result<TcpStream> {
    let connection = TcpStream::connect_timeout(&server.into(), PATIENCE)?;
    connection.set_nodelay(true)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    Ok(connection)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use std::time::Duration;

    fn server() -> (Server, SocketAddrV4) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
        (Server::start(listener).unwrap(), address)
    }

    #[test]
    fn both_kinds_of_requests_are_answered_by_one_server() {
        let (_server, address) = server();
        let times = Times::of(Duration::from_millis(50));
        for load in [request_response, connect_close] {
            let counted = load(address, times).unwrap();
            assert_eq!(counted.errors, 0, "{counted:?}");
            assert!(counted.sample().unwrap().value > 0.0);
        }
    }

    #[test]
    fn without_a_server_there_is_no_figure() {
        let (server, address) = server();
        drop(server);
        let times = Times::of(Duration::from_millis(20));
        request_response(address, times).unwrap_err();
        let error = connect_close(address, times).unwrap().sample().unwrap_err();
        assert!(error.to_string().contains("refused"), "{error}");
    }
}
