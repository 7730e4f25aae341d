//! What a pod's packets cost on their way.

use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};
use std::slice;
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Context as _, Result};

use super::{Book, Go, on};
use crate::load::{Counted, Length, Times, cpu::Cpu, sockperf, stream, tcp, udp};
use crate::names::{HALF, Measure, Path, SLOWEST, STREAMS, SideName, Unit};
use crate::scene::{End, Kind, Side};
use crate::series::{Sample, Series, percentiles};

/// Datagrams a second under which latency is looked at: what every side can do.
const PACE: u32 = 10_000;
/// What a quick round of iperf3 carries, MiB.
const QUICK_STREAM: u32 = 768;

pub(super) fn does(measure: Measure) -> bool {
    matches!(
        measure,
        Measure::TcpStream
            | Measure::TcpRr
            | Measure::TcpCrr
            | Measure::UdpPps
            | Measure::LatencyLoad
    )
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "others are asked for elsewhere"
)]
pub(super) fn run(book: &mut Book, wanted: &[Measure]) {
    let sides = book.scene("traffic", Kind::Traffic, &SideName::ALL, |_| Ok(()));
    let quick = book.plan.quick;
    // Streams take longest and say least: behind all else that needs these nodes. What other nodes measure comes later still.
    let (streams, others): (Vec<_>, Vec<_>) =
        wanted.iter().partition(|one| **one == Measure::TcpStream);
    for measure in others.into_iter().chain(streams) {
        for path in Path::ALL {
            let main = matches!(path, Path::ToVnet | Path::Internet);
            match measure {
                Measure::TcpStream if book.plan.streams().contains(&path) => {
                    streams_on(book, &sides, path);
                }
                Measure::TcpRr => requests(book, &sides, measure, path, tcp::request_response),
                Measure::TcpCrr => requests(book, &sides, measure, path, tcp::connect_close),
                Measure::UdpPps if path != Path::Local => {
                    flood(book, &sides, path);
                    if !quick || path == Path::ToVnet {
                        one_by_one(book, &sides, path);
                    }
                }
                Measure::LatencyLoad if !quick || main => {
                    paced(book, &sides, path);
                    if !quick {
                        by_sockperf(book, &sides, path);
                    }
                }
                // Not for this path, or not of traffic.
                _ => {}
            }
        }
    }
}

/// The sides' turns. A side whose turn cannot be made is noted.
pub(super) fn turns<'a>(
    book: &mut Book,
    sides: &'a [Side],
    what: &str,
    make: impl Fn(&'a Side) -> Result<Go<'a>>,
) -> Vec<(SideName, Go<'a>)> {
    let mut turns = Vec::new();
    for side in sides {
        match make(side) {
            Ok(go) => turns.push((side.name, go)),
            Err(error) => book.fail(Some(side.name), what, &error),
        }
    }
    turns
}

/// A port that nobody has used in this run, so that nothing of an earlier connection is in the way.
pub(crate) fn new_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(9000);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn streams_on(book: &mut Book, sides: &[Side], path: Path) {
    let most = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let length = if book.plan.quick {
        Length::Mebibytes(QUICK_STREAM)
    } else {
        Length::Second
    };
    let rounds = book.plan.rounds_of_programs;
    for (count, name) in [1, most.max(2)].into_iter().zip(STREAMS) {
        let label = format!("{path}{name}");
        let turns = turns(book, sides, &label, |side| {
            let (client, server) = side.ends(path)?;
            Ok(Box::new(move || {
                let at = (&server.namespace, server.address);
                stream(&client.namespace, at, new_port(), count, length).map(|sample| vec![sample])
            }))
        });
        let series = vec![Series::new(Measure::TcpStream, label, Unit::Gigabits)];
        book.alternate(series, rounds, turns);
    }
}

type Requests = fn(SocketAddrV4, Times) -> Result<Counted>;

fn requests(book: &mut Book, sides: &[Side], measure: Measure, path: Path, load: Requests) {
    let times = Times::of(book.plan.time);
    let turns = turns(book, sides, &format!("{measure}, {path}"), |side| {
        let mut go = requests_of(&side.ends(path)?, times, load)?;
        Ok(Box::new(move || {
            let mut found = go()?;
            let latencies = found
                .first()
                .and_then(|sample| percentiles(slice::from_ref(sample)));
            found.extend(latencies.into_iter().flatten().map(Sample::of));
            Ok(found)
        }) as Go<'_>)
    });
    let mut series = on(measure, path, Unit::PerSecond);
    if measure == Measure::TcpRr {
        // Each round's, so that they have ratios, too.
        let labels = [HALF, SLOWEST].map(|name| format!("{path}{name}"));
        series.extend(labels.map(|label| Series::new(measure, label, Unit::Microseconds)));
    }
    book.alternate(series, book.plan.rounds, turns);
}

/// One side's requests to a server that stays for all rounds.
pub(crate) fn requests_of(ends: &(End, End), times: Times, load: Requests) -> Result<Go<'static>> {
    let ((client, server), port) = (ends.clone(), new_port());
    let listen = || TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).context("listen");
    let serving = tcp::Server::start(server.namespace.run(listen)?)?;
    let address = SocketAddrV4::new(server.address, port);
    Ok(Box::new(move || {
        let _serving = &serving;
        let counted = client.namespace.run(|| {
            Cpu::Client.pin()?;
            load(address, times)
        })?;
        counted.sample().map(|sample| vec![sample])
    }))
}

/// A client of a UDP server, both sockets in their namespaces.
fn sockets(side: &Side, path: Path, service: udp::Service) -> Result<(UdpSocket, udp::Server)> {
    let ((client, server), port) = (side.ends(path)?, new_port());
    let bind = |port| move || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).context("bind");
    let serving = udp::Server::start(server.namespace.run(bind(port))?, service)?;
    let socket = client.namespace.run(bind(0))?;
    client
        .namespace
        .run(|| Ok(socket.connect((server.address, port))?))?;
    Ok((socket, serving))
}

/// The load on a thread of its own, bound to the client's CPU.
fn on_clients_cpu<T: Send>(load: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let bound = || {
            Cpu::Client.pin()?;
            load()
        };
        let thread = scope.spawn(bound);
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn flood(book: &mut Book, sides: &[Side], path: Path) {
    let times = Times::of(book.plan.time);
    let turns = turns(book, sides, &format!("udp_pps, {path}"), |side| {
        flood_of(side, path, times)
    });
    let mut series = on(Measure::UdpPps, path, Unit::PerSecond);
    // If it is the receiver that cannot take more, all sides look alike; then the difference is here.
    let label = format!("{path}, sent");
    series.push(Series::new(Measure::UdpPps, label, Unit::PerSecond));
    book.alternate(series, book.plan.rounds, turns);
}

/// One side's flood at a server that stays for all rounds: what arrives, and what was sent, a second.
pub(crate) fn flood_of(side: &Side, path: Path, times: Times) -> Result<Go<'static>> {
    let (client, serving) = sockets(side, path, udp::Service::Count)?;
    Ok(Box::new(move || {
        let (arrived, sent) =
            on_clients_cpu(|| udp::flood(&client, || Ok(serving.received()), times))?;
        Ok(vec![arrived.sample()?, Sample::of(sent)])
    }))
}

fn one_by_one(book: &mut Book, sides: &[Side], path: Path) {
    let (times, label) = (Times::of(book.plan.time), format!("{path}, there and back"));
    let turns = turns(book, sides, &format!("udp_pps, {label}"), |side| {
        let (client, serving) = sockets(side, path, udp::Service::Echo)?;
        Ok(Box::new(move || {
            let _serving = &serving;
            let counted = on_clients_cpu(|| udp::one_by_one(&client, times))?;
            counted.sample().map(|sample| vec![sample])
        }))
    });
    let series = vec![Series::new(Measure::UdpPps, label, Unit::PerSecond)];
    book.alternate(series, book.plan.rounds, turns);
}

/// The median latency of each round, and the percentiles of all.
fn paced(book: &mut Book, sides: &[Side], path: Path) {
    let times = Times::of(book.plan.time);
    let turns = turns(book, sides, &format!("latency_load, {path}"), |side| {
        let (client, serving) = sockets(side, path, udp::Service::Echo)?;
        Ok(Box::new(move || {
            let _serving = &serving;
            let counted = on_clients_cpu(|| udp::paced(&client, PACE, times))?;
            Ok(vec![counted.sample()?.median_latency()])
        }))
    });
    book.alternate(
        on(Measure::LatencyLoad, path, Unit::Microseconds),
        book.plan.rounds,
        turns,
    );
}

/// The same by sockperf, which says percentiles of each round only.
fn by_sockperf(book: &mut Book, sides: &[Side], path: Path) {
    let labels = ["p50", "p99"].map(|name| format!("{path}, sockperf {name}"));
    let turns = turns(book, sides, &labels[0], |side| {
        let (client, server) = side.ends(path)?;
        Ok(Box::new(move || {
            let at = (&server.namespace, server.address);
            sockperf(&client.namespace, at, new_port(), PACE)
        }))
    });
    let series = labels.map(|label| Series::new(Measure::LatencyLoad, label, Unit::Microseconds));
    book.alternate(series.to_vec(), book.plan.rounds, turns);
}
