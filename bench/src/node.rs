//! The same loads between two real machines, in whatever network they are: a server on one, a client on the other.

use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::ArgGroup;

use crate::load::{Counted, Times, cpu::Cpu, tcp, udp};
use crate::names::{Measure, SideName, Unit};
use crate::report::Row;
use crate::series::{Sample, Series};

/// Datagrams a second for the latency under load.
const PACE: u32 = 10_000;

#[derive(Debug, clap::Args)]
#[command(group(ArgGroup::new("end").required(true)))]
pub(crate) struct Arguments {
    /// Answer clients until interrupted
    #[arg(long, group = "end")]
    server: bool,
    /// Measure against the server at this address
    #[arg(long, group = "end", value_name = "ADDRESS")]
    client: Option<Ipv4Addr>,
    /// TCP and UDP port; a flood goes to the UDP port behind it
    #[arg(long, default_value_t = 9000)]
    port: u16,
    /// Rounds; the median counts
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: u16,
    /// Milliseconds of each load in each round
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(10..=60_000))]
    time: u64,
    /// Whose network the client is in, for the rows
    #[arg(long, value_enum, default_value_t = SideName::Host)]
    side: SideName,
    /// The way that packets go, for the rows
    #[arg(long, default_value = "client→server")]
    path: String,
    /// Rows as in report.json, instead of lines
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    match arguments.client {
        Some(address) => client(arguments, SocketAddrV4::new(address, arguments.port)),
        None => server(arguments.port),
    }
}

/// The port of the server that counts a flood instead of answering it.
fn counting(port: u16) -> Result<u16> {
    port.checked_add(1).context("there is no port behind it")
}

fn server(port: u16) -> Result<()> {
    let here = |port| (Ipv4Addr::UNSPECIFIED, port);
    let bind = |port| UdpSocket::bind(here(port)).with_context(|| format!("bind UDP port {port}"));
    let _echo = udp::Server::start(bind(port)?, udp::Service::Echo)?;
    let _count = udp::Server::start(bind(counting(port)?)?, udp::Service::Count)?;
    let listener =
        TcpListener::bind(here(port)).with_context(|| format!("listen on port {port}"))?;
    crate::say(&format!(
        "answering on port {port}, TCP and UDP, and on the UDP port behind it"
    ));
    tcp::Server::start(listener)?.join();
    Ok(())
}

/// A load and what it gives in a round.
type Load<'a> = (Vec<Series>, Box<dyn FnMut() -> Result<Vec<Sample>> + 'a>);

fn client(arguments: &Arguments, server: SocketAddrV4) -> Result<()> {
    Cpu::Client.pin()?;
    let connect = |port| -> Result<UdpSocket> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect((*server.ip(), port))?;
        Ok(socket)
    };
    let echo = connect(server.port())?;
    let count = connect(counting(server.port())?)?;
    let mut loads = loads(arguments, server, &echo, &count);
    // In turns, so that what the network does meanwhile hits all of them.
    for _ in 0..arguments.rounds {
        for (series, go) in &mut loads {
            let name = series.first().map_or("", |series| series.measure.title());
            let found = go().context(name)?;
            for (series, sample) in series.iter_mut().zip(found) {
                let samples = series.sides.entry(arguments.side).or_default();
                samples.push(sample);
            }
        }
    }
    let series = loads.into_iter().flat_map(|(series, _)| series);
    let rows: Vec<Row> = series.flat_map(|series| series.rows()).collect();
    if arguments.json {
        crate::say(&serde_json::to_string_pretty(&rows)?);
    } else {
        for row in &rows {
            crate::say(&line(row));
        }
    }
    Ok(())
}

fn loads<'a>(
    arguments: &Arguments,
    server: SocketAddrV4,
    echo: &'a UdpSocket,
    count: &'a UdpSocket,
) -> [Load<'a>; 5] {
    let times = Times::of(Duration::from_millis(arguments.time));
    let path = &arguments.path;
    let on = |measure, what: &str| Series::new(measure, format!("{path}{what}"), Unit::PerSecond);
    let latency = Series::new(Measure::LatencyLoad, path.as_str(), Unit::Microseconds);
    [
        (
            vec![on(Measure::TcpRr, "")],
            Box::new(move || Ok(vec![tcp::request_response(server, times)?.sample()?])),
        ),
        (
            vec![on(Measure::TcpCrr, "")],
            Box::new(move || Ok(vec![tcp::connect_close(server, times)?.sample()?])),
        ),
        (
            vec![on(Measure::UdpPps, ""), on(Measure::UdpPps, ", sent")],
            Box::new(move || {
                let (arrived, sent) = udp::flood(count, || udp::ask(count), times)?;
                Ok(vec![arrived.sample()?, Sample::of(sent)])
            }),
        ),
        (
            vec![
                on(Measure::UdpPps, ", there and back"),
                on(Measure::UdpPps, ", there and back, lost"),
            ],
            Box::new(move || lossy(udp::one_by_one(echo, times)?)),
        ),
        (
            vec![latency, on(Measure::LatencyLoad, ", lost")],
            Box::new(move || {
                let mut found = lossy(udp::paced(echo, PACE, times)?)?;
                if let Some(first) = found.first_mut() {
                    *first = first.clone().median_latency();
                }
                Ok(found)
            }),
        ),
    ]
}

/// Between machines a datagram may be lost: how many a second stands beside the figure of the others.
fn lossy(counted: Counted) -> Result<Vec<Sample>> {
    let lost = f64::from(u32::try_from(counted.errors)?) / counted.took.as_secs_f64();
    let arrived = Counted {
        errors: 0,
        ..counted
    };
    Ok(vec![arrived.sample()?, Sample::of(lost)])
}

fn line(row: &Row) -> String {
    let Row {
        measure,
        path,
        median,
        min,
        max,
        ..
    } = row;
    let latency = match (row.p50_us, row.p99_us) {
        (Some(p50), Some(p99)) => format!("  p50 {p50:.1} p99 {p99:.1} µs"),
        _ => String::new(),
    };
    format!(
        "{:<14}{path:<32}{median:>12.1} {} ({min:.1}–{max:.1}){latency}",
        measure.to_string(),
        row.unit.name()
    )
}
