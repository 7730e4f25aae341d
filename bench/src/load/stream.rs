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

/// How long a test is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Length {
    /// So many MiB, their start included.
    Mebibytes(u32),
    /// A second, behind one that does not count.
    Second,
}

/// One test of `streams` connections. Gbit/s.
pub(crate) fn stream(
    client: &Namespace,
    (server, address): (&Namespace, Ipv4Addr),
    port: u16,
    streams: usize,
    length: Length,
) -> Result<Sample> {
    let (port, address) = (port.to_string(), address.to_string());
    let serving = server.start(&["iperf3", "-s", "-1", "-p", &port])?;
    until_bound(server, "-Htln", &port)
        .with_context(|| format!("iperf3 -s -1 -p {port}: {}", serving.log()))?;
    let (streams, amount) = (streams.to_string(), length.words());
    let cpus = format!("{},{}", Cpu::Client.number(), Cpu::Server.number());
    let line = [
        "iperf3", "-J", "-c", &address, "-p", &port, "-P", &streams, "-A", &cpus,
    ];
    let line: Vec<&str> = line.into_iter().chain(amount.split(' ')).collect();
    let cpu = Clock::start()?;
    let printed = client.exec(&line)?;
    serving.wait(END)?;
    let cpu = cpu.elapsed()?;
    let (bits, mebibytes) =
        found(&printed).with_context(|| format!("{}: {printed}", line.join(" ")))?;
    Ok(Sample {
        cpu: Some((cpu, mebibytes)),
        ..Sample::of(bits / 1e9)
    })
}

impl Length {
    fn words(self) -> String {
        match self {
            Self::Mebibytes(mebibytes) => format!("-n {mebibytes}M"),
            Self::Second => "-t 1 -O 1".into(),
        }
    }
}

/// What the receiver got, in bits per second, and all that was sent, MiB: CPU time is that of the second that does not count,
/// too.
fn found(printed: &str) -> Result<(f64, f64)> {
    let report: Value = serde_json::from_str(printed).context("iperf3 printed no JSON")?;
    let rate = report.pointer("/end/sum_received/bits_per_second");
    let rate = rate.and_then(Value::as_f64).context("no rate")?;
    let intervals = report.get("intervals").and_then(Value::as_array);
    let bytes = intervals.into_iter().flatten();
    let bytes = bytes.filter_map(|one| one.pointer("/sum/bytes")?.as_f64());
    Ok((rate, bytes.sum::<f64>() / f64::from(1 << 20)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_receivers_rate_counts_and_for_cpu_time_all_that_was_sent() {
        let printed = r#"{"intervals":[{"sum":{"bytes":1048576,"omitted":true}},{"sum":{"bytes":3145728,"omitted":false}}],
            "end":{"sum_sent":{"bits_per_second":3e9},"sum_received":{"bits_per_second":2.5e9}}}"#;
        let (rate, mebibytes) = found(printed).unwrap();
        assert!((rate - 2.5e9).abs() < 1.0);
        assert!((mebibytes - 4.0).abs() < 1e-9);
        found(r#"{"error":"unable to connect"}"#).unwrap_err();
        found("").unwrap_err();
    }
}
