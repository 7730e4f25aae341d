//! Datagrams: as many as go, one there and back, or so many a second whatever comes back.

use std::io;
use std::net::UdpSocket;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::sys::socket::{setsockopt, sockopt::RcvBufForce};

use super::cpu::{Clock, Cpu};
use super::{Counted, PATIENCE, Times, closed_loop, histogram};

/// Bytes of a datagram; the smallest frame has 18.
const SIZE: usize = 18;
/// Bytes of a question how many there were; no datagram of a load has so few.
const QUESTION: usize = 8;
/// How soon a server notices that it is to stop.
const TICK: Duration = Duration::from_millis(50);
/// How long the last answers may take.
const LAST: Duration = Duration::from_millis(100);
/// Room for what comes while the server does not run.
const BUFFER: usize = 4 << 20;

/// What a server does with a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    /// And says how many there were when it is asked.
    Count,
    Echo,
}

/// Counts or answers. Stops on drop.
#[derive(Debug)]
pub(crate) struct Server {
    stop: Arc<AtomicBool>,
    received: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// The socket's namespace is the server's.
    pub(crate) fn start(socket: UdpSocket, service: Service) -> Result<Self> {
        socket.set_read_timeout(Some(TICK))?;
        make_room(&socket);
        let (stop, received) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (stopped, counter) = (Arc::clone(&stop), Arc::clone(&received));
        let serve = move || {
            Cpu::Server.pin().unwrap_or_default();
            let mut datagram = [0; 2048];
            while !stopped.load(Ordering::Relaxed) {
                let Ok((length, client)) = socket.recv_from(&mut datagram) else {
                    continue;
                };
                let count = if length == QUESTION {
                    counter.load(Ordering::Relaxed)
                } else {
                    counter.fetch_add(1, Ordering::Relaxed) + 1
                };
                let count = count.to_be_bytes();
                let answer = match service {
                    Service::Echo => datagram.get(..length),
                    Service::Count if length == QUESTION => Some(count.as_slice()),
                    Service::Count => None,
                };
                if let Some(answer) = answer {
                    // What is lost is missed by the client.
                    socket.send_to(answer, client).unwrap_or_default();
                }
            }
        };
        let thread = thread::Builder::new().name("udp".into()).spawn(serve)?;
        Ok(Self {
            stop,
            received,
            thread: Some(thread),
        })
    }

    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap_or_default();
        }
    }
}

/// How many datagrams a server that counts has had, asked by a connected client. It answers behind what it has not read yet.
pub(crate) fn ask(client: &UdpSocket) -> Result<u64> {
    client.set_read_timeout(Some(PATIENCE / 10))?;
    let mut answer = [0; QUESTION];
    let mut result = Ok(0);
    for _ in 0..10 {
        client.send(&[0; QUESTION])?;
        result = client.recv(&mut answer);
        if result.is_ok() {
            return Ok(u64::from_be_bytes(answer));
        }
    }
    result.context("the server does not say how many datagrams it had")?;
    Ok(0)
}

/// As many as a connected client can send: what arrives by the server's own count, and how many were sent a second.
pub(crate) fn flood(
    client: &UdpSocket,
    received: impl Fn() -> Result<u64>,
    times: Times,
) -> Result<(Counted, f64)> {
    let (mut sent, mut errors) = (0_u32, 0);
    let mut first_error = None;
    let mut send_for = |time: Duration| {
        let start = Instant::now();
        loop {
            for _ in 0..64 {
                match client.send(&[0; SIZE]) {
                    Ok(_) => sent += 1,
                    Err(error) => {
                        errors += 1;
                        first_error.get_or_insert_with(|| error.to_string());
                    }
                }
            }
            if start.elapsed() >= time {
                return (start.elapsed(), std::mem::take(&mut sent));
            }
        }
    };
    send_for(times.warm);
    let (before, cpu) = (received()?, Clock::start()?);
    let (took, sent) = send_for(times.counted);
    let counted = Counted {
        done: received()?.saturating_sub(before),
        errors,
        first_error,
        took,
        latency: None,
        cpu: cpu.elapsed()?,
    };
    Ok((counted, f64::from(sent) / took.as_secs_f64()))
}

/// One datagram there and back after the other, with a connected client.
pub(crate) fn one_by_one(client: &UdpSocket, times: Times) -> Result<Counted> {
    client.set_nonblocking(false)?;
    client.set_read_timeout(Some(PATIENCE))?;
    let mut answer = [0; SIZE];
    let mut number = 0_u64;
    closed_loop(times, || {
        number += 1;
        client.send(&stamped(number))?;
        // A late answer of an earlier load is not this one's.
        loop {
            client.recv(&mut answer)?;
            if stamp(&answer) == Some(number) {
                return Ok(());
            }
        }
    })
}

/// `rate` datagrams a second, each at its own moment whatever has come back by then: an open loop. A datagram's latency is
/// from the moment for which it was meant, so that a stall counts for all that had to wait.
pub(crate) fn paced(client: &UdpSocket, rate: u32, times: Times) -> Result<Counted> {
    client.set_nonblocking(true)?;
    make_room(client);
    let (base, interval) = (Instant::now(), Duration::from_secs(1) / rate);
    let (warm, end) = (times.warm, times.warm + times.counted);
    let mut latency = histogram()?;
    let (mut due, mut sent, mut errors) = (Duration::ZERO, 0_u64, 0);
    let mut first_error = None;
    let mut answer = [0; SIZE];
    let (mut clock, mut all_sent) = (None, None);
    loop {
        let now = base.elapsed();
        if due <= now && due < end {
            if due >= warm {
                sent += 1;
                clock.map_or_else(|| Clock::start().map(|new| clock = Some(new)), |_| Ok(()))?;
            }
            let nanos = u64::try_from(due.as_nanos())?;
            if let Err(error) = client.send(&stamped(nanos)) {
                errors += 1;
                first_error.get_or_insert_with(|| error.to_string());
            }
            due += interval;
        }
        match client.recv(&mut answer) {
            Ok(_) => {
                let meant = stamp(&answer).map(Duration::from_nanos).unwrap_or_default();
                // What is from an earlier load was meant for a moment that is not over.
                if let (true, Some(took)) = (meant >= warm, base.elapsed().checked_sub(meant)) {
                    latency.saturating_record(u64::try_from(took.as_nanos())?);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                errors += 1;
                first_error.get_or_insert_with(|| error.to_string());
            }
        }
        // Whoever was kept from running sends what is due before anything is given up.
        if due >= end {
            let gave_up = *all_sent.get_or_insert(now) + LAST < now;
            if gave_up || latency.len() == sent {
                break;
            }
        }
    }
    let lost = sent.saturating_sub(latency.len());
    if lost > 0 {
        first_error.get_or_insert_with(|| format!("no answer in {LAST:?}"));
    }
    Ok(Counted {
        done: latency.len(),
        errors: errors + lost,
        first_error,
        took: times.counted,
        latency: Some(latency),
        cpu: clock.map_or(Ok(Duration::ZERO), Clock::elapsed)?,
    })
}

/// Not everybody may; then the rates are those of a smaller buffer.
fn make_room(socket: &UdpSocket) {
    setsockopt(&socket.as_fd(), RcvBufForce, &BUFFER).unwrap_or_default();
}

fn stamped(number: u64) -> [u8; SIZE] {
    let mut datagram = [0; SIZE];
    for (to, from) in datagram.iter_mut().zip(number.to_ne_bytes()) {
        *to = from;
    }
    datagram
}

fn stamp(datagram: &[u8]) -> Option<u64> {
    Some(u64::from_ne_bytes(datagram.get(..8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn pair(service: Service) -> (UdpSocket, Server) {
        let bind = || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (client, server) = (bind(), bind());
        client.connect(server.local_addr().unwrap()).unwrap();
        (client, Server::start(server, service).unwrap())
    }

    #[test]
    fn a_flood_counts_what_arrives() {
        let (client, server) = pair(Service::Count);
        let (counted, sent) = flood(
            &client,
            || Ok(server.received()),
            Times::of(Duration::from_millis(50)),
        )
        .unwrap();
        assert_eq!(counted.errors, 0, "{counted:?}");
        assert!(sent > 0.0);
        assert!(counted.done <= server.received());
        // On a busy machine nothing may have been read by then.
        lab::eventually(PATIENCE, || (server.received() > 0).then_some(())).unwrap();
    }

    #[test]
    fn a_server_that_counts_says_how_many_there_were() {
        let (client, _server) = pair(Service::Count);
        for _ in 0..7 {
            client.send(&[0; SIZE]).unwrap();
        }
        assert_eq!(ask(&client).unwrap(), 7);
        assert_eq!(ask(&client).unwrap(), 7, "a question does not count");
    }

    #[test]
    fn an_open_loop_sends_as_many_as_it_was_told() {
        let (client, _server) = pair(Service::Echo);
        let counted = paced(&client, 1000, Times::of(Duration::from_millis(200))).unwrap();
        assert_eq!(counted.done + counted.errors, 200, "{counted:?}");
    }

    #[test]
    fn a_closed_loop_waits_for_its_own_answer() {
        let (client, _server) = pair(Service::Echo);
        // An answer that nobody waits for any more.
        client.send(&stamped(77)).unwrap();
        let counted = one_by_one(&client, Times::of(Duration::from_millis(50))).unwrap();
        assert_eq!(counted.errors, 0, "{counted:?}");
    }

    #[test]
    fn what_nobody_answers_is_an_error() {
        let (client, _server) = pair(Service::Count);
        let counted = paced(&client, 1000, Times::of(Duration::from_millis(50))).unwrap();
        assert_eq!(counted.errors, 50, "{counted:?}");
        counted.sample().unwrap_err();
    }
}
