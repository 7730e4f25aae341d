//! `GET_ENDPOINT_STATE`: what Azure's container networking service (CNS) asks for when it starts.
//!
//! It knows the network `azure` only, and reads standard output and standard error as one JSON document.

use rpc::{Endpoint, RunDirectory};
use serde_json::{Map, Value, json};

use crate::error::Error;
use crate::output;
use crate::program::Call;
use crate::record::Records;

/// The network that CNS means.
const NETWORK: &str = "azure";
/// How much of a container's ID Azure puts into the ID of an endpoint.
const ID_BYTES: usize = 8;

pub(super) fn print(call: &mut Call) -> Result<(), Error> {
    call.require_root()?;
    call.steps.begin("records");
    let records = Records::open(&RunDirectory::default())?.all()?;
    let endpoints: Vec<Endpoint> = records.into_iter().map(|record| record.endpoint).collect();
    call.steps.begin("print");
    output::print(&state(&endpoints))
}

fn state(endpoints: &[Endpoint]) -> Value {
    let mut interfaces = Map::new();
    for endpoint in endpoints
        .iter()
        .filter(|endpoint| endpoint.key.network == NETWORK)
    {
        let key = &endpoint.key;
        let short = key
            .container_id
            .get(..ID_BYTES)
            .unwrap_or(&key.container_id);
        let mut id = format!("{short}-{}", key.ifname);
        if interfaces.contains_key(&id) {
            id = format!("{}-{}", key.container_id, key.ifname);
        }
        let mask = base64(endpoint.address.netmask().octets());
        interfaces.insert(
            id.clone(),
            json!({
                "PodName": endpoint.pod_name,
                "PodNamespace": endpoint.pod_namespace,
                "PodEndpointId": id,
                "ContainerID": key.container_id,
                "IPAddresses": [{"IP": endpoint.address.addr(), "Mask": mask}],
            }),
        );
    }
    json!({"ContainerInterfaces": interfaces})
}

/// Go's encoding of a byte slice (RFC 4648, section 4), for the four bytes of a mask.
fn base64(bytes: [u8; 4]) -> String {
    let bits = u64::from(u32::from_be_bytes(bytes)) << 4;
    let mut text: String = (0..6_u32)
        .rev()
        .map(|place| match u8::try_from(bits >> (6 * place) & 0x3f) {
            Ok(value @ 0..=25) => char::from(b'A' + value),
            Ok(value @ 26..=51) => char::from(b'a' + (value - 26)),
            Ok(value @ 52..=61) => char::from(b'0' + (value - 52)),
            Ok(62) => '+',
            Ok(_) | Err(_) => '/',
        })
        .collect();
    text.push_str("==");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_written_as_go_writes_them() {
        for (mask, text) in [
            ([255, 255, 0, 0], "//8AAA=="),
            ([255, 255, 255, 0], "////AA=="),
            ([255, 255, 255, 255], "/////w=="),
            ([255, 255, 240, 0], "///wAA=="),
            ([0, 0, 0, 0], "AAAAAA=="),
        ] {
            assert_eq!(base64(mask), text);
        }
    }
}
