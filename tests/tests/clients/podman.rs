//! podman on a node of the lab, with its CNI back end.

use std::net::Ipv4Addr;

use anyhow::Result;
use lab::{Namespace, Node};

use crate::image::{self, IMAGE};
use crate::scene::{Scene, WITHOUT_KUBERNETES, address_of, transparent};

/// Limits that the machine of a test cannot set, or has no controllers for, are not asked for.
const CONF: &str = r#"[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
pids_limit = 0
[network]
network_backend = "cni"
cni_plugin_dirs = ["/opt/cni/bin"]
network_config_dir = "/etc/cni/net.d"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
"#;
const STORAGE: &str = "[storage]\ndriver = \"vfs\"\nrunroot = \"/run/podman-storage\"\ngraphroot = \"/var/lib/podman-storage\"\n";
const POLICY: &str = r#"{"default": [{"type": "insecureAcceptAnything"}]}"#;

/// podman and its image.
pub(crate) struct Podman<'a>(&'a Node);

impl<'a> Podman<'a> {
    pub(crate) fn new(node: &'a Node) -> Result<Self> {
        node.prepare_containers()?;
        image::build(node)?;
        node.write("/etc/containers/containers.conf", CONF)?;
        node.write("/etc/containers/storage.conf", STORAGE)?;
        node.write("/etc/containers/policy.json", POLICY)?;
        let podman = Self(node);
        podman.run(&["load", "--input", image::ARCHIVE])?;
        Ok(podman)
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Result<String> {
        let line = [&["podman"], arguments].concat();
        Ok(self.0.exec(&line)?.trim().to_owned())
    }

    /// The network namespace of a container.
    pub(crate) fn enter(&self, container: &str) -> Namespace {
        let pid = self.run(&["inspect", "--format", "{{.State.Pid}}", container]);
        let path = format!("/proc/{}/ns/net", pid.unwrap());
        self.0.open(container, &path).unwrap()
    }
}

#[test]
fn a_container_of_podman_reaches_all() {
    let scene = Scene::with(&WITHOUT_KUBERNETES);
    let node = scene.lab.node(1);
    let podman = Podman::new(node).unwrap();
    let live_and_die = || {
        let run = ["run", "--detach", "--name", "web", "--network", "azure"];
        let published = ["--publish", "8088:80", IMAGE];
        podman.run(&[&run[..], &published].concat()).unwrap();
        let shown = "{{(index .NetworkSettings.Networks \"azure\").IPAddress}}";
        let address = podman.run(&["inspect", "--format", shown, "web"]).unwrap();
        let address: Ipv4Addr = address.parse().unwrap();
        let pod = podman.enter("web");
        scene.assert_reaches_all(&pod, address);
        let _echo = pod.serve_echo(80).unwrap();
        let peer = scene.lab.peer();
        let seen = peer.tcp(node.addr(), 8088).unwrap().peer_ip();
        assert_eq!(seen, peer.addr(), "portmap got podman's port");
        podman
            .run(&["rm", "--force", "--time", "0", "web"])
            .unwrap();
    };
    live_and_die();
    // The first one's chains of portmap stay.
    let before = node.snapshot().unwrap();
    live_and_die();
    assert_eq!(scene.left(&before), Vec::<String>::new());
}

/// podman says the container's name as the pod's, and no namespace.
#[test]
fn a_container_that_is_called_like_a_pod_leaves_that_pod_its_veths_name() {
    let scene = Scene::with(&transparent(&WITHOUT_KUBERNETES));
    let node = scene.lab.node(1);
    let podman = Podman::new(node).unwrap();
    podman
        .run(&[
            "run",
            "--detach",
            "--name",
            "web",
            "--network",
            "azure",
            IMAGE,
        ])
        .unwrap();
    let pod = node.add_pod("web").unwrap();
    // printf default.web | sha1sum
    assert_eq!(pod.host_veth().unwrap(), "azv68caf03a5f4");
    scene.assert_reaches_all(&pod, pod.addr());
    let container = podman.enter("web");
    scene.assert_reaches_all(&container, address_of(&container));
}

#[test]
fn podman_asks_for_an_address_and_shows_why_it_cannot_have_it() {
    let scene = Scene::with(&WITHOUT_KUBERNETES);
    let node = scene.lab.node(1);
    let podman = Podman::new(node).unwrap();
    let run = |name: &str, network: &str| {
        podman.run(&[
            "run",
            "--detach",
            "--name",
            name,
            "--network",
            network,
            IMAGE,
        ])
    };
    let wished = node.secondaries().unwrap()[7];
    let network = format!("azure:ip={wished},mac=02:00:00:00:00:77");
    run("web", &network).unwrap();
    scene.assert_reaches_all(&podman.enter("web"), wished);
    let link = podman.enter("web").exec(&["ip", "link", "show", "eth0"]);
    assert!(link.unwrap().contains("02:00:00:00:00:77"));
    let error = format!("{:#}", run("late", &network).unwrap_err());
    assert!(error.contains("Address already in use"), "{error}");
}
