//! Connections that the kernel translates stay alive when the programs start with an empty table of flows.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::time::Duration;

use abi::ConfigFlags;
use anyhow::Context as _;
use hooks::{Abi, Hook, Maps, Pins};
use lab::{Namespace, Node, Proxy, Service, eventually};
use nix::sys::signal::Signal;

use super::{CLUSTER_IP, PORT, Result, Scene, TARGET};

const PATIENCE: Duration = Duration::from_secs(5);

/// An open connection, of which the test holds both ends.
struct Connection {
    client: TcpStream,
    server: TcpStream,
}

impl Connection {
    fn open(from: &Namespace, to: SocketAddrV4, listener: &TcpListener) -> Result<Self> {
        let client = from.run(|| Ok(TcpStream::connect_timeout(&to.into(), PATIENCE)?))?;
        let (server, _) = listener.accept()?;
        for end in [&client, &server] {
            end.set_read_timeout(Some(PATIENCE))?;
        }
        Ok(Self { client, server })
    }

    /// The server first: what the client sends would teach the programs again whose the flow is.
    fn talks(&mut self) -> Result {
        for _ in 0..2 {
            pass(&mut self.server, &mut self.client)?;
            pass(&mut self.client, &mut self.server)?;
        }
        Ok(())
    }
}

fn pass(from: &mut TcpStream, to: &mut TcpStream) -> Result {
    from.write_all(b"word")?;
    let mut word = [0; 4];
    to.read_exact(&mut word)?;
    assert_eq!(&word, b"word");
    Ok(())
}

fn listen(at: &Namespace) -> Result<TcpListener> {
    at.run(|| Ok(TcpListener::bind((Ipv4Addr::UNSPECIFIED, 9000))?))
}

/// Waits until everything that the namespace sent is acknowledged: a late acknowledgement would find the emptied table.
fn acknowledged(namespace: &Namespace) -> Result {
    let queued = || {
        let table = namespace
            .run(|| Ok(std::fs::read_to_string("/proc/thread-self/net/tcp")?))
            .ok()?;
        let mut queues = table
            .lines()
            .skip(1)
            .filter_map(|line| line.split_whitespace().nth(4));
        queues
            .all(|queue| queue.starts_with("00000000:"))
            .then_some(())
    };
    eventually(PATIENCE, queued).context("what was sent is not acknowledged")
}

/// The loader starts with a table that knows nothing, as after an upgrade that changed the layout of the maps.
fn restart_without_flows(node: &Node) -> Result {
    node.loader().kill9()?;
    lose_flows(node)?;
    node.start_loader()
}

fn lose_flows(node: &Node) -> Result {
    node.run(|| {
        let mut maps = Maps::from_pins(&Pins::default())?;
        let keys: Vec<_> = maps.flows.keys().collect::<std::result::Result<_, _>>()?;
        assert!(!keys.is_empty(), "nothing was learnt");
        for key in &keys {
            maps.flows.remove(key)?;
        }
        Ok(())
    })
}

/// Whether a flow that is not in the table takes the stack.
fn is_full(node: &Node) -> Result<bool> {
    node.run(|| {
        let config = Maps::from_pins(&Pins::default())?.config.get(&0, 0)?.0;
        Ok(config.flags.contains(ConfigFlags::FLOWS_FULL))
    })
}

/// Connections of the client through Services, to a pod of its node and to one of the other node.
fn through_services(scene: &Scene) -> Result<[Connection; 2]> {
    let (on_local, on_remote) = (listen(&scene.local)?, listen(&scene.remote)?);
    let other = Ipv4Addr::new(10, 0, 0, 11);
    scene.node().proxy(
        Proxy::Iptables,
        &[
            Service::new("local", CLUSTER_IP, PORT).backend(scene.local.addr(), 9000),
            Service::new("remote", other, PORT).backend(scene.remote.addr(), 9000),
        ],
    )?;
    let open = |service, listener| {
        Connection::open(&scene.client, SocketAddrV4::new(service, PORT), listener)
    };
    Ok([open(CLUSTER_IP, &on_local)?, open(other, &on_remote)?])
}

#[test]
fn a_connection_through_a_service_survives_the_loss_of_the_flow_table() -> Result {
    let scene = Scene::new()?;
    let mut connections = through_services(&scene)?;
    for connection in &mut connections {
        connection.talks()?;
    }
    for pod in [&scene.client, &scene.local, &scene.remote] {
        acknowledged(pod)?;
    }
    restart_without_flows(scene.node())?;
    for connection in &mut connections {
        connection.talks()?;
    }
    Ok(())
}

/// Connections begin while programs are away, and then nobody says a word until they are back.
/// Takes programs away while the loader looks elsewhere, opens connections, and lets the loader put them back.
fn survive_the_return_of_programs(
    scene: &Scene,
    take_away: impl FnOnce(&Scene) -> Result,
) -> Result {
    let node = scene.node();
    node.loader().signal(Signal::SIGSTOP)?;
    take_away(scene)?;
    let mut connections = through_services(scene)?;
    for connection in &mut connections {
        connection.talks()?;
    }
    for pod in [&scene.client, &scene.local, &scene.remote] {
        acknowledged(pod)?;
    }
    assert!(!all_run(scene)?, "nothing began without programs");
    node.loader().signal(Signal::SIGCONT)?;
    let back = eventually(Duration::from_secs(40), || {
        all_run(scene).ok().filter(|run| *run)
    });
    back.context("the programs do not come back")?;
    for connection in &mut connections {
        connection.talks()?;
    }
    Ok(())
}

fn all_run(scene: &Scene) -> Result<bool> {
    let veths = [scene.client.host_veth()?, scene.local.host_veth()?];
    let on_pods = veths.map(|veth| Hook::POD.map(|hook| (hook, veth)));
    let on_nic = Hook::NIC.map(|hook| (hook, "eth0"));
    let all = on_pods.into_iter().flatten().chain(on_nic);
    let pins = Pins::default();
    scene.node().run(|| {
        Ok(all
            .into_iter()
            .all(|(hook, ifname)| hooks::runs(&pins, hook, ifname)))
    })
}

#[test]
fn connections_that_began_while_the_nic_had_no_programs_survive_their_return() -> Result {
    survive_the_return_of_programs(&Scene::new()?, |scene| {
        scene
            .node()
            .run(|| Ok(hooks::remove(&Pins::default(), "eth0")?))
    })
}

#[test]
fn connections_that_began_while_pods_had_no_programs_survive_their_return() -> Result {
    survive_the_return_of_programs(&Scene::new()?, |scene| {
        for pod in [&scene.client, &scene.local] {
            let veth = pod.host_veth()?;
            scene
                .node()
                .exec(&["tc", "qdisc", "del", "dev", veth, "clsact"])?;
        }
        Ok(())
    })
}

#[test]
fn a_connection_that_the_kernel_masquerades_survives_the_loss_of_the_flow_table() -> Result {
    // A pod may hold half of the ports; the kernel masquerades what is beyond.
    let scene = Scene::with("natPorts: 1024-1123\n")?;
    let (pod, server) = (&scene.client, scene.lab.inet().addr());
    let mut fast = Vec::new();
    let mut kept = loop {
        let connection = pod.converse(0, server, TARGET)?;
        if connection.seen().port() >= 61_000 {
            break connection;
        }
        fast.push(connection);
        assert!(fast.len() <= 100, "the kernel masquerades nothing");
    };
    // Now there are free ports that a lost flow could be given.
    drop(fast);
    restart_without_flows(scene.node())?;
    kept.say("still from the same port")
}

#[test]
fn a_connection_that_somebody_outside_opened_through_the_kernel_survives_the_loss_of_the_flow_table()
-> Result {
    // Pods' own connections to on-premises are translated, as those to the Internet are; and it sees whatever is sent.
    let scene = Scene::with("serviceCidrs: [10.0.0.0/16]\nnonMasqueradeCIDRs: []\n")?;
    let (node, pod, outside) = (scene.node(), &scene.client, scene.lab.onprem());
    let listener = listen(pod)?;
    node.loader().kill9()?;
    node.run(|| {
        let mut maps = Maps::from_pins(&Pins::default())?;
        let mut config = maps.config.get(&0, 0)?.0;
        config.flags = config.flags.set(ConfigFlags::FLOWS_FULL, true);
        Ok(maps.config.set(0, Abi(config), 0)?)
    })?;
    let to_pod = SocketAddrV4::new(pod.addr(), 9000);
    let mut connection = Connection::open(outside, to_pod, &listener)?;
    connection.talks()?;
    assert!(
        node.tracked()?.iter().any(|flow| flow.has(outside.addr())),
        "it must be the kernel's"
    );
    for end in [&**pod, &**outside] {
        acknowledged(end)?;
    }
    lose_flows(node)?;
    node.start_loader()?;
    let emptied = eventually(PATIENCE, || (!is_full(node).ok()?).then_some(()));
    assert!(emptied.is_some(), "the table stays full");
    connection.talks()
}
