//! The same loads between two real machines, in whatever network they are: a server on one, a client on the other.

use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::ArgGroup;

use crate::load::{Times, cpu::Cpu, tcp, udp};
use crate::names::{Measure, Unit};
use crate::series::{Sample, Spread};

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
    /// TCP and UDP port
    #[arg(long, default_value_t = 9000)]
    port: u16,
    /// Rounds; the median counts
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: u16,
    /// Milliseconds of each load in each round
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(10..=60_000))]
    time: u64,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    match arguments.client {
        Some(address) => client(arguments, SocketAddrV4::new(address, arguments.port)),
        None => server(arguments.port),
    }
}

fn server(port: u16) -> Result<()> {
    let here = (Ipv4Addr::UNSPECIFIED, port);
    let datagrams = UdpSocket::bind(here).with_context(|| format!("bind UDP port {port}"))?;
    let listener = TcpListener::bind(here).with_context(|| format!("listen on port {port}"))?;
    let _echo = udp::Server::start(datagrams, udp::Service::Echo)?;
    crate::say(&format!("answering on port {port}, TCP and UDP"));
    tcp::Server::start(listener)?.join();
    Ok(())
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "four of them are measured here"
)]
fn client(arguments: &Arguments, server: SocketAddrV4) -> Result<()> {
    Cpu::Client.pin()?;
    let times = Times::of(Duration::from_millis(arguments.time));
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(server)?;
    for measure in [
        Measure::TcpRr,
        Measure::TcpCrr,
        Measure::UdpPps,
        Measure::LatencyLoad,
    ] {
        let mut samples = Vec::new();
        for _ in 0..arguments.rounds {
            let counted = match measure {
                Measure::TcpRr => tcp::request_response(server, times),
                Measure::TcpCrr => tcp::connect_close(server, times),
                Measure::UdpPps => udp::one_by_one(&socket, times),
                _ => udp::paced(&socket, PACE, times),
            };
            samples.push(counted?.sample().with_context(|| measure.title())?);
        }
        crate::say(&line(measure, &samples));
    }
    Ok(())
}

fn line(measure: Measure, samples: &[Sample]) -> String {
    let spread = Spread::of(samples.iter().map(|sample| sample.value).collect());
    let rate = spread.map_or_else(
        String::new,
        |Spread {
             low, median, high, ..
         }| {
            format!(
                "{median:>10.0} {} ({low:.0}–{high:.0})",
                Unit::PerSecond.name()
            )
        },
    );
    let percentiles = crate::series::percentiles(samples)
        .map(|[p50, p99]| format!("p50 {p50:.1} p99 {p99:.1} µs"));
    format!(
        "{:<14}{rate}  {}",
        measure.to_string(),
        percentiles.unwrap_or_default()
    )
}
