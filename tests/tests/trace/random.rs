//! Random packets: verdict, path, source seen, answered or not.

use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::Context as _;
use fastrand::Rng;
use lab::{
    ECHO_PORTS, EchoServer, IMDS, Lab, Namespace, Node, Pod, Proxy, Service, WIRESERVER,
    paths_during,
};
use serde_json::Value;
use socket2::Type;

use crate::{Result, first_line, socket};

/// Where pods and nodes echo.
const ECHO: u16 = 80;
/// A Service's address.
const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 50);

/// What a traced packet is for.
#[derive(Clone, Copy, Debug)]
struct Case {
    /// The pod that sends, or that receives.
    pod: usize,
    remote: Ipv4Addr,
    /// The remote end's port; that of the pod's port is [`ECHO`] when somebody else sends.
    port: u16,
    proto: &'static str,
    /// The client's port.
    from: u16,
    from_wire: bool,
    /// Whether there is somebody who answers what arrives.
    served: bool,
}

/// What came of it.
#[derive(Debug)]
struct Happened {
    /// The client as the server saw it, where it says so.
    seen: Option<SocketAddrV4>,
    answered: bool,
}

impl Case {
    /// How long an answer may take on a busy machine, and how long nobody answers whom nobody will answer.
    fn patience(&self) -> Duration {
        Duration::from_millis(if self.served { 1500 } else { 300 })
    }
}

struct Scene {
    pods: Vec<Pod>,
    far: Pod,
    rng: Rng,
    ports: Vec<u16>,
    _echoes: Vec<EchoServer>,
    lab: Lab,
}

impl Scene {
    fn new(loader_yaml: &str) -> Result<Self> {
        let lab = Lab::new().nodes(2).build()?;
        for node in lab.nodes() {
            node.write("/etc/azure-vnet/loader.yaml", loader_yaml)?;
            node.start_loader()?;
        }
        let (first, second) = (lab.node(1), lab.node(2));
        let pods = vec![first.add_pod("web")?, first.add_pod("db")?];
        let far = second.add_pod("far")?;
        let service = |service: Service| {
            service
                .backend(pods[1].addr(), ECHO)
                .backend(far.addr(), ECHO)
        };
        let services = [
            service(Service::new("web", SERVICE, ECHO)),
            service(Service::new("webudp", SERVICE, ECHO).udp()),
        ];
        first.proxy(Proxy::Iptables, &services)?;
        let places: [&Namespace; 4] = [first, second, &far, &pods[1]];
        let mut echoes = vec![pods[0].serve_echo(ECHO)?];
        for place in places {
            echoes.push(place.serve_echo(ECHO)?);
        }
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut rng = Rng::with_seed(seed);
        // Inside and outside of eBPF SNAT's range; each once, so that no case owes anything to another.
        // Below those that the kernel gives, and not those of servers: nobody else has them.
        let free = |port: &u16| !ECHO_PORTS.contains(port);
        let mut ports: Vec<u16> = (1024..32_768).filter(free).collect();
        rng.shuffle(&mut ports);
        Ok(Self {
            pods,
            far,
            rng,
            ports,
            _echoes: echoes,
            lab,
        })
    }

    fn node(&self) -> &Node {
        self.lab.node(1)
    }

    /// An address and a port, and whether anybody answers there.
    fn targets(&self, sender: usize) -> Vec<(Ipv4Addr, u16, bool)> {
        let lab = &self.lab;
        let mut targets = Vec::new();
        for outside in [lab.inet(), lab.peer(), lab.onprem()] {
            for addr in outside.addresses() {
                targets.extend([(*addr, 8080, true), (*addr, 7, true), (*addr, 9, false)]);
            }
        }
        for addr in [
            self.pods[1 - sender].addr(),
            self.far.addr(),
            lab.node(1).addr(),
            lab.node(2).addr(),
        ] {
            targets.extend([(addr, ECHO, true), (addr, 9, false)]);
        }
        targets.extend([
            (SERVICE, ECHO, true),
            (SERVICE, 9, false),
            (WIRESERVER, 81, false),
            (IMDS, 9, false),
            (Ipv4Addr::new(169, 254, 1, 1), 80, false),
            (Ipv4Addr::new(192, 0, 2, 1), 443, false),
            (Ipv4Addr::new(10, 240, 99, 99), 80, false),
        ]);
        // Often enough to be sure of some.
        for _ in 0..4 {
            targets.extend([
                (WIRESERVER, 80, true),
                (WIRESERVER, 32_526, true),
                (IMDS, 80, true),
            ]);
        }
        targets
    }

    fn case(&mut self) -> Case {
        let from = self.ports.pop().expect("ports enough");
        let pod = self.rng.usize(..self.pods.len());
        let proto = ["tcp", "tcp", "udp", "udp", "icmp"][self.rng.usize(..5)];
        if self.rng.u8(..6) == 0 {
            let senders = [
                self.lab.peer().addr(),
                self.lab.onprem().addr(),
                self.far.addr(),
            ];
            return Case {
                pod,
                remote: senders[self.rng.usize(..senders.len())],
                port: from,
                proto,
                from,
                from_wire: true,
                served: true,
            };
        }
        let targets = self.targets(pod);
        let (remote, port, served) = targets[self.rng.usize(..targets.len())];
        let is_http = remote == IMDS || remote == WIRESERVER;
        Case {
            pod,
            remote,
            port,
            proto,
            from,
            from_wire: false,
            served: match proto {
                // The lab's Services and platform answer no ping, and their servers are TCP's.
                "icmp" => answers_ping(remote),
                "udp" => served && !is_http,
                _ => served,
            },
        }
    }

    fn trace(&self, case: &Case) -> Result<Value> {
        let (pod, remote) = (&self.pods[case.pod], case.remote);
        let destination = match case.proto {
            "icmp" => remote.to_string(),
            _ => format!("{remote}:{}", case.port),
        };
        let name = pod.addr().to_string();
        let own = if case.from_wire { ECHO } else { case.from }.to_string();
        let mut line = vec![
            "vnetctl",
            "trace",
            &name,
            &destination,
            "--proto",
            case.proto,
        ];
        line.extend(["--pod-port", &own, "-o", "json"]);
        line.extend(case.from_wire.then_some("--from-wire"));
        let text = self.node().exec(&line)?;
        serde_json::from_str(&text).context("parse the trace")
    }

    /// Sends the packet, and what belongs to it.
    fn act(&self, case: &Case) -> Result<Happened> {
        let pod = &self.pods[case.pod];
        let (client, server, port): (&Namespace, _, _) = if case.from_wire {
            let sender: &Namespace = match case.remote {
                addr if addr == self.far.addr() => &self.far,
                addr if addr == self.lab.peer().addr() => self.lab.peer(),
                _ => self.lab.onprem(),
            };
            (sender, pod.addr(), ECHO)
        } else {
            (pod, case.remote, case.port)
        };
        match case.proto {
            "icmp" => Ok(Happened {
                seen: None,
                answered: client.within(case.patience()).ping(server).is_ok(),
            }),
            "tcp" => client.run(|| tcp(case, server, port)),
            _ => client.run(|| udp(case, server, port)),
        }
    }

    /// Traces, acts and compares. The verdict, for the count.
    fn check(&self, case: &Case) -> Result<String> {
        let trace = self.trace(case)?;
        let told = || format!("{case:?}\n{trace:#}");
        assert_eq!(trace["warnings"], serde_json::json!([]), "{}", told());
        assert_eq!(trace["kernel"]["agrees"], true, "{}", told());
        let verdict = trace["verdict"]["is"]
            .as_str()
            .context("a verdict")?
            .to_owned();
        let reason = trace["verdict"]["reason"].as_str();
        let drops_before = reason.map(|reason| self.node().drops(reason)).transpose()?;
        let pods: Vec<&Pod> = self.pods.iter().collect();
        let (happened, taken) = paths_during(&pods, || self.act(case))?;
        let happened = happened?;
        let told = || format!("{}\n{happened:?} {taken:?}", told());

        let nowhere = trace["stack"]["route"]["to"] == "nowhere";
        let arrives = verdict != "drop" && !nowhere;
        assert_eq!(happened.answered, arrives && case.served, "{}", told());
        if let Some(reason) = reason {
            assert!(
                self.node().drops(reason)? > drops_before.unwrap_or(0),
                "{}",
                told()
            );
        }
        // kube-proxy masquerades what comes back to its sender.
        let seen = happened.seen.filter(|_| case.remote != SERVICE);
        if let (Some(source), Some(seen)) = (trace["source"].as_str(), seen) {
            assert_eq!(source, seen.to_string(), "{}", told());
        }
        if let Some(seen) = happened
            .seen
            .filter(|_| trace["stack"]["masquerade"] == true)
        {
            assert_eq!(*seen.ip(), self.node().addr(), "{}", told());
            assert!(seen.port() >= 61_000, "{}", told());
        }
        let names = ["default/web", "default/db"];
        for (number, (name, taken)) in names.iter().zip(&taken).enumerate() {
            let counts = trace["counts"].as_array().context("counts")?;
            let counts = counts.iter().filter(|count| count["pod"] == *name);
            let predicted: Vec<&str> = counts.filter_map(|count| count["path"].as_str()).collect();
            let taken: Vec<&str> = taken.split_whitespace().collect();
            for path in &predicted {
                assert!(taken.contains(path), "{path}: {}", told());
            }
            let sends = number == case.pod && !case.from_wire;
            let others = taken
                .iter()
                .filter(|path| path.starts_with("to_") || **path == "dropped");
            let others: Vec<_> = others.filter(|path| !predicted.contains(path)).collect();
            assert!(!sends || others.is_empty(), "{others:?}: {}", told());
        }
        Ok(reason.map_or(verdict, |reason| format!("drop {reason}")))
    }
}

fn answers_ping(addr: Ipv4Addr) -> bool {
    let nobody = [[169, 254, 1, 1], [192, 0, 2, 1], [10, 240, 99, 99]];
    addr != SERVICE && !nobody.map(Ipv4Addr::from).contains(&addr)
}

fn tcp(case: &Case, server: Ipv4Addr, port: u16) -> Result<Happened> {
    let socket = socket(Type::STREAM, case.from, case.patience())?;
    socket.set_linger(Some(Duration::ZERO))?;
    let address = SocketAddrV4::new(server, port).into();
    let answered = socket.connect_timeout(&address, case.patience()).is_ok();
    let mut stream = TcpStream::from(socket);
    let mut greeting = [0; 64];
    let read = if answered {
        stream.read(&mut greeting).unwrap_or(0)
    } else {
        0
    };
    Ok(Happened {
        seen: first_line(&greeting[..read]),
        answered,
    })
}

fn udp(case: &Case, server: Ipv4Addr, port: u16) -> Result<Happened> {
    let socket = UdpSocket::from(socket(Type::DGRAM, case.from, case.patience())?);
    socket.connect((server, port))?;
    socket.send(b"who am I?\n")?;
    let mut answer = [0; 128];
    let read = socket.recv(&mut answer);
    Ok(Happened {
        seen: first_line(&answer[..*read.as_ref().unwrap_or(&0)]),
        answered: read.is_ok(),
    })
}

/// Checks so many random cases.
fn check(loader_yaml: &str, cases: usize, expected: &[&str]) -> Result {
    let mut scene = Scene::new(loader_yaml)?;
    let mut verdicts = std::collections::BTreeMap::new();
    for _ in 0..cases {
        let case = scene.case();
        *verdicts.entry(scene.check(&case)?).or_insert(0) += 1;
    }
    println!("{cases} cases agree: {verdicts:?}");
    for verdict in expected {
        assert!(
            verdicts.contains_key(*verdict),
            "no {verdict}: {verdicts:?}"
        );
    }
    Ok(())
}

#[test]
fn a_trace_agrees_with_what_then_happens_in_100_random_cases() -> Result {
    check(
        "vnetCidrs: [10.50.0.0/16]\n",
        100,
        &["pod", "wire", "stack", "drop wireserver"],
    )
}

#[test]
fn it_does_so_in_100_more_with_service_ranges_and_denied_metadata() -> Result {
    check(
        "{serviceCidrs: [10.0.0.0/16], vnetCidrs: [10.50.0.0/16], imds: deny}\n",
        100,
        &["pod", "wire", "stack", "drop denied"],
    )
}
