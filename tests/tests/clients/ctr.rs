//! `ctr run --cni`: no Kubernetes, so the runtime does not say which pod it is.

use std::time::Duration;

use lab::eventually;

use crate::containerd::{CALL_LIMIT, Containerd};
use crate::image::IMAGE;
use crate::scene::{Scene, WITHOUT_KUBERNETES, address_of};

/// In the foreground, because a detached one is never deleted from its network by this `ctr`. The default of the shares needs a
/// controller that the machine of a test may lack.
const RUN: [&str; 10] = [
    "ctr",
    "run",
    "--rm",
    "--cni",
    "--cpu-shares",
    "0",
    "--snapshotter",
    "native",
    IMAGE,
    "web",
];

#[test]
fn a_container_of_ctr_reaches_all() {
    let scene = Scene::with(&WITHOUT_KUBERNETES);
    let node = scene.lab.node(1);
    let containerd = Containerd::new(node).unwrap();
    let before = node.snapshot().unwrap();
    let run = node.start(&RUN).unwrap();
    let pid = || {
        let tasks = containerd.ctr("default", &["task", "list"]).ok()?;
        let task = tasks.lines().find(|line| line.contains("RUNNING"))?;
        task.split_whitespace().nth(1)?.parse::<u32>().ok()
    };
    let pid = eventually(CALL_LIMIT, pid).unwrap_or_else(|| panic!("{}", run.log()));
    let pod = node.open("web", &format!("/proc/{pid}/ns/net")).unwrap();
    scene.assert_reaches_all(&pod, address_of(&pod));
    drop(pod);
    let kill = ["task", "kill", "--signal", "SIGKILL", "web"];
    containerd.ctr("default", &kill).unwrap();
    run.wait(Duration::from_secs(20)).unwrap();
    assert_eq!(scene.left(&before), Vec::<String>::new());
}
