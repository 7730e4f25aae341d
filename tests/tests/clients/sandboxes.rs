//! Pod sandboxes of containerd, over CRI as the kubelet asks for them.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use lab::{AZURE_CONFLIST, Namespace, Node, eventually};
use nix::sys::signal::Signal;

use crate::containerd::{CALL_LIMIT, Containerd};
use crate::cri::{Cri, PodSandboxConfig};
use crate::grpc::{DEADLINE_EXCEEDED, Status};
use crate::scene::Scene;

/// The sandbox's namespace and address.
fn enter(cri: Cri<'_>, id: &str) -> (Namespace, Ipv4Addr) {
    let sandbox = cri.inspect(id).unwrap();
    assert!(sandbox.ready, "{sandbox:?}");
    let namespace = cri.node.open("the sandbox", &sandbox.netns).unwrap();
    (namespace, sandbox.address.parse().unwrap())
}

/// A call of the plug-in that works on an attachment has a file here.
fn locks(node: &Node) -> String {
    node.exec(&["ls", "/run/azure-vnet/locks"]).unwrap()
}

#[test]
fn a_sandbox_reaches_all_and_may_be_stopped_twice() {
    let scene = Scene::new();
    let node = scene.lab.node(1);
    let containerd = Containerd::new(node).unwrap();
    let cri = containerd.cri();
    let live_and_die = || {
        let config = PodSandboxConfig::of("web").host_port(8088, 80);
        let id = cri.run(config).unwrap();
        let (pod, address) = enter(cri, &id);
        scene.assert_reaches_all(&pod, address);
        let _echo = pod.serve_echo(80).unwrap();
        let peer = scene.lab.peer();
        assert_eq!(
            peer.tcp(node.addr(), 8088).unwrap().peer_ip(),
            peer.addr(),
            "portmap got containerd's port mappings"
        );
        for _ in 0..2 {
            cri.stop(&id).unwrap();
        }
        for _ in 0..2 {
            cri.remove(&id).unwrap();
        }
    };
    live_and_die();
    // portmap keeps the chains that it made for the first one.
    let before = node.snapshot().unwrap();
    live_and_die();
    assert_eq!(scene.left(&before), Vec::<String>::new());
}

/// Of the NIC what pods could disturb, and the bridges of the node, of which there is none.
fn nic(node: &Node) -> Vec<String> {
    let asked = [
        "addr show dev eth0",
        "route show dev eth0",
        "rule show",
        "link show type bridge",
    ];
    let ask = |words: &str| {
        let line: Vec<_> = ["ip"].into_iter().chain(words.split(' ')).collect();
        node.exec(&line).unwrap()
    };
    asked.map(ask).to_vec()
}

#[test]
fn twenty_sandboxes_start_and_stop_at_once() {
    let scene = Scene::new();
    let node = scene.lab.node(1);
    let containerd = Containerd::new(node).unwrap();
    let cri = containerd.cri();
    let before = node.snapshot().unwrap();
    let its_nic = nic(node);
    assert_eq!(its_nic[3], "", "no bridge");
    let ids: Vec<String> = std::thread::scope(|scope| {
        let start =
            |number| scope.spawn(move || cri.run(PodSandboxConfig::of(&format!("pod{number}"))));
        let starting: Vec<_> = (0..20).map(start).collect();
        starting
            .into_iter()
            .map(|thread| thread.join().unwrap().unwrap())
            .collect()
    });
    let pods: Vec<_> = ids.iter().map(|id| enter(cri, id)).collect();
    let addresses: BTreeSet<_> = pods.iter().map(|(_, address)| *address).collect();
    assert_eq!(addresses.len(), 20, "an address each");
    assert_eq!(nic(node), its_nic, "F24: the NIC stays as it is");
    for (pod, address) in &pods {
        scene.assert_reaches_all(pod, *address);
    }
    drop(pods);
    std::thread::scope(|scope| {
        for id in &ids {
            scope.spawn(|| {
                cri.stop(id).unwrap();
                cri.remove(id).unwrap();
            });
        }
    });
    assert_eq!(scene.left(&before), Vec::<String>::new());
}

#[test]
fn an_add_that_the_deadline_kills_leaves_nothing() {
    let scene = Scene::new();
    let node = scene.lab.node(1);
    let containerd = Containerd::new(node).unwrap();
    let cri = containerd.cri();
    let before = node.snapshot().unwrap();
    let unlocked = locks(node);
    // ADD waits for a loader that does not answer, longer than the kubelet waits for ADD.
    node.loader().signal(Signal::SIGSTOP).unwrap();
    let hasty = Cri {
        limit: Duration::from_secs(2),
        ..cri
    };
    let error = std::thread::scope(|scope| {
        let run = scope.spawn(|| hasty.run(PodSandboxConfig::of("web")));
        let begun = || (locks(node) != unlocked).then_some(());
        eventually(CALL_LIMIT, begun).expect("an ADD that has begun");
        run.join().unwrap().unwrap_err()
    });
    let status = error.downcast_ref::<Status>();
    assert_eq!(
        status.map(|status| status.code),
        Some(DEADLINE_EXCEEDED),
        "{error:#}"
    );
    node.loader().signal(Signal::SIGCONT).unwrap();
    let clean = || scene.left(&before).is_empty().then_some(());
    let cleaned = eventually(CALL_LIMIT, clean);
    assert!(cleaned.is_some(), "{:#?}", scene.left(&before));
    // The kubelet tries again, under the same name.
    let again = || cri.run(PodSandboxConfig::of("web")).ok();
    let id = eventually(CALL_LIMIT, again).expect("a second try");
    let (pod, address) = enter(cri, &id);
    scene.assert_reaches_all(&pod, address);
}

/// F10: what AKS installs, by which Calico finds the pod's veth.
#[test]
fn a_sandbox_of_azures_own_conflist_for_nodes_reaches_all_and_has_the_pods_veth() {
    let (mode, bridge) = (r#""mode":"bridge","#, r#""bridge":"azure0","#);
    let shipped = r#""mode":"transparent", "ipsToRouteViaHost":["169.254.20.10"],"#;
    assert!(AZURE_CONFLIST.contains(mode) && AZURE_CONFLIST.contains(bridge));
    let conflist = AZURE_CONFLIST.replace(mode, shipped).replace(bridge, "");
    let scene = Scene::with(&conflist);
    let node = scene.lab.node(1);
    let found = node.exec(&["vnetctl", "validate", lab::CONFLIST]).unwrap();
    assert!(found.contains("nothing wrong"), "{found}");
    let containerd = Containerd::new(node).unwrap();
    let cri = containerd.cri();
    let config = PodSandboxConfig::of("web").host_port(8088, 80);
    let id = cri.run(config).unwrap();
    let (pod, address) = enter(cri, &id);
    scene.assert_reaches_all(&pod, address);
    let _echo = pod.serve_echo(80).unwrap();
    let peer = scene.lab.peer();
    let seen = peer.tcp(node.addr(), 8088).unwrap().peer_ip();
    assert_eq!(seen, peer.addr());
    // printf default.web | sha1sum
    let route = node.exec(&["ip", "route", "show", "dev", "azv68caf03a5f4"]);
    assert!(route.unwrap().contains(&address.to_string()));
    cri.stop(&id).unwrap();
    cri.remove(&id).unwrap();
}

/// What makes a pod stay `Terminating`: the kubelet asks until `StopPodSandbox` succeeds.
#[test]
fn a_sandbox_stops_once_the_ipam_plugin_that_was_missing_is_back() {
    let scene = Scene::new();
    let node = scene.lab.node(1);
    let containerd = Containerd::new(node).unwrap();
    let cri = containerd.cri();
    let before = node.snapshot().unwrap();
    let id = cri.run(PodSandboxConfig::of("web")).unwrap();
    let (copy, plugin) = ("/tmp/azure-vnet-ipam", "/opt/cni/bin/azure-vnet-ipam");
    node.exec(&["cp", plugin, copy]).unwrap();
    node.exec(&["umount", "--no-mtab", plugin]).unwrap();
    node.exec(&["rm", plugin]).unwrap();
    for _ in 0..2 {
        let error = format!("{:#}", cri.stop(&id).unwrap_err());
        for word in [
            "failed to release address",
            "`azure-vnet-ipam`",
            "install it",
        ] {
            assert!(error.contains(word), "{error}");
        }
    }
    assert_eq!(cri.ids().unwrap(), std::slice::from_ref(&id));
    node.exec(&["mv", copy, plugin]).unwrap();
    cri.stop(&id).unwrap();
    cri.remove(&id).unwrap();
    assert_eq!(scene.left(&before), Vec::<String>::new());
}

#[test]
fn sandboxes_outlive_a_containerd_that_is_killed() {
    let scene = Scene::new();
    let node = scene.lab.node(1);
    let containerd = Containerd::new(node).unwrap();
    let before = node.snapshot().unwrap();
    let id = containerd.cri().run(PodSandboxConfig::of("old")).unwrap();
    let (pod, address) = enter(containerd.cri(), &id);
    let containerd = containerd.kill_and_restart().unwrap();
    let cri = containerd.cri();
    assert_eq!(cri.ids().unwrap(), std::slice::from_ref(&id));
    scene.assert_reaches_all(&pod, address);
    let young = cri.run(PodSandboxConfig::of("young")).unwrap();
    let (other, its) = enter(cri, &young);
    assert_ne!(its, address);
    scene.assert_reaches_all(&other, its);
    drop((pod, other));
    for id in [&id, &young] {
        cri.stop(id).unwrap();
        cri.remove(id).unwrap();
    }
    assert_eq!(scene.left(&before), Vec::<String>::new());
}

#[test]
fn an_add_that_outlives_its_containerd_is_deleted_by_the_next() {
    let scene = Scene::new();
    let node = scene.lab.node(1);
    let containerd = Containerd::new(node).unwrap();
    let before = node.snapshot().unwrap();
    let unlocked = locks(node);
    // ADD is in its middle as long as the loader does not answer.
    node.loader().signal(Signal::SIGSTOP).unwrap();
    let cri = containerd.cri();
    let containerd = std::thread::scope(|scope| {
        let run = scope.spawn(|| cri.run(PodSandboxConfig::of("orphan")));
        let begun = || (locks(node) != unlocked).then_some(());
        eventually(CALL_LIMIT, begun).expect("an ADD that has begun");
        let next = containerd.kill_and_restart().unwrap();
        run.join().unwrap().unwrap_err();
        next
    });
    node.loader().signal(Signal::SIGCONT).unwrap();
    let cri = containerd.cri();
    let ids = cri.ids().unwrap();
    assert_eq!(
        ids.len(),
        1,
        "containerd has noted what it was about to make"
    );
    for id in &ids {
        assert!(!cri.inspect(id).unwrap().ready);
        cri.stop(id).unwrap();
        cri.remove(id).unwrap();
    }
    assert_eq!(scene.left(&before), Vec::<String>::new());
}
