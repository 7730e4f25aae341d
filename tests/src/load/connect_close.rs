//! Connect, request, response, close: the load that costs a data path most, because every connection is new.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::poll::PollFlags;
use socket2::SockRef;

use crate::namespace::Namespace;
use crate::wait::{pass, ready};

/// How long one connection may take before it counts as failed. A lost SYN is sent again after a second.
const PATIENCE: Duration = Duration::from_secs(5);

/// A connection that took this long had a segment lost: the kernel sends a SYN again after one second.
const SLOW: Duration = Duration::from_millis(900);

/// One byte in, one byte out, one connection after the other. Stops on drop.
#[derive(Debug)]
pub struct ConnectCloseServer {
    stop: Option<io::PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

/// What happened to connections that came and went.
#[derive(Clone, Debug, Default)]
pub struct ConnectClose {
    /// Connected, answered and closed.
    pub done: u32,
    /// Refused, reset, silent for five seconds, or answered with another byte.
    pub failed: u32,
    /// Of those done: with a SYN lost.
    pub slow: u32,
    /// From the first connection to the last.
    pub took: Duration,
    /// Why the first one failed.
    pub first_failure: Option<String>,
}

impl ConnectClose {
    /// Connections per second.
    pub fn rate(&self) -> f64 {
        f64::from(self.done) / self.took.as_secs_f64()
    }
}

impl Namespace {
    /// Serves on all addresses of the namespace. The server closes first, so that the client's port is free at once.
    pub fn serve_connect_close(&self, port: u16) -> Result<ConnectCloseServer> {
        let listener = self.run(|| Ok(TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?))?;
        listener.set_nonblocking(true)?;
        let (stopped, stop) = io::pipe()?;
        let thread = thread::Builder::new()
            .name("connect-close".into())
            .spawn(move || serve(&listener, &stopped))?;
        Ok(ConnectCloseServer {
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Connections one after the other, for `time`.
    pub fn connect_close(
        &self,
        server: Ipv4Addr,
        port: u16,
        time: Duration,
    ) -> Result<ConnectClose> {
        self.connect_close_while(server, port, |_, start| start.elapsed() < time)
    }

    /// `count` connections, one after the other.
    pub fn connect_close_times(
        &self,
        server: Ipv4Addr,
        port: u16,
        count: u32,
    ) -> Result<ConnectClose> {
        self.connect_close_while(server, port, |done, _| done < count)
    }

    /// Connections one after the other, until `stop` is set.
    pub fn connect_close_until(
        &self,
        server: Ipv4Addr,
        port: u16,
        stop: &AtomicBool,
    ) -> Result<ConnectClose> {
        self.connect_close_while(server, port, |_, _| !stop.load(Ordering::Relaxed))
    }

    /// The same, no more than `rate` connections a second.
    pub fn connect_close_paced(
        &self,
        server: Ipv4Addr,
        port: u16,
        rate: u32,
        stop: &AtomicBool,
    ) -> Result<ConnectClose> {
        self.connect_close_while(server, port, |done, start| {
            let due = Duration::from_secs(1) * done / rate;
            pass(due.saturating_sub(start.elapsed()));
            !stop.load(Ordering::Relaxed)
        })
    }

    fn connect_close_while(
        &self,
        server: Ipv4Addr,
        port: u16,
        go_on: impl Fn(u32, Instant) -> bool + Sync,
    ) -> Result<ConnectClose> {
        let address = SocketAddrV4::new(server, port);
        self.run(|| {
            let start = Instant::now();
            let mut counted = ConnectClose::default();
            while go_on(counted.done + counted.failed, start) {
                let began = Instant::now();
                match once(address) {
                    Ok(()) => {
                        counted.done += 1;
                        counted.slow += u32::from(began.elapsed() >= SLOW);
                    }
                    Err(error) => {
                        counted.failed += 1;
                        counted
                            .first_failure
                            .get_or_insert_with(|| error.to_string());
                    }
                }
            }
            counted.took = start.elapsed();
            Ok(counted)
        })
        .with_context(|| format!("connect to {address} and close"))
    }
}

fn once(address: SocketAddrV4) -> io::Result<()> {
    let mut connection = TcpStream::connect(address)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    connection.write_all(b"x")?;
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer)?;
    match answer.as_slice() {
        b"x" => Ok(()),
        other => Err(io::Error::other(format!("answered with {other:?}"))),
    }
}

impl Drop for ConnectCloseServer {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap_or_default();
        }
    }
}

fn serve(listener: &TcpListener, stopped: &io::PipeReader) {
    let watched = [
        (stopped.as_fd(), PollFlags::POLLIN),
        (listener.as_fd(), PollFlags::POLLIN),
    ];
    while matches!(ready(&watched, None).as_deref(), Ok([false, _])) {
        while let Ok((connection, _)) = listener.accept() {
            // A client that is gone is the client's affair.
            answer(connection).unwrap_or_default();
        }
    }
}

fn answer(mut connection: TcpStream) -> io::Result<()> {
    // A connection that never says anything must not keep the others waiting for ever.
    SockRef::from(&connection).set_read_timeout(Some(PATIENCE))?;
    let mut byte = [0];
    connection.read_exact(&mut byte)?;
    connection.write_all(&byte)
}
