//! The part of the Container Runtime Interface, `runtime.v1`, that a kubelet needs for the network of a pod.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use lab::Node;
use prost::Message;
use serde_json::Value;

use crate::grpc;

#[derive(Clone, PartialEq, Message)]
pub(crate) struct PodSandboxConfig {
    #[prost(message, optional, tag = "1")]
    metadata: Option<PodSandboxMetadata>,
    #[prost(string, tag = "2")]
    hostname: String,
    #[prost(message, repeated, tag = "5")]
    port_mappings: Vec<PortMapping>,
    #[prost(message, optional, tag = "8")]
    linux: Option<LinuxPodSandboxConfig>,
}

#[derive(Clone, PartialEq, Message)]
struct PodSandboxMetadata {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    uid: String,
    #[prost(string, tag = "3")]
    namespace: String,
}

#[derive(Clone, PartialEq, Message)]
struct LinuxPodSandboxConfig {
    #[prost(string, tag = "1")]
    cgroup_parent: String,
}

#[derive(Clone, PartialEq, Message)]
struct PortMapping {
    #[prost(int32, tag = "1")]
    protocol: i32,
    #[prost(int32, tag = "2")]
    container_port: i32,
    #[prost(int32, tag = "3")]
    host_port: i32,
}

#[derive(Clone, PartialEq, Message)]
struct RunPodSandboxRequest {
    #[prost(message, optional, tag = "1")]
    config: Option<PodSandboxConfig>,
}

/// The messages that consist of a sandbox's id, or begin with it.
#[derive(Clone, PartialEq, Message)]
struct PodSandboxId {
    #[prost(string, tag = "1")]
    pod_sandbox_id: String,
}

#[derive(Clone, PartialEq, Message)]
struct PodSandboxStatusRequest {
    #[prost(string, tag = "1")]
    pod_sandbox_id: String,
    #[prost(bool, tag = "2")]
    verbose: bool,
}

#[derive(Clone, PartialEq, Message)]
struct Nothing {}

#[derive(Clone, PartialEq, Message)]
struct PodSandboxStatusResponse {
    #[prost(message, optional, tag = "1")]
    status: Option<PodSandboxStatus>,
    #[prost(map = "string, string", tag = "2")]
    info: HashMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
struct PodSandboxStatus {
    /// 0 ready, 1 not.
    #[prost(int32, tag = "3")]
    state: i32,
    #[prost(message, optional, tag = "5")]
    network: Option<PodSandboxNetworkStatus>,
}

#[derive(Clone, PartialEq, Message)]
struct PodSandboxNetworkStatus {
    #[prost(string, tag = "1")]
    ip: String,
}

#[derive(Clone, PartialEq, Message)]
struct ListPodSandboxResponse {
    #[prost(message, repeated, tag = "1")]
    items: Vec<PodSandboxId>,
}

#[derive(Clone, PartialEq, Message)]
struct StatusResponse {
    #[prost(message, optional, tag = "1")]
    status: Option<RuntimeStatus>,
}

#[derive(Clone, PartialEq, Message)]
struct RuntimeStatus {
    #[prost(message, repeated, tag = "1")]
    conditions: Vec<RuntimeCondition>,
}

#[derive(Clone, PartialEq, Message)]
struct RuntimeCondition {
    #[prost(string, tag = "1")]
    kind: String,
    #[prost(bool, tag = "2")]
    status: bool,
    #[prost(string, tag = "4")]
    message: String,
}

impl PodSandboxConfig {
    /// A pod of the namespace `default`.
    pub(crate) fn of(name: &str) -> Self {
        Self {
            metadata: Some(PodSandboxMetadata {
                name: name.to_owned(),
                uid: format!("uid-of-{name}"),
                namespace: "default".to_owned(),
            }),
            hostname: name.to_owned(),
            linux: Some(LinuxPodSandboxConfig {
                cgroup_parent: "/pods".to_owned(),
            }),
            ..Self::default()
        }
    }

    /// A TCP port of the node that leads to one of the pod.
    pub(crate) fn host_port(mut self, host: u16, container: u16) -> Self {
        self.port_mappings.push(PortMapping {
            protocol: 0,
            container_port: container.into(),
            host_port: host.into(),
        });
        self
    }
}

/// What the runtime knows of a sandbox.
#[derive(Debug)]
pub(crate) struct Sandbox {
    pub(crate) ready: bool,
    pub(crate) address: String,
    /// Where its network namespace is.
    pub(crate) netns: String,
}

/// The runtime of a node, as its kubelet sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cri<'a> {
    pub(crate) node: &'a Node,
    pub(crate) socket: &'a str,
    /// Of each call.
    pub(crate) limit: Duration,
}

impl Cri<'_> {
    fn call<T: Message + Default>(&self, method: &str, request: &impl Message) -> Result<T> {
        let method = format!("/runtime.v1.RuntimeService/{method}");
        grpc::call(self.node, self.socket, &method, request, self.limit)
    }

    /// The id of the new sandbox.
    pub(crate) fn run(&self, config: PodSandboxConfig) -> Result<String> {
        let request = RunPodSandboxRequest {
            config: Some(config),
        };
        let response: PodSandboxId = self.call("RunPodSandbox", &request)?;
        Ok(response.pod_sandbox_id)
    }

    pub(crate) fn stop(&self, id: &str) -> Result<()> {
        self.call("StopPodSandbox", &sandbox(id))
            .map(|Nothing {}| ())
    }

    pub(crate) fn remove(&self, id: &str) -> Result<()> {
        self.call("RemovePodSandbox", &sandbox(id))
            .map(|Nothing {}| ())
    }

    pub(crate) fn ids(&self) -> Result<Vec<String>> {
        let list: ListPodSandboxResponse = self.call("ListPodSandbox", &Nothing {})?;
        Ok(list
            .items
            .into_iter()
            .map(|item| item.pod_sandbox_id)
            .collect())
    }

    pub(crate) fn inspect(&self, id: &str) -> Result<Sandbox> {
        let request = PodSandboxStatusRequest {
            pod_sandbox_id: id.to_owned(),
            verbose: true,
        };
        let response: PodSandboxStatusResponse = self.call("PodSandboxStatus", &request)?;
        let status = response.status.context("a sandbox without status")?;
        let info = response.info.get("info").context("no verbose status")?;
        let info: Value = serde_json::from_str(info)?;
        let namespaces = info.pointer("/runtimeSpec/linux/namespaces");
        let mut namespaces = namespaces.and_then(Value::as_array).into_iter().flatten();
        let network = namespaces.find(|namespace| namespace["type"] == "network");
        let netns = network.and_then(|network| network["path"].as_str());
        Ok(Sandbox {
            ready: status.state == 0,
            address: status.network.unwrap_or_default().ip,
            netns: netns.unwrap_or_default().to_owned(),
        })
    }

    /// Why pods cannot have a network; `None` when they can.
    pub(crate) fn network_problem(&self) -> Result<Option<String>> {
        let response: StatusResponse = self.call("Status", &Nothing {})?;
        let conditions = response.status.unwrap_or_default().conditions;
        let network = conditions
            .into_iter()
            .find(|condition| condition.kind == "NetworkReady");
        let network = network.context("the runtime does not speak of the network")?;
        Ok((!network.status).then_some(network.message))
    }
}

fn sandbox(id: &str) -> PodSandboxId {
    PodSandboxId {
        pod_sandbox_id: id.to_owned(),
    }
}
