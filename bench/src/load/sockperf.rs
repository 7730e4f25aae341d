//! Latency under load by somebody else's tool, so that our own generator need not be believed.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result, ensure};
use lab::Namespace;

use super::cpu::Cpu;
use super::until_bound;
use crate::series::Sample;

/// Seconds of each round; the tool leaves some of the first one out itself.
const SECONDS: &str = "1";

/// There and back at `rate` datagrams a second: the 50th and the 99th percentile, microseconds.
pub(crate) fn sockperf(
    client: &Namespace,
    (server, address): (&Namespace, Ipv4Addr),
    port: u16,
    rate: u32,
) -> Result<Vec<Sample>> {
    let (port, address, rate) = (port.to_string(), address.to_string(), rate.to_string());
    let server_cpu = Cpu::Server.number().to_string();
    let line = [
        "taskset",
        "-c",
        &server_cpu,
        "sockperf",
        "server",
        "-i",
        "0.0.0.0",
        "-p",
        &port,
    ];
    let serving = server.start(&line)?;
    until_bound(server, "-Hulpn", &port)
        .with_context(|| format!("{}: {}", line.join(" "), serving.log()))?;
    // Its sender never sleeps, so that its receiver needs a CPU of its own, or its turn on the server's.
    let line = [
        "sockperf",
        "under-load",
        "-i",
        &address,
        "-p",
        &port,
        "-t",
        SECONDS,
        "--mps",
        &rate,
        "-m",
        "18",
        "--full-rtt",
    ];
    let printed = client.exec(&line)?;
    read(&printed).with_context(|| line.join(" "))
}

fn read(printed: &str) -> Result<Vec<Sample>> {
    let dropped = number(printed, "dropped messages = ")?;
    ensure!(dropped == 0.0, "{dropped} datagrams were lost");
    let percentiles = ["percentile 50.000 =", "percentile 99.000 ="];
    percentiles
        .into_iter()
        .map(|name| Ok(Sample::of(number(printed, name)?)))
        .collect()
}

/// What is printed behind a name.
fn number(printed: &str, name: &str) -> Result<f64> {
    let behind = printed
        .split_once(name)
        .map(|(_, behind)| behind.trim_start());
    let word = behind.and_then(|text| text.split([';', '\n', ' ']).next());
    let word = word.with_context(|| format!("it did not print `{name}`"))?;
    word.parse()
        .with_context(|| format!("`{word}` is no number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRINTED: &str = "sockperf: # dropped messages = 0; # duplicated messages = 0; # out-of-order messages = 0\n\
        sockperf: ---> percentile 99.000 = 35692.092\nsockperf: ---> percentile 50.000 =  203.711\n";

    #[test]
    fn percentiles_are_read() {
        let found: Vec<_> = read(PRINTED)
            .unwrap()
            .iter()
            .map(|sample| sample.value.to_string())
            .collect();
        assert_eq!(found, ["203.711", "35692.092"]);
    }

    #[test]
    fn lost_datagrams_and_other_output_give_no_figure() {
        read(&PRINTED.replace("messages = 0; # dup", "messages = 7; # dup")).unwrap_err();
        read("sockperf: ERROR").unwrap_err();
    }
}
