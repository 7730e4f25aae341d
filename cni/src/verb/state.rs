//! `GET_ENDPOINT_STATE`: what Azure's container networking service (CNS) asks for when it starts.
//!
//! It knows the network `azure` only, and reads standard output and standard error as one JSON document.

use rpc::{Endpoint, RunDirectory, azure, leases};
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
    let run = RunDirectory::default();
    let leases = leases(&run).into_iter().filter_map(|(_, lease)| lease);
    let theirs = azure::original_endpoints(&run, &leases.collect::<Vec<_>>());
    call.steps.begin("print");
    output::print(&state(&endpoints, theirs))
}

/// `theirs`: endpoints that Azure's own plug-in made and that live.
fn state(endpoints: &[Endpoint], theirs: Vec<(String, String, Value)>) -> Value {
    let mut interfaces = Map::new();
    for (_, id, endpoint) in theirs.into_iter().filter(|(name, ..)| name == NETWORK) {
        let part = |key| endpoint.get(key).cloned().unwrap_or_default();
        let value = json!({
            "PodName": part("PODName"), "PodNamespace": part("PODNameSpace"), "PodEndpointId": id,
            "ContainerID": part("ContainerID"), "IPAddresses": part("IPAddresses"),
        });
        interfaces.insert(id, value);
    }
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
