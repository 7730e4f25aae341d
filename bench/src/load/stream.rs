//! Bytes of TCP, by iperf3.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use lab::Namespace;
use serde_json::Value;

use super::cpu::{Clock, Cpu};
use super::until_bound;
use crate::series::Sample;

/// How long iperf3's server may take to end after its one test.
const END: Duration = Duration::from_secs(5);

/// One test of `streams` connections that carry `mebibytes` together. Gbit/s.
pub(crate) fn stream(
    client: &Namespace,
    (server, address): (&Namespace, Ipv4Addr),
    port: u16,
    streams: usize,
    mebibytes: u32,
) -> Result<Sample> {
    let (port, address) = (port.to_string(), address.to_string());
    let cpu = Clock::start()?;
    let serving = server.start(&["iperf3", "-s", "-1", "-p", &port])?;
    until_bound(server, "-Htln", &port)
        .with_context(|| format!("iperf3 -s -1 -p {port}: {}", serving.log()))?;
    let (streams, amount) = (streams.to_string(), format!("{mebibytes}M"));
    let cpus = format!("{},{}", Cpu::Client.number(), Cpu::Server.number());
    let line = [
        "iperf3", "-J", "-c", &address, "-p", &port, "-P", &streams, "-n", &amount, "-A", &cpus,
    ];
    let printed = client.exec(&line)?;
    serving.wait(END)?;
    let bits = rate(&printed).with_context(|| format!("{}: {printed}", line.join(" ")))?;
    Ok(Sample {
        cpu: Some((cpu.elapsed()?, f64::from(mebibytes))),
        ..Sample::of(bits / 1e9)
    })
}

/// What the receiver got, in bits per second.
fn rate(printed: &str) -> Result<f64> {
    let report: Value = serde_json::from_str(printed).context("iperf3 printed no JSON")?;
    let found = report.pointer("/end/sum_received/bits_per_second");
    found.and_then(Value::as_f64).context("no rate")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_receivers_rate_counts() {
        let printed = r#"{"end":{"sum_sent":{"bits_per_second":3e9},"sum_received":{"bits_per_second":2.5e9}}}"#;
        assert!((rate(printed).unwrap() - 2.5e9).abs() < 1.0);
        rate(r#"{"error":"unable to connect"}"#).unwrap_err();
        rate("").unwrap_err();
    }
}
