//! `docker-run.sh` and `docker-del.sh` of ours, and Azure's own way of calling the plug-in, with containers of podman.

use std::path::Path;

use lab::libcni::{self, Attachment, Verb};
use lab::{Finished, Node};

use crate::image::IMAGE;
use crate::podman::Podman;
use crate::scene::{Scene, address_of};

const FILES: [(&str, &str); 3] = [
    ("cni", include_str!("../../../deploy/docker-cni.sh")),
    ("run", include_str!("../../../deploy/docker-run.sh")),
    ("del", include_str!("../../../deploy/docker-del.sh")),
];

fn install(node: &Node) {
    for (name, text) in FILES {
        let path = format!("/opt/azure-vnet/docker-{name}.sh");
        node.write(&path, text).unwrap();
    }
}

fn script(node: &Node, name: &str, arguments: &[&str]) -> Finished {
    let variables: &[&str] = if name == "run" {
        &["PUBLISH=8088:80"]
    } else {
        &[]
    };
    script_with(node, variables, name, arguments)
}

fn script_with(node: &Node, variables: &[&str], name: &str, arguments: &[&str]) -> Finished {
    let path = format!("/opt/azure-vnet/docker-{name}.sh");
    let line = [&["env"], variables, &["sh", &path], arguments].concat();
    node.feed(&line, b"").unwrap()
}

/// Chains of portmap stay, so that one container must have come and gone before a test can tell what another one leaves.
fn warm_up(node: &Node) {
    script(node, "run", &["first", "shop", IMAGE])
        .success()
        .unwrap();
    script(node, "del", &["first", "shop"]).success().unwrap();
}

/// What the scripts keep for DEL.
fn kept(node: &Node) -> String {
    node.exec(&["ls", "/run/azure-vnet-docker"]).unwrap()
}

fn containers(podman: &Podman<'_>) -> String {
    podman.run(&["ps", "--all", "--quiet"]).unwrap()
}

#[test]
fn a_container_of_docker_run_reaches_all_and_docker_del_removes_it() {
    let scene = Scene::new();
    let node = scene.lab.node(1);
    let podman = Podman::new(node).unwrap();
    install(node);
    let live_and_die = || {
        let id = script(node, "run", &["web", "shop", IMAGE])
            .success()
            .unwrap();
        assert_eq!(id.trim().len(), 64, "{id}");
        let pod = podman.enter("web");
        scene.assert_reaches_all(&pod, address_of(&pod));
        let _echo = pod.serve_echo(80).unwrap();
        let peer = scene.lab.peer();
        let seen = peer.tcp(node.addr(), 8088).unwrap().peer_ip();
        assert_eq!(seen, peer.addr(), "portmap was called, too");
        let status = node.exec(&["vnetctl", "status"]).unwrap();
        assert!(status.contains("shop/web"), "{status}");
        script(node, "del", &["web", "shop"]).success().unwrap();
        assert_eq!(containers(&podman), "");
    };
    live_and_die();
    let before = node.snapshot().unwrap();
    live_and_die();
    assert_eq!(scene.left(&before), Vec::<String>::new());
}

#[test]
fn docker_run_removes_the_container_when_add_fails() {
    let scene = Scene::new();
    let node = scene.lab.node(1);
    let podman = Podman::new(node).unwrap();
    install(node);
    warm_up(node);
    let before = node.snapshot().unwrap();
    // The second plug-in fails, when the first has done its part.
    let conflist = lab::AZURE_CONFLIST.replace("\"portmap\"", "\"nothing-of-that-name\"");
    for (change, word) in [
        (
            "loader",
            "azure : error executing ADD: connect to the loader",
        ),
        ("conflist", "nothing-of-that-name"),
    ] {
        if change == "loader" {
            node.loader().terminate().unwrap();
        } else {
            node.write(lab::CONFLIST, &conflist).unwrap();
        }
        let failed = script(node, "run", &["web", "shop", IMAGE]);
        assert!(!failed.status.success());
        assert!(failed.stderr.contains(word), "{}", failed.stderr);
        assert_eq!(containers(&podman), "");
        if change == "loader" {
            node.start_loader().unwrap();
        }
        assert_eq!(scene.left(&before), Vec::<String>::new());
    }
}

#[test]
fn the_scripts_say_what_is_wrong_and_touch_nothing() {
    let scene = Scene::new();
    let node = scene.lab.node(1);
    let podman = Podman::new(node).unwrap();
    install(node);
    for (name, arguments, word) in [
        ("run", &["web", "shop"][..], "usage: docker-run.sh"),
        ("del", &["web"][..], "usage: docker-del.sh"),
        (
            "run",
            &["web", "shop", "localhost/none:1"][..],
            "localhost/none",
        ),
    ] {
        let failed = script(node, name, arguments);
        assert!(!failed.status.success());
        assert!(failed.stderr.contains(word), "{}", failed.stderr);
    }
    // A name that is taken: the container that has it stays.
    script(node, "run", &["web", "shop", IMAGE])
        .success()
        .unwrap();
    let there = containers(&podman);
    assert!(
        !script(node, "run", &["web", "shop", IMAGE])
            .status
            .success()
    );
    assert_eq!(containers(&podman), there);
    // Without a way to the IPAM plug-in DEL fails, and the container stays for another try.
    let failed = script_with(node, &["CNI_PATH=/nowhere"], "del", &["web", "shop"]);
    assert!(!failed.status.success());
    assert!(failed.stderr.contains("container web ("), "{failed:?}");
    assert!(failed.stderr.contains("stays"), "{failed:?}");
    assert_eq!(containers(&podman), there);
    script(node, "del", &["web", "shop"]).success().unwrap();
}

#[test]
fn ports_that_cannot_be_published_are_told_before_anything_is_started() {
    let scene = Scene::new();
    let node = scene.lab.node(1);
    let podman = Podman::new(node).unwrap();
    install(node);
    warm_up(node);
    let run = |publish: &str, word: &str| {
        let failed = script_with(node, &[publish], "run", &["web", "shop", IMAGE]);
        assert!(!failed.status.success(), "{publish}");
        assert!(failed.stderr.contains(word), "{}", failed.stderr);
        assert!(!failed.stderr.contains("executing"), "{}", failed.stderr);
    };
    let before = node.snapshot().unwrap();
    for wrong in ["8080", "0:80", "8080:65536", "8080:80/tpc", "a:b"] {
        let publish = format!("PUBLISH=8088:80 {wrong}");
        run(&publish, &format!("PUBLISH: {wrong} is not HOST:CONTAINER"));
    }
    let without = lab::AZURE_CONFLIST.replace("\"portMappings\":true", "\"portMappings\":false");
    assert_ne!(without, lab::AZURE_CONFLIST);
    node.write(lab::CONFLIST, &without).unwrap();
    run("PUBLISH=8088:80", "has the capability portMappings");
    assert_eq!(containers(&podman), "");
    assert_eq!(kept(node), "");
    assert_eq!(scene.left(&before), Vec::<String>::new());
    let plain = script_with(node, &["PUBLISH="], "run", &["web", "shop", IMAGE]);
    plain.success().unwrap();
    script(node, "del", &["web", "shop"]).success().unwrap();
}

#[test]
fn docker_del_cleans_up_after_a_container_that_was_removed_by_hand() {
    let scene = Scene::new();
    let node = scene.lab.node(1);
    let podman = Podman::new(node).unwrap();
    install(node);
    warm_up(node);
    let before = node.snapshot().unwrap();
    // Two of the same name, one after the other.
    for _ in 0..2 {
        script(node, "run", &["web", "shop", IMAGE])
            .success()
            .unwrap();
        podman
            .run(&["rm", "--force", "--time", "0", "web"])
            .unwrap();
    }
    assert_eq!(kept(node).lines().count(), 2);
    // Rules of portmap go, although the list has none any more.
    let ours_only = lab::AZURE_CONFLIST.replace("\"portmap\"", "\"nothing-of-that-name\"");
    node.write(lab::CONFLIST, &ours_only).unwrap();
    for other in [["web", "bank"], ["we", "shop"]] {
        script(node, "del", &other).success().unwrap();
        assert_eq!(kept(node).lines().count(), 2, "{other:?}");
    }
    script(node, "del", &["web", "shop"]).success().unwrap();
    assert_eq!(kept(node), "");
    assert_eq!(scene.left(&before), Vec::<String>::new());
    let again = script(node, "del", &["web", "shop"]);
    assert!(again.stderr.contains("nothing is left of shop/web"));
    again.success().unwrap();
}

/// podman, but the script is told to end when a container has just been made; `$TOLD` is whether it heard which.
const INTERRUPTED: &str = r#"#!/bin/sh
[ "$1" = create ] || exec podman "$@"
if [ "$TOLD" = yes ]; then podman "$@"; else podman "$@" >/dev/null; fi
kill -TERM "$PPID"
[ "$TOLD" = yes ]
"#;

#[test]
fn a_docker_run_that_is_told_to_end_when_it_has_just_made_the_container_removes_it() {
    let scene = Scene::new();
    let node = scene.lab.node(1);
    let podman = Podman::new(node).unwrap();
    install(node);
    warm_up(node);
    let engine = "/opt/azure-vnet/interrupted";
    node.write(engine, INTERRUPTED).unwrap();
    node.exec(&["chmod", "755", engine]).unwrap();
    let before = node.snapshot().unwrap();
    for told in ["TOLD=yes", "TOLD=no"] {
        let variables = [told, "ENGINE=/opt/azure-vnet/interrupted"];
        let ended = script_with(node, &variables, "run", &["web", "shop", IMAGE]);
        assert!(!ended.status.success(), "{told}: {ended:?}");
        assert_eq!(containers(&podman), "", "{told}: {ended:?}");
        assert_eq!(kept(node), "");
        assert_eq!(scene.left(&before), Vec::<String>::new());
    }
}

/// Azure's `docker-run.sh` pipes the first plug-in's configuration into `azure-vnet`; its `docker-del.sh` has a wrong path.
#[test]
fn azures_own_scripts_would_work() {
    let scene = Scene::new();
    let node = scene.lab.node(1);
    let podman = Podman::new(node).unwrap();
    let before = node.snapshot().unwrap();
    let run = [
        "run",
        "--detach",
        "--name",
        "web",
        "--network",
        "none",
        IMAGE,
    ];
    let id = podman.run(&run).unwrap();
    let pid = podman.run(&["inspect", "--format", "{{.State.Pid}}", "web"]);
    let mut attachment =
        Attachment::of_pod("web", &id, Some(format!("/proc/{}/ns/net", pid.unwrap())));
    attachment.args = "K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web".to_owned();
    let network = node.network().unwrap();
    let flattened = network.first_netconf(&attachment).unwrap().to_string();
    let call = |verb, attachment: &Attachment| {
        let environment = attachment.environment(verb);
        let done = libcni::exec(node, "azure-vnet", &environment, flattened.as_bytes());
        libcni::outcome("azure-vnet", &done.unwrap()).unwrap()
    };
    call(Verb::Add, &attachment).unwrap();
    let pod = podman.enter("web");
    scene.assert_reaches_all(&pod, address_of(&pod));
    drop(pod);
    attachment.netns = Some("netnspath".to_owned());
    assert_eq!(call(Verb::Del, &attachment), None);
    podman
        .run(&["rm", "--force", "--time", "0", "web"])
        .unwrap();
    assert_eq!(scene.left(&before), Vec::<String>::new());
}

#[test]
fn shellcheck_finds_nothing_in_the_scripts() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut shellcheck = std::process::Command::new("shellcheck");
    shellcheck.current_dir(workspace).arg("--external-sources");
    shellcheck.args(FILES.map(|(name, _)| format!("deploy/docker-{name}.sh")));
    let found = shellcheck.output().unwrap();
    assert!(
        found.status.success(),
        "{}",
        String::from_utf8_lossy(&found.stdout)
    );
}
