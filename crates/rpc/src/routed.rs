//! Which addresses does the node itself send to an interface of their own? A pod that lives has such a route, whoever made it.

use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;

use crate::StateError;

/// The addresses that the main routing table sends to an interface of their own.
pub fn routed() -> Result<BTreeSet<Ipv4Addr>, StateError> {
    let path = Path::new("/proc/thread-self/net/route");
    let text = fs::read_to_string(path).map_err(|source| StateError::io("read", path, source))?;
    Ok(text.lines().filter_map(host_route).collect())
}

/// Of a line such as `azv1 050AF00A 00000000 0001 0 0 0 FFFFFFFF 0 0 0`: numbers are in the machine's own order.
fn host_route(line: &str) -> Option<Ipv4Addr> {
    let mut fields = line.split_whitespace().skip(1);
    let destination = u32::from_str_radix(fields.next()?, 16).ok()?;
    let mask = fields.nth(5)?;
    (mask == "FFFFFFFF").then(|| Ipv4Addr::from(destination.to_ne_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_route_is_read_as_the_kernel_writes_it() {
        let line = "azv1\t0A01F00A\t00000000\t0005\t0\t0\t0\tFFFFFFFF\t0\t0\t0";
        assert_eq!(host_route(line), Some(Ipv4Addr::new(10, 240, 1, 10)));
        let subnet = line.replace("FFFFFFFF", "0000FFFF");
        assert_eq!(host_route(&subnet), None);
        assert_eq!(host_route("Iface Destination Gateway"), None);
    }
}
