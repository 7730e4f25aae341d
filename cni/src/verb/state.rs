//! `GET_ENDPOINT_STATE`: what Azure's container networking service (CNS) asks for when it starts.
//!
//! It knows the network `azure` only, and reads standard output and standard error as one JSON document.

use rpc::{Endpoint, RunDirectory, azure};
use serde_json::{Map, Value, json};

use crate::error::Error;
use crate::output;
use crate::program::Call;
use crate::record::Records;

/// The network that CNS means.
const NETWORK: &str = "azure";

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
        let id = azure::endpoint_id(key, &interfaces);
        let mask = azure::mask(endpoint.address);
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
