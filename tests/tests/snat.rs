//! Ports and bindings of real traffic: whose port a connection gets, and what happens when a binding is lost.
#![cfg(test)]

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use abi::{Binding, BindingKey, BindingState, Ip4, Port, proto};
use hooks::{Abi, Maps, Pins, RawMap};
use lab::{Lab, Namespace, Node, Pod, eventually};
use nix::time::{ClockId, clock_gettime};
use serde_json::Value;
use socket2::{Domain, Socket, Type};

fn lab(loader_yaml: &str) -> Lab {
    let lab = Lab::new().nodes(1).build().unwrap();
    lab.node(1)
        .write("/etc/azure-vnet/loader.yaml", loader_yaml)
        .unwrap();
    lab.node(1).start_loader().unwrap();
    lab
}

/// A TCP connection to the echo server at `server`, and the client's port as the server saw it.
#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    seen: u16,
}

impl Connection {
    /// From port `from` of the namespace; 0 is any.
    fn open(namespace: &Namespace, from: u16, server: Ipv4Addr) -> anyhow::Result<Self> {
        namespace.run(|| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            socket.set_reuse_address(true)?;
            socket.bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, from).into())?;
            let limit = Duration::from_secs(5);
            socket.set_read_timeout(Some(limit))?;
            socket.connect_timeout(&SocketAddrV4::new(server, 8080).into(), limit)?;
            let mut stream = TcpStream::from(socket);
            let seen: SocketAddrV4 = line(&mut stream)?.trim().parse()?;
            Ok(Self {
                stream,
                seen: seen.port(),
            })
        })
    }

    /// Sends a word and gets it back.
    fn echo(&mut self, word: &str) -> io::Result<()> {
        self.stream.write_all(format!("{word}\n").as_bytes())?;
        assert_eq!(line(&mut self.stream)?.trim(), word);
        Ok(())
    }

    /// Returns when both ends' FIN has been seen.
    fn close(mut self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(self.stream.read(&mut [0]).unwrap(), 0);
    }
}

fn line(stream: &mut TcpStream) -> io::Result<String> {
    let mut line = Vec::new();
    while line.last() != Some(&b'\n') {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        line.extend(byte);
    }
    Ok(String::from_utf8_lossy(&line).into_owned())
}

/// The port that the UDP echo server at `server` sees when the namespace sends from `from`.
fn udp_port_seen(namespace: &Namespace, from: u16, server: Ipv4Addr) -> u16 {
    namespace
        .run(|| {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, from))?;
            socket.set_read_timeout(Some(Duration::from_secs(5)))?;
            socket.send_to(b"x", (server, 7))?;
            let mut answer = [0; 100];
            let length = socket.recv(&mut answer)?;
            let text = String::from_utf8_lossy(answer.get(..length).unwrap_or_default());
            let seen: SocketAddrV4 = text.lines().next().unwrap_or_default().trim().parse()?;
            Ok(seen.port())
        })
        .unwrap()
}

fn maps<T: Send>(node: &Node, work: impl FnOnce(&mut Maps) -> T + Send) -> T {
    node.run(|| Ok(work(&mut Maps::from_pins(&Pins::default())?)))
        .unwrap()
}

fn lose_every_binding(node: &Node) -> usize {
    maps(node, |maps| {
        let keys: Vec<_> = maps.snat.keys().map(|key| key.unwrap()).collect();
        for key in &keys {
            maps.snat.remove(key).unwrap();
        }
        keys.len()
    })
}

fn flows_of(node: &Node, pod: Ipv4Addr) -> usize {
    let addr = Ip4::from(pod);
    maps(node, |maps| {
        let keys = maps.flows.keys().map(|key| key.unwrap().0);
        keys.filter(|key| key.low == addr || key.high == addr)
            .count()
    })
}

fn status(node: &Node) -> Value {
    serde_json::from_str(&node.exec(&["vnetctl", "status", "-o", "json"]).unwrap()).unwrap()
}

#[test]
fn a_lost_binding_is_made_again_by_the_pods_next_packet() {
    let lab = lab("");
    let node = lab.node(1);
    let pod = node.add_pod("web").unwrap();
    let mut connections: Vec<_> = (0..20)
        .map(|_| Connection::open(&pod, 0, lab.inet().addr()).unwrap())
        .collect();
    assert!(lose_every_binding(node) >= 20);
    for connection in &mut connections {
        connection.echo("still there").unwrap();
    }
}

/// The node cannot know whose it is (ADR 0010), and does not leave either end waiting.
#[test]
fn a_lost_binding_of_which_the_remote_end_hears_first_is_told_to_both_ends() {
    const PORT: u16 = 9100;
    let lab = lab("");
    let (node, server) = (lab.node(1), lab.inet());
    let pod = node.add_pod("web").unwrap();
    let listener = server
        .run(|| Ok(TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT))?))
        .unwrap();
    let limit = Some(Duration::from_secs(5));
    let mut near = pod
        .run(|| Ok(TcpStream::connect((server.addr(), PORT))?))
        .unwrap();
    let (mut far, _) = listener.accept().unwrap();
    near.set_read_timeout(limit).unwrap();
    far.set_read_timeout(limit).unwrap();
    assert_ne!(lose_every_binding(node), 0);

    far.write_all(b"first").unwrap();
    let told = |stream: &mut TcpStream| stream.read(&mut [0; 9]).map_err(|error| error.kind());
    assert_eq!(told(&mut far), Err(ErrorKind::ConnectionReset));
    near.write_all(b"still there?").unwrap();
    assert_eq!(told(&mut near), Err(ErrorKind::ConnectionReset));
}

/// As the loader moves them to another build's map.
#[test]
fn a_pinned_map_is_read_and_written_as_bytes() {
    let lab = lab("");
    let pod = lab.node(1).add_pod("web").unwrap();
    let _open = Connection::open(&pod, 0, lab.inet().addr()).unwrap();
    let told = lab.node(1).run(|| {
        let map = RawMap::open(&Pins::default().map(abi::pins::map::SNAT))?;
        let mut entries = Vec::new();
        map.each(|key, value| {
            entries.push((key.to_vec(), value.to_vec()));
            Ok(())
        })?;
        let (key, value) = entries.pop().unwrap();
        assert_eq!(map.get(&key)?.as_ref(), Some(&value));
        assert!(!map.add(&key, &value)?, "it is there");
        map.remove(&key)?;
        assert_eq!(map.get(&key)?, None);
        map.remove(&key)?;
        assert!(map.add(&key, &value)?);
        Ok(map.put(key.split_at(1).1, &value))
    });
    let told = told.unwrap().unwrap_err().to_string();
    assert!(
        told.contains("bytes for") && told.contains("`snat`"),
        "{told}"
    );
}

#[test]
fn the_pod_and_the_node_may_use_the_same_port_to_the_same_server() {
    let lab = lab("");
    let (node, server) = (lab.node(1), lab.inet().addr());
    let pod = node.add_pod("web").unwrap();
    let mut of_node = Connection::open(node, 1500, server).unwrap();
    let mut of_pod = Connection::open(&pod, 1500, server).unwrap();
    assert_eq!(of_node.seen, 1500);
    assert_ne!(of_pod.seen, 1500);
    of_node.echo("node").unwrap();
    of_pod.echo("pod").unwrap();
}

/// The other way round (ADR 0010, README: Limits): a look at all bindings for each packet of the node's own would cost more than it is worth.
#[test]
fn a_program_of_the_node_that_takes_a_pods_port_to_the_same_server_gets_no_answer() {
    let lab = lab("");
    let (node, server) = (lab.node(1), lab.inet().addr());
    let pod = node.add_pod("web").unwrap();
    let mut of_pod = Connection::open(&pod, 1500, server).unwrap();
    assert_eq!(of_pod.seen, 1500);
    let why = Connection::open(node, 1500, server).unwrap_err();
    let kind = why.downcast_ref().map(io::Error::kind);
    assert_eq!(kind, Some(ErrorKind::TimedOut), "{why:?}");
    of_pod.echo("undisturbed").unwrap();
    Connection::open(node, 0, server)
        .unwrap()
        .echo("node")
        .unwrap();
}

#[test]
fn ports_that_the_node_listens_on_are_nobodys_snat_port() {
    let lab = lab("");
    let (node, server) = (lab.node(1), lab.inet().addr());
    let pod = node.add_pod("web").unwrap();
    // kubelet's API; VXLAN by its standard port, and by flannel's.
    let _kubelet = node
        .run(|| Ok(TcpListener::bind((Ipv4Addr::UNSPECIFIED, 10_250))?))
        .unwrap();
    let _tunnels: Vec<UdpSocket> = [4789, 8472]
        .map(|port| {
            node.run(|| Ok(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))?))
                .unwrap()
        })
        .into();
    assert_ne!(Connection::open(&pod, 10_250, server).unwrap().seen, 10_250);
    for port in [4789, 8472] {
        assert_ne!(udp_port_seen(&pod, port, server), port);
    }
    // The instrument works: a port that nobody has is kept.
    assert_eq!(Connection::open(&pod, 10_251, server).unwrap().seen, 10_251);
    assert_eq!(udp_port_seen(&pod, 4790, server), 4790);
}

#[test]
fn a_pod_that_holds_its_share_of_ports_leaves_the_rest_to_others() {
    let lab = lab("natPorts: 1024-3023\nnatPortsPerPod: 50\n");
    let (node, server) = (lab.node(1), lab.inet().addr());
    let open = |pod: &Pod, count: usize| -> Vec<Connection> {
        (0..count)
            .map(|_| Connection::open(pod, 0, server).unwrap())
            .collect()
    };
    let (greedy, modest) = (
        node.add_pod("greedy").unwrap(),
        node.add_pod("modest").unwrap(),
    );
    let mut of_greedy = open(&greedy, 60);
    let in_range = |connections: &[Connection]| {
        let seen = connections.iter().map(|connection| connection.seen);
        seen.filter(|port| (1024..3024).contains(port)).count()
    };
    assert_eq!(in_range(&of_greedy), 50);
    let mut of_modest = open(&modest, 20);
    assert_eq!(in_range(&of_modest), 20);
    for connection in of_greedy.iter_mut().chain(&mut of_modest) {
        connection.echo("alive").unwrap();
    }
    // What is closed by both ends makes room again, without waiting for a sweep.
    of_greedy.into_iter().for_each(Connection::close);
    assert_eq!(in_range(&open(&greedy, 20)), 20);
}

#[test]
fn a_pods_share_of_ports_is_not_spent_by_the_pod_before_it() {
    let lab = lab("natPortsPerPod: 50\n");
    let (node, server) = (lab.node(1), lab.inet().addr());
    let open = |pod: &Pod| -> Vec<Connection> {
        (0..50)
            .map(|_| Connection::open(pod, 0, server).unwrap())
            .collect()
    };
    let first = node.add_pod("first").unwrap();
    let held = open(&first);
    first.delete().unwrap();
    // At once, so that no sweep has counted; the lowest slot that is free is the first pod's.
    let next = node.add_pod("next").unwrap();
    assert!(
        open(&next)
            .iter()
            .all(|connection| connection.seen < 30_000)
    );
    drop(held);
}

#[test]
fn a_closed_connections_ports_serve_the_next_one_at_once() {
    let lab = lab("");
    let pod = lab.node(1).add_pod("web").unwrap();
    pod.exec(&["sysctl", "-w", "net.ipv4.tcp_tw_reuse=1"])
        .unwrap();
    let server = lab.inet().addr();
    for round in 0..20 {
        // A process that a neighbouring test starts holds a copy of the closed socket until it is under way.
        let mut connection = eventually(Duration::from_secs(5), || {
            Connection::open(&pod, 10_300, server).ok()
        })
        .unwrap();
        connection.echo("hello").unwrap();
        assert_eq!(connection.seen, 10_300, "round {round}");
        // RST, so that the pod itself is done with the port; the remote end hears of it.
        socket2::SockRef::from(&connection.stream)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
        drop(connection);
    }
}

/// In a table of 1024, of which they take more than three quarters.
#[test]
fn closed_bindings_make_room_before_their_time_when_there_is_little() {
    const REPLACE: u64 = 2; // BPF_EXIST of linux/bpf.h
    let lab = lab("snatMax: 1024\n");
    let node = lab.node(1);
    let pod = Ip4::from(node.add_pod("web").unwrap().addr());
    node.loader().kill9().unwrap();
    let key = |number: u16| {
        let remote = (Ip4::from(lab.inet().addr()), Port::from_u16(443));
        Abi(BindingKey::new(remote, Port::from_u16(number), proto::TCP))
    };
    // They have most of a minute to live each time that they are written, so none of them expires.
    let write = |flags: u64| {
        maps(node, |maps| {
            let now = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).unwrap();
            let seen = u32::try_from(now.tv_sec()).unwrap() - 3;
            let generation = maps.pods.get(&Abi(pod), 0).unwrap().0.generation;
            let state = BindingState::Closed;
            let binding = Binding::new(pod, Port::from_u16(1), generation, state, seen);
            let keys = (2000..2800).map(key);
            keys.filter(|key| maps.snat.insert(key, Abi(binding), flags).is_ok())
                .count()
        })
    };
    assert_eq!(write(0), 800);
    node.start_loader().unwrap();
    let gone = eventually(Duration::from_secs(20), || {
        (write(REPLACE) == 0).then_some(())
    });
    assert!(gone.is_some(), "{}", write(REPLACE));
}

#[test]
fn status_tells_the_busiest_remote_ends() {
    let lab = lab("");
    let (node, server) = (lab.node(1), lab.inet().addr());
    let pod = node.add_pod("web").unwrap();
    let held: Vec<_> = (0..7)
        .map(|_| Connection::open(&pod, 0, server).unwrap())
        .collect();
    // The loader sweeps when it starts.
    node.loader().kill9().unwrap();
    node.start_loader().unwrap();
    let found = eventually(Duration::from_secs(5), || {
        let destinations = status(node)["destinations"].clone();
        let first = destinations.get(0)?.clone();
        (first["ports"] == held.len()).then_some(first)
    });
    let first = found.expect("seven ports towards the server");
    assert_eq!(first["address"], server.to_string());
    assert_eq!(
        (&first["port"], &first["protocol"]),
        (&8080.into(), &"tcp".into())
    );
}

#[test]
fn a_released_address_leaves_no_flow_to_the_next_pod() {
    let lab = lab("");
    let node = lab.node(1);
    let pod = node.add_pod("web").unwrap();
    let addr = pod.addr();
    // Through the kernel, which is remembered for a day.
    let _connection = Connection::open(&pod, 0, lab.onprem().addr()).unwrap();
    assert_ne!(flows_of(node, addr), 0);
    pod.delete().unwrap();
    node.loader().kill9().unwrap();
    node.start_loader().unwrap();
    let gone = eventually(Duration::from_secs(5), || {
        (flows_of(node, addr) == 0).then_some(())
    });
    assert!(gone.is_some());
}
