//! containerd on a node of the lab: its own sockets, state and images, the lab's plug-ins and conflist.

use std::time::Duration;

use anyhow::{Context as _, Result};
use lab::{Node, Process, eventually};

use crate::cri::Cri;
use crate::image;

pub(crate) const SOCKET: &str = "/run/containerd/containerd.sock";
const CONFIG: &str = "/etc/containerd/config.toml";
const START_LIMIT: Duration = Duration::from_secs(30);
/// The kubelet's own is four minutes.
pub(crate) const CALL_LIMIT: Duration = Duration::from_mins(1);

/// `native` copies the image's one small file; overlays would need a file system that keeps their attributes. A test's machine
/// may lack the controllers of cgroups, and the capability that a better score needs.
const TEXT: &str = r#"version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/lab/sleeper:1"
  disable_cgroup = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/opt/cni/bin"
    conf_dir = "/etc/cni/net.d"
"#;

/// Running, until it is killed or dropped; its sandboxes live as long as the lab.
#[derive(Debug)]
pub(crate) struct Containerd<'a> {
    node: &'a Node,
    process: Process,
}

impl<'a> Containerd<'a> {
    /// Starts it for the first time, with the image.
    pub(crate) fn new(node: &'a Node) -> Result<Self> {
        node.prepare_containers()?;
        image::build(node)?;
        node.write(CONFIG, TEXT)?;
        let started = Self::start(node)?;
        for namespace in ["default", "k8s.io"] {
            let import = ["image", "import", "--snapshotter", "native", image::ARCHIVE];
            started.ctr(namespace, &import)?;
        }
        Ok(started)
    }

    fn start(node: &'a Node) -> Result<Self> {
        let process = node.start(&["containerd", "--config", CONFIG, "--log-level", "warn"])?;
        let started = Self { node, process };
        let answers = || {
            let ended = started.process.status().ok()?.is_some();
            (ended || started.cri().network_problem().ok()?.is_none()).then_some(!ended)
        };
        let running = eventually(START_LIMIT, answers) == Some(true);
        running
            .then_some(())
            .with_context(|| format!("containerd does not start:\n{}", started.process.log()))?;
        Ok(started)
    }

    /// SIGKILL, and a new one in its place.
    pub(crate) fn kill_and_restart(self) -> Result<Self> {
        let node = self.node;
        self.process.kill9()?;
        Self::start(node)
    }

    pub(crate) fn cri(&self) -> Cri<'a> {
        Cri {
            node: self.node,
            socket: SOCKET,
            limit: CALL_LIMIT,
        }
    }

    /// `ctr`, containerd's own client.
    pub(crate) fn ctr(&self, namespace: &str, arguments: &[&str]) -> Result<String> {
        let line = [&["ctr", "--namespace", namespace], arguments].concat();
        self.node.exec(&line)
    }
}

impl Drop for Containerd<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("containerd wrote:\n{}", self.process.log());
        }
    }
}
