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

fn client(port: &str, more: &[&str]) -> Output {
    let mut bench = Command::new(env!("CARGO_BIN_EXE_bench"));
    let line = "node --client 127.0.0.1 --rounds 2 --time 20 --port";
    bench.args(line.split(' ')).arg(port).args(more);
    bench.output().unwrap()
}

#[test]
fn a_client_prints_a_line_for_each_load_and_for_what_was_lost() {
    let server = Server::start();
    let output = client(&server.port, &[]);
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    for line in [
        "tcp_rr        client→server  ",
        "tcp_crr       client→server  ",
        "udp_pps       client→server  ",
        "udp_pps       client→server, sent  ",
        "udp_pps       client→server, there and back  ",
        "udp_pps       client→server, there and back, lost",
        "latency_load  client→server  ",
        "latency_load  client→server, lost  ",
        "tcp_rr        client→server, CPU each  ",
    ] {
        assert!(
            said.lines().any(|said| said.starts_with(line)),
            "{line}: {said}"
        );
    }
}

#[test]
fn the_rows_are_those_of_a_report_and_say_whose_they_are() {
    let server = Server::start();
    let output = client(
        &server.port,
        &["--json", "--side", "ours", "--path", "pod→VNet"],
    );
    let rows: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let first = &rows[0];
    let found = ["measure", "path", "side", "unit", "rounds"].map(|name| first[name].clone());
    let wanted = serde_json::json!(["tcp_rr", "pod→VNet", "ours", "1/s", 2]);
    assert_eq!(serde_json::json!(found), wanted);
    assert!(first["median"].as_f64().unwrap() > 0.0);
}

#[test]
fn without_a_server_the_client_says_so() {
    let server = Server::start();
    let port = server.port.clone();
    drop(server);
    let output = client(&port, &[]);
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("Connection refused"), "{error}");
}
