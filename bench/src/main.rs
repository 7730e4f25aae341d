//! What a connection costs a pod, against the node itself, in one run in the lab.
//!
//! Node and pod take turns (A B A B …) at connecting to a server beyond the fabric, exchanging one byte and closing;
//! medians and ratios over all rounds are printed. The first measure of `docs/performance.md`-to-be; more follow.
#![expect(clippy::print_stdout, reason = "a command-line tool")]

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Parser;
use lab::{Lab, Namespace};

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
        "{:<12} {:>10} {:>10} {:>8} {:>16}",
        "PATH", "NODE", "POD", "RATIO", "RATIO, MIN-MAX"
    );
    for (path, server) in [("peer VNet", lab.peer()), ("Internet", lab.inet())] {
        let _serving = server.serve_connect_close(PORT)?;
        let pairs = rounds(&arguments, node, &pod, server.addr())?;
        report(path, &pairs);
    }
    Ok(())
}

/// Rates of (node, pod), round by round.
fn rounds(
    arguments: &Arguments,
    node: &Namespace,
    pod: &Namespace,
    server: Ipv4Addr,
) -> Result<Vec<(f64, f64)>> {
    let time = Duration::from_secs_f64(arguments.seconds);
    // Warm-up, left out: neighbours, caches, the first binding.
    rate(node, server, time / 4)?;
    rate(pod, server, time / 4)?;
    (0..arguments.rounds)
        .map(|_| Ok((rate(node, server, time)?, rate(pod, server, time)?)))
        .collect()
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

fn report(path: &str, pairs: &[(f64, f64)]) {
    let (nodes, pods): (Vec<f64>, Vec<f64>) = pairs.iter().copied().unzip();
    let mut ratios: Vec<f64> = pairs.iter().map(|(node, pod)| pod / node).collect();
    ratios.sort_by(f64::total_cmp);
    let ends = (
        ratios.first().copied().unwrap_or(0.0),
        ratios.last().copied().unwrap_or(0.0),
    );
    let (node, pod, ratio) = (median(nodes), median(pods), median(ratios));
    println!(
        "{path:<12} {node:>10.0} {pod:>10.0} {ratio:>8.3} {:>8.3}-{:.3}",
        ends.0, ends.1
    );
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert!((median(vec![3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
    }
}
