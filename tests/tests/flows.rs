//! The table of the kernel's flows when it was full: do connections that found no room live on?
#![cfg(test)]

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::time::Duration;

use abi::ConfigFlags;
use hooks::{Maps, Pins};
use lab::{Lab, Namespace, Node, Proxy, Service, eventually};

const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 10);
const HELD: u16 = 9000;
const ECHO: u16 = 80;
const FLOWS: u32 = 1024;
const LIMIT: Duration = Duration::from_secs(5);
/// The loader sweeps every ten seconds, and twice before the table counts as empty again.
const SWEPT: Duration = Duration::from_secs(40);

/// Whether a flow that is not in the table takes the stack.
fn is_full(node: &Node) -> bool {
    node.run(|| {
        let maps = Maps::from_pins(&Pins::default())?;
        let (lost, config) = (maps.flows_lost.get(&0, 0)?, maps.config.get(&0, 0)?.0);
        Ok(config.flags.contains(ConfigFlags::FLOWS_FULL) || lost != config.flows_lost)
    })
    .unwrap()
}

fn connect(client: &Namespace, server: Ipv4Addr, port: u16) -> TcpStream {
    client
        .run(|| {
            let address = SocketAddrV4::new(server, port).into();
            let connection = TcpStream::connect_timeout(&address, LIMIT)?;
            connection.set_read_timeout(Some(LIMIT))?;
            Ok(connection)
        })
        .unwrap()
}

/// The port from which the server at the other end of a connection to an echo server sees it come.
fn port_seen(connection: &mut TcpStream) -> u16 {
    let mut line = Vec::new();
    while line.last() != Some(&b'\n') {
        let mut byte = [0];
        connection.read_exact(&mut byte).unwrap();
        line.extend(byte);
    }
    let line = String::from_utf8(line).unwrap();
    line.trim().parse::<SocketAddrV4>().unwrap().port()
}

/// Through a Service and masqueraded by the kernel, both opened while the table is full, both silent until it is empty.
#[test]
fn connections_that_found_no_room_live_on_when_the_table_empties() {
    let lab = Lab::new().nodes(2).record(false).build().unwrap();
    let node = lab.node(1);
    node.write(
        "/etc/azure-vnet/loader.yaml",
        &format!("flowsMax: {FLOWS}\n"),
    )
    .unwrap();
    lab.nodes()
        .iter()
        .for_each(|node| node.start_loader().unwrap());
    let (client, far) = (
        node.add_pod("client").unwrap(),
        lab.node(2).add_pod("far").unwrap(),
    );
    let services = [(HELD, "held"), (ECHO, "silent")]
        .map(|(port, name)| Service::new(name, SERVICE, port).backend(far.addr(), port));
    node.proxy(Proxy::Iptables, &services).unwrap();
    let _server = far.serve_hold(HELD).unwrap();
    let listener = far
        .run(|| Ok(TcpListener::bind((Ipv4Addr::UNSPECIFIED, ECHO))?))
        .unwrap();

    let held = client.hold(SERVICE, HELD, FLOWS + 50).unwrap();
    assert_eq!((held.failed, held.seen.len()), (0, FLOWS as usize + 50));
    assert!(is_full(node), "more connections than entries");
    let mut served = connect(&client, SERVICE, ECHO);
    let (mut server, _) = listener.accept().unwrap();
    let mut masqueraded = connect(&client, lab.inet().addr(), 8080);
    assert!(
        port_seen(&mut masqueraded) >= 61_000,
        "the kernel masquerades while the table is full"
    );

    drop(held);
    let emptied = eventually(SWEPT, || (!is_full(node)).then_some(()));
    assert!(emptied.is_some(), "the table stays full");
    server.write_all(b"!").unwrap();
    let pushed = served.read_exact(&mut [0]);
    assert!(
        pushed.is_ok(),
        "through the Service, the server first: {pushed:?}"
    );
    masqueraded.write_all(b"?").unwrap();
    let echoed = masqueraded.read_exact(&mut [0]);
    assert!(echoed.is_ok(), "masqueraded: {echoed:?}");
}
