//! What a connection costs a pod, against the node itself, in one run in the lab.
//!
//! Node and pod take turns (A B A B …) at connecting to a server beyond the fabric, exchanging one byte and closing;
//! medians and ratios over all rounds are printed. The first measure of `docs/performance.md`-to-be; more follow.
#![expect(clippy::print_stdout, reason = "a command-line tool")]

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Parser;
use lab::{Lab, Namespace, Ratio};

/// Where the servers listen.
const PORT: u16 = 9000;

/// Measures connect/request/close per second from a node and from a pod, to the peered VNet and to the Internet.
#[derive(Debug, Parser)]
struct Arguments {
    /// Rounds; the median counts
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Seconds per round and side
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    ensure!(
        arguments.rounds > 0 && arguments.seconds > 0.0,
        "rounds and seconds must be greater than 0"
    );
    // Recording every frame is the fabric's habit, and would be what is measured.
    let lab = Lab::new().nodes(1).record(false).build()?;
    let node = lab.node(1);
    node.write("/etc/azure-vnet/loader.yaml", "vnetCidrs: [10.50.0.0/16]\n")?;
    node.start_loader()?;
    let pod = node.add_pod("client")?;

    println!(
        "connect/request/close per second, {} rounds of {} s, alternating",
        arguments.rounds, arguments.seconds
    );
    println!(
        "{:<12} {:>8} {:>8} {:>7} {:>15}",
        "PATH", "NODE", "POD", "RATIO", "RATIO, MIN-MAX"
    );
    let time = Duration::from_secs_f64(arguments.seconds);
    for (path, server) in [("peer VNet", lab.peer()), ("Internet", lab.inet())] {
        let _serving = server.serve_connect_close(PORT)?;
        let ratio = Ratio::measure(
            arguments.rounds,
            || rate(node, server.addr(), time),
            || rate(&pod, server.addr(), time),
        )?;
        println!("{path:<12} {ratio}");
    }
    Ok(())
}

/// Connections per second. A connection that fails is an error.
fn rate(client: &Namespace, server: Ipv4Addr, time: Duration) -> Result<f64> {
    let counted = client.connect_close(server, PORT, time)?;
    ensure!(
        counted.failed == 0,
        "{} connections failed: {:?}",
        counted.failed,
        counted.first_failure
    );
    Ok(counted.rate())
}
