//! `UPDATE`: Azure's plug-in then takes over routes that its container networking service (CNS) has changed. Without CNS there
//! are none, so that the answer is the attachment as it is.

use netconf::{Args, Netconf};
use rpc::RunDirectory;

use crate::error::Error;
use crate::output;
use crate::program::Call;
use crate::record::{Record, Records};

/// There is nothing to update. The first words are Azure's.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AzureError {
    #[error("Network not found: no pod was added to network {network}; add one first")]
    Network { network: String },
    #[error(
        "Endpoint not found: pod {namespace}/{pod} was not added to network {network}; add it first"
    )]
    Endpoint {
        network: String,
        namespace: String,
        pod: String,
    },
}

pub(super) fn update(call: &mut Call) -> Result<(), Error> {
    let netconf = Netconf::parse(&call.stdin)?;
    let args = Args::parse(&call.env.args)?;
    args.require_pod()?;
    call.require_root()?;

    call.steps.begin("records");
    let mut records = Records::open(&RunDirectory::default())?.all()?;
    let network = netconf.name;
    records.retain(|record| record.endpoint.key.network == network);
    if records.is_empty() {
        return Err(AzureError::Network { network }.into());
    }
    // A pod that is made anew has two until the DEL of its old sandbox.
    let is_another = |record: &Record| record.endpoint.key.container_id != call.env.container_id;
    records.sort_by_cached_key(|record| (is_another(record), record.endpoint.key.clone()));
    let of_pod = records.iter().find(|record| {
        (&record.endpoint.pod_namespace, &record.endpoint.pod_name)
            == (&args.pod_namespace, &args.pod_name)
    });
    let record = of_pod.ok_or(AzureError::Endpoint {
        network,
        namespace: args.pod_namespace,
        pod: args.pod_name,
    })?;
    call.steps.begin("print");
    output::print(&record.result().to_json(netconf.version))
}
