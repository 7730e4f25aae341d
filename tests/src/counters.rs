//! What has the kernel's TCP counted in a namespace?

use std::fs;

use anyhow::{Context as _, Result};

use crate::namespace::Namespace;

impl Namespace {
    /// A counter of `/proc/net/snmp` or `/proc/net/netstat` (`RetransSegs`, `TCPSynRetrans`), by the name that `nstat` has after `Tcp` or `TcpExt`.
    pub fn tcp_counter(&self, name: &str) -> Result<u64> {
        let counters = self.run(|| {
            let read = |file| fs::read_to_string(format!("/proc/thread-self/net/{file}"));
            Ok([read("snmp")?, read("netstat")?].concat())
        })?;
        find(&counters, name).with_context(|| format!("the kernel counts no {name} of TCP"))
    }
}

/// Lines come in pairs: names, and values below them.
fn find(counters: &str, name: &str) -> Option<u64> {
    let lines: Vec<&str> = counters.lines().collect();
    lines.chunks_exact(2).find_map(|pair| {
        let [names, values] = pair else { return None };
        let mut columns = names.split(' ').zip(values.split(' '));
        let (protocol, _) = columns.next()?;
        let (_, value) = columns.find(|(column, _)| *column == name)?;
        value.parse().ok().filter(|_| protocol.starts_with("Tcp"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_found_by_its_name_among_those_of_tcp() {
        let counters = "Ip: Forwarding InErrs\nIp: 1 7\nTcp: RetransSegs InErrs\nTcp: 3 4\nTcpExt: A B\nTcpExt: 5 6\n";
        assert_eq!(find(counters, "InErrs"), Some(4));
        assert_eq!(find(counters, "B"), Some(6));
        assert_eq!(find(counters, "Forwarding"), None);
    }
}
