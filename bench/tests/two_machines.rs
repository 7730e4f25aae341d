//! `bench node`: a server and a client that know of each other only the address.
#![cfg(test)]

use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, UdpSocket};
use std::process::{Child, Command, Output, Stdio};

struct Server {
    child: Child,
    port: String,
}

impl Server {
    fn start() -> Self {
        let free = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = free.local_addr().unwrap().port().to_string();
        drop(free);
        let mut bench = Command::new(env!("CARGO_BIN_EXE_bench"));
        bench
            .args(["node", "--server", "--port", &port])
            .stdout(Stdio::piped());
        let mut child = bench.spawn().unwrap();
        let mut said = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut said).unwrap();
        let server = Self { child, port };
        assert!(said.starts_with("answering on port"), "{said}");
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn client(port: &str) -> Output {
    let mut bench = Command::new(env!("CARGO_BIN_EXE_bench"));
    bench.args([
        "node",
        "--client",
        "127.0.0.1",
        "--port",
        port,
        "--rounds",
        "2",
        "--time",
        "20",
    ]);
    bench.output().unwrap()
}

#[test]
fn a_client_prints_a_line_for_each_load() {
    let server = Server::start();
    let output = client(&server.port);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    // Under the load of other tests an answer of the last load may be late, which is an error and said.
    let loads: Vec<_> = said
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert!(
        loads.starts_with(&["tcp_rr", "tcp_crr", "udp_pps"]),
        "{output:?}"
    );
    assert!(
        said.lines()
            .all(|line| line.contains("1/s (") && line.contains("p99")),
        "{said}"
    );
}

#[test]
fn without_a_server_the_client_says_so() {
    let server = Server::start();
    let port = server.port.clone();
    drop(server);
    let output = client(&port);
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("Connection refused"), "{error}");
}
