//! A server for tens of thousands of clients that stay.

use std::collections::HashMap;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread::{self, JoinHandle};

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use socket2::{Domain, Socket, Type};

use super::files::own_files;
use crate::namespace::Namespace;

/// Threads that share the port; each may have as many connections as a process may have files.
const THREADS: usize = 4;
/// The event of the listener; connections have their descriptor's number.
const LISTENER: u64 = u64::MAX;
/// How soon a thread notices that it is to stop, milliseconds.
const TICK: u8 = 100;

/// Says who it thinks a client is, in six bytes, and then echoes. Stops on drop.
#[derive(Debug)]
pub struct HoldServer {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Namespace {
    /// Serves connections that stay, on all addresses of the namespace.
    pub fn serve_hold(&self, port: u16) -> Result<HoldServer> {
        // Clients connect faster than a thread accepts.
        self.sysctl("net.core.somaxconn", "65535")?;
        self.sysctl("net.ipv4.tcp_max_syn_backlog", "65535")?;
        let mut server = HoldServer {
            stop: Arc::default(),
            threads: Vec::new(),
        };
        for _ in 0..THREADS {
            let (namespace, stop) = (self.clone(), Arc::clone(&server.stop));
            let (listening, heard) = channel();
            server.threads.push(thread::spawn(move || {
                namespace.run(|| {
                    own_files()?;
                    let listener = listen(port)?;
                    listening.send(()).context("tell that we listen")?;
                    Ok(serve(&listener, &stop)?)
                })
            }));
            heard
                .recv()
                .with_context(|| format!("listen on port {port}"))?;
        }
        Ok(server)
    }
}

impl Drop for HoldServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
    }
}

fn listen(port: u16) -> Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_port(true)?;
    socket.bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port).into())?;
    socket.listen(65_535)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn serve(listener: &TcpListener, stop: &AtomicBool) -> io::Result<()> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))?;
    let mut connections: HashMap<u64, TcpStream> = HashMap::new();
    let mut events = [EpollEvent::empty(); 256];
    while !stop.load(Ordering::Relaxed) {
        let count = match epoll.wait(&mut events, TICK) {
            Err(Errno::EINTR) => 0,
            count => count?,
        };
        for event in events.iter().take(count) {
            if event.data() == LISTENER {
                accept(&epoll, listener, &mut connections)?;
            } else if let Some(connection) = connections.get_mut(&event.data())
                && !matches!(echo(connection), Ok(true))
            {
                connections.remove(&event.data());
            }
        }
    }
    Ok(())
}

fn accept(
    epoll: &Epoll,
    listener: &TcpListener,
    connections: &mut HashMap<u64, TcpStream>,
) -> io::Result<()> {
    while let Ok((mut connection, client)) = listener.accept() {
        let SocketAddr::V4(client) = client else {
            continue;
        };
        connection.set_nonblocking(true)?;
        let hello = [
            client.ip().octets().as_slice(),
            &client.port().to_be_bytes(),
        ]
        .concat();
        if connection.write_all(&hello).is_ok() {
            let number = u64::from(connection.as_raw_fd().unsigned_abs());
            let readable = EpollEvent::new(EpollFlags::EPOLLIN, number);
            epoll.add(connection.as_fd(), readable)?;
            connections.insert(number, connection);
        }
    }
    Ok(())
}

/// Sends back what has come. `false`: the client has closed.
fn echo(connection: &mut TcpStream) -> io::Result<bool> {
    let mut bytes = [0; 4096];
    match connection.read(&mut bytes) {
        Ok(0) => Ok(false),
        Ok(length) => {
            connection.write_all(bytes.get(..length).unwrap_or_default())?;
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
        Err(error) => Err(error),
    }
}
